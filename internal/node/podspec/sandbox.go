package podspec

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// Node is what the translation needs to know about the node and what it prepared for the pod.
type Node struct {
	LogDir       string // the pods' log directories stand below it
	SeccompDir   string // local seccomp profiles
	CgroupParent string // the pod's cgroup
	Capacity     corev1.ResourceList
	DNS          DNS
	// UserNamespace is the pod's mapping when it asked for one of its own (hostUsers: false).
	UserNamespace *cri.UserNamespace
}

// LogDirectory returns where the logs of a pod's containers are.
func LogDirectory(logDir, namespace, name, uid string) string {
	return filepath.Join(logDir, namespace+"_"+name+"_"+uid)
}

// Sandbox returns the configuration of a pod's sandbox.
func Sandbox(pod *corev1.Pod, n *Node, attempt uint32) (*cri.PodSandboxConfig, error) {
	dns, err := n.DNS.For(pod)
	if err != nil {
		return nil, err
	}
	cfg := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		LogDirectory: LogDirectory(n.LogDir, pod.Namespace, pod.Name, string(pod.UID)), DnsConfig: dns, Labels: podLabels(pod), Annotations: pod.Annotations,
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: n.CgroupParent, Sysctls: map[string]string{}, SecurityContext: sandboxSecurity(pod, n)},
	}
	if !pod.Spec.HostNetwork {
		if cfg.Hostname, _, err = Hostname(pod, n.DNS.ClusterDomain); err != nil {
			return nil, err
		}
		cfg.PortMappings = portMappings(pod)
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			cfg.Linux.Sysctls[s.Name] = s.Value
		}
	}
	return cfg, nil
}

// podLabels are the pod's own labels and those by which the agent finds its sandboxes.
func podLabels(pod *corev1.Pod) map[string]string {
	out := make(map[string]string, len(pod.Labels)+3)
	for k, v := range pod.Labels {
		out[k] = v
	}
	out[lifecycle.LabelPodName], out[lifecycle.LabelPodNamespace], out[lifecycle.LabelPodUID] = pod.Name, pod.Namespace, string(pod.UID)
	return out
}

func portMappings(pod *corev1.Pod) []*cri.PortMapping {
	var out []*cri.PortMapping
	add := func(c *corev1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			m := &cri.PortMapping{ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP}
			switch p.Protocol {
			case corev1.ProtocolUDP:
				m.Protocol = cri.Protocol_UDP
			case corev1.ProtocolSCTP:
				m.Protocol = cri.Protocol_SCTP
			}
			out = append(out, m)
		}
	}
	for i := range pod.Spec.InitContainers {
		if lifecycle.IsSidecar(&pod.Spec.InitContainers[i]) {
			add(&pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return out
}

func sandboxSecurity(pod *corev1.Pod, n *Node) *cri.LinuxSandboxSecurityContext {
	out := &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod, n), Privileged: anyPrivileged(pod),
		Seccomp: &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		out.RunAsUser, out.RunAsGroup = int64Value(sc.RunAsUser, nil), int64Value(sc.RunAsGroup, nil)
		out.SupplementalGroups, out.SupplementalGroupsPolicy = supplemental(sc, n), groupsPolicy(sc)
		out.SelinuxOptions = selinux(sc.SELinuxOptions, nil)
	}
	return out
}

func anyPrivileged(pod *corev1.Pod) bool {
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			if s := list[i].SecurityContext; s != nil && isTrue(s.Privileged) {
				return true
			}
		}
	}
	return false
}

// Hostname returns a pod's host name and domain. With setHostnameAsFQDN the host name is the whole name.
func Hostname(pod *corev1.Pod, clusterDomain string) (host, domain string, err error) {
	if o := pod.Spec.HostnameOverride; o != nil && *o != "" {
		return *o, "", nil
	}
	host = pod.Spec.Hostname
	if host == "" {
		host = pod.Name
		if len(host) > 63 { // RFC 1123 label
			host = trimName(host[:63])
		}
	}
	if pod.Spec.Subdomain != "" {
		domain = fmt.Sprintf("%s.%s.svc.%s", pod.Spec.Subdomain, pod.Namespace, clusterDomain)
	}
	if isTrue(pod.Spec.SetHostnameAsFQDN) && domain != "" {
		fqdn := host + "." + domain
		if len(fqdn) > 64 { // HOST_NAME_MAX
			return "", "", fmt.Errorf("failed to construct FQDN from pod hostname and cluster domain, FQDN %s is too long (64 characters is the max, %d characters requested)", fqdn, len(fqdn))
		}
		return fqdn, domain, nil
	}
	return host, domain, nil
}

func trimName(s string) string {
	for len(s) > 0 && (s[len(s)-1] == '-' || s[len(s)-1] == '.') {
		s = s[:len(s)-1]
	}
	return s
}
