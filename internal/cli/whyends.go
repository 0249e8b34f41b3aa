package cli

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// end is one end of a connection, with the addresses that policies may see of it.
type end struct {
	name  string
	node  string      // on which it is; "" is outside of the cluster
	pod   *corev1.Pod // nil where it is none, or on the network of its node
	addrs []netip.Addr
}

// String names the end as people know it.
func (e end) String() string {
	where := e.addrs[0].String()
	if e.node != "" {
		where += " on " + e.node
	}
	if e.name == e.addrs[0].String() {
		return where
	}
	return fmt.Sprintf("%s (%s)", e.name, where)
}

// target is where a connection goes.
type target struct {
	end
	protocol policy.Protocol
	port     uint16
}

// finder finds the ends of a connection by what people call them.
type finder struct {
	client    client.Client
	namespace string // of names that have none
}

// key returns the namespace and name of NAME or NAMESPACE/NAME, and the kind before it, if any: pod or service.
func (f finder) key(text string) (kind string, key api.Key) {
	for prefix, of := range map[string]string{"pod/": "pod", "po/": "pod", "service/": "service", "svc/": "service"} {
		if rest, ok := strings.CutPrefix(text, prefix); ok {
			kind, text = of, rest
			break
		}
	}
	if namespace, name, ok := strings.Cut(text, "/"); ok {
		return kind, api.Key{Namespace: namespace, Name: name}
	}
	return kind, api.Key{Namespace: f.namespace, Name: text}
}

// clientEnd finds who connects: a pod or an address.
func (f finder) clientEnd(ctx context.Context, text string) (end, error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return end{name: text, addrs: []netip.Addr{addr}}, nil
	}
	_, key := f.key(text)
	pod, err := client.Get[*corev1.Pod](ctx, f.client, key)
	if apierrors.IsNotFound(err) {
		return end{}, fmt.Errorf("there is no pod %s (-n names the namespace of names without one)", key)
	}
	if err != nil {
		return end{}, err
	}
	return f.podEnd(ctx, pod)
}

// podEnd returns a pod as an end.
func (f finder) podEnd(ctx context.Context, pod *corev1.Pod) (end, error) {
	e := end{name: api.KeyOf(pod).String(), node: pod.Spec.NodeName}
	if seen := policy.PodOf(pod); !pod.Spec.HostNetwork {
		e.pod, e.addrs = pod, seen.Addrs
	} else if node, err := client.Get[*corev1.Node](ctx, f.client, api.Key{Name: pod.Spec.NodeName}); err != nil {
		return e, fmt.Errorf("node %s of pod %s: %w", pod.Spec.NodeName, e.name, err)
	} else {
		e.name += ", on the network of its node"
		e.addrs = nodeAddrs(node)
	}
	if len(e.addrs) == 0 {
		return e, fmt.Errorf("pod %s has no address (phase %s)", e.name, cmp.Or(pod.Status.Phase, corev1.PodPending))
	}
	return e, nil
}

// nodeAddrs returns the addresses that other nodes see of a node: its own and, through an overlay, the second of its pods' (ADR 6).
func nodeAddrs(node *corev1.Node) []netip.Addr {
	var out []netip.Addr
	for _, a := range node.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil && a.Type == corev1.NodeInternalIP {
			out = append(out, addr)
		}
	}
	if pods, err := netip.ParsePrefix(node.Spec.PodCIDR); err == nil && len(out) > 0 {
		out = append(out, pods.Masked().Addr().Next())
	}
	return out
}

// targets finds where a connection to NAME:PORT or NAME:PORT/PROTOCOL goes: to a pod, to each endpoint of a Service, or to an address.
func (f finder) targets(ctx context.Context, text string) ([]target, error) {
	at := strings.LastIndex(text, ":")
	if at < 0 {
		return nil, fmt.Errorf("%q has no port: write NAME:PORT, with /udp behind it where it is not TCP", text)
	}
	name, port := strings.Trim(text[:at], "[]"), text[at+1:]
	port, protocolName, _ := strings.Cut(port, "/")
	protocol, ok := policy.ProtocolOf(corev1.Protocol(strings.ToUpper(protocolName)))
	if !ok {
		return nil, fmt.Errorf("protocol %q: want tcp, udp or sctp", protocolName)
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		number, err := portNumber(port, nil, protocol)
		return []target{{end{name: name, addrs: []netip.Addr{addr}}, protocol, number}}, err
	}
	kind, key := f.key(name)
	if kind != "service" {
		pod, err := client.Get[*corev1.Pod](ctx, f.client, key)
		if err == nil {
			return f.podTarget(ctx, pod, port, protocol)
		}
		if !apierrors.IsNotFound(err) || kind == "pod" {
			return nil, err
		}
	}
	service, err := client.Get[*corev1.Service](ctx, f.client, key)
	if apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("there is neither a pod nor a Service %s (-n names the namespace of names without one)", key)
	}
	if err != nil {
		return nil, err
	}
	return f.endpoints(ctx, service, port, protocol)
}

func (f finder) podTarget(ctx context.Context, pod *corev1.Pod, port string, protocol policy.Protocol) ([]target, error) {
	number, err := portNumber(port, policy.PodOf(pod).Ports, protocol)
	if err != nil {
		return nil, fmt.Errorf("pod %s: %w", api.KeyOf(pod), err)
	}
	e, err := f.podEnd(ctx, pod)
	return []target{{e, protocol, number}}, err
}

// portNumber returns the number of a port by its number or its name.
func portNumber(port string, named []policy.NamedPort, protocol policy.Protocol) (uint16, error) {
	if number, err := strconv.ParseUint(port, 10, 16); err == nil && number > 0 {
		return uint16(number), nil
	}
	for _, n := range named {
		if n.Name == port && n.Protocol == protocol {
			return n.Number, nil
		}
	}
	return 0, fmt.Errorf("port %q is neither a number nor the name of a port of that protocol", port)
}

// endpoints returns where a Service's connections go.
func (f finder) endpoints(ctx context.Context, service *corev1.Service, port string, protocol policy.Protocol) ([]target, error) {
	key := api.KeyOf(service)
	at := slices.IndexFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
		of, _ := policy.ProtocolOf(p.Protocol)
		return of == protocol && (p.Name == port || strconv.Itoa(int(p.Port)) == port)
	})
	if at < 0 {
		return nil, fmt.Errorf("Service %s has no port %s of that protocol", key, port)
	}
	all, err := client.List[*discoveryv1.EndpointSlice](ctx, f.client, client.ListOptions{Namespace: key.Namespace,
		Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: key.Name})})
	if err != nil {
		return nil, err
	}
	var out []target
	for _, slice := range all {
		for _, p := range slice.Ports {
			if p.Port == nil || p.Name != nil && *p.Name != service.Spec.Ports[at].Name {
				continue
			}
			for i := range slice.Endpoints {
				if t, ok, err := f.endpoint(ctx, &slice.Endpoints[i], key.Namespace); err != nil {
					return nil, err
				} else if ok {
					out = append(out, target{t, protocol, uint16(*p.Port)})
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("Service %s has no ready endpoint: connections to it are refused, whatever policies say", key)
	}
	slices.SortFunc(out, func(a, b target) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

// endpoint returns a ready endpoint of a Service; ok is false for others.
func (f finder) endpoint(ctx context.Context, ep *discoveryv1.Endpoint, namespace string) (e end, ok bool, err error) {
	if ep.Conditions.Ready != nil && !*ep.Conditions.Ready || len(ep.Addresses) == 0 {
		return e, false, nil
	}
	if ep.TargetRef != nil && ep.TargetRef.Kind == "Pod" {
		pod, err := client.Get[*corev1.Pod](ctx, f.client, api.Key{Namespace: namespace, Name: ep.TargetRef.Name})
		if apierrors.IsNotFound(err) {
			return e, false, nil
		}
		if err != nil {
			return e, false, err
		}
		e, err = f.podEnd(ctx, pod)
		return e, err == nil, err
	}
	addr, err := netip.ParseAddr(ep.Addresses[0])
	if err != nil {
		return e, false, err
	}
	return end{name: addr.String(), addrs: []netip.Addr{addr}}, true, nil
}
