package podspec

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DNS is how pods of this node resolve names.
type DNS struct {
	ClusterDNS    []string       // addresses of the cluster's DNS service
	ClusterDomain string         // "cluster.local"
	Host          *cri.DNSConfig // the node's own resolver configuration
}

// ParseResolvConf reads the node's own resolver configuration (resolv.conf(5)).
func ParseResolvConf(r io.Reader) (*cri.DNSConfig, error) {
	c := &cri.DNSConfig{}
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 2 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch f[0] {
		case "nameserver":
			c.Servers = append(c.Servers, f[1])
		case "search":
			c.Searches = nil
			for _, d := range f[1:] {
				c.Searches = append(c.Searches, strings.TrimSuffix(d, "."))
			}
		case "options":
			c.Options = append([]string(nil), f[1:]...)
		}
	}
	return c, s.Err()
}

// For returns the resolver configuration of a pod: dnsPolicy, then dnsConfig on top
// (https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy).
func (d *DNS) For(pod *corev1.Pod) (*cri.DNSConfig, error) {
	policy := pod.Spec.DNSPolicy
	if policy == corev1.DNSClusterFirst && pod.Spec.HostNetwork {
		policy = corev1.DNSDefault
	}
	out := &cri.DNSConfig{}
	switch policy {
	case corev1.DNSNone:
	case corev1.DNSDefault:
		d.host(out)
	case corev1.DNSClusterFirst, corev1.DNSClusterFirstWithHostNet, "":
		if len(d.ClusterDNS) == 0 {
			d.host(out)
			break
		}
		out.Servers = slices.Clone(d.ClusterDNS)
		out.Searches = append([]string{pod.Namespace + ".svc." + d.ClusterDomain, "svc." + d.ClusterDomain, d.ClusterDomain}, d.Host.GetSearches()...)
		out.Options = []string{"ndots:5"}
	default:
		return nil, fmt.Errorf("spec.dnsPolicy: %q is not known", pod.Spec.DNSPolicy)
	}
	if c := pod.Spec.DNSConfig; c != nil {
		out.Servers = unique(append(out.Servers, c.Nameservers...))
		out.Searches = unique(append(out.Searches, c.Searches...))
		for _, o := range c.Options {
			out.Options = setOption(out.Options, o)
		}
	}
	return out, nil
}

func unique(in []string) []string {
	var out []string
	for _, s := range in {
		if s != "" && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// setOption adds a resolver option in place of one of the same name.
func setOption(options []string, o corev1.PodDNSConfigOption) []string {
	text := o.Name
	if o.Value != nil && *o.Value != "" {
		text += ":" + *o.Value
	}
	for i, have := range options {
		if name, _, _ := strings.Cut(have, ":"); name == o.Name {
			options[i] = text
			return options
		}
	}
	return append(options, text)
}

// host copies the node's own configuration.
func (d *DNS) host(out *cri.DNSConfig) {
	out.Servers, out.Searches, out.Options = slices.Clone(d.Host.GetServers()), slices.Clone(d.Host.GetSearches()), slices.Clone(d.Host.GetOptions())
}
