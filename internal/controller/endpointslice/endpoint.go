package endpointslice

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// group is the endpoints that have the same ports. Named target ports may be other numbers in other pods.
type group struct {
	ports     []discoveryv1.EndpointPort
	endpoints []discoveryv1.Endpoint
	turned    map[string]time.Time // when the pod of an endpoint, by its key, became ready or no longer was
}

// groups sorts the endpoints of svc with addresses of type t by their ports.
func groups(svc *corev1.Service, pods []*corev1.Pod, t discoveryv1.AddressType, zones map[string]string) map[string]*group {
	out := map[string]*group{}
	for _, p := range pods {
		if podstate.Finished(p) || len(p.Status.PodIPs) == 0 {
			continue
		}
		zone, known := zones[p.Spec.NodeName]
		// A pod of a node that is gone answers nobody; only who asked for addresses in any state gets it.
		if !known && !svc.Spec.PublishNotReadyAddresses {
			continue
		}
		ep := endpointOf(svc, p, t, zone)
		if len(ep.Addresses) == 0 {
			continue
		}
		ports := portsOf(svc, p)
		key := portsKey(ports)
		g := out[key]
		if g == nil {
			g = &group{ports: ports, turned: map[string]time.Time{}}
			out[key] = g
		}
		if i := slices.IndexFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady }); i >= 0 {
			g.turned[endpointKey(ep)] = p.Status.Conditions[i].LastTransitionTime.Time
		}
		g.endpoints = append(g.endpoints, ep)
	}
	return out
}

// endpointOf describes pod as an endpoint of svc. The three conditions are KEP-1672's: ready is serving and not terminating,
// or always where the Service publishes addresses that are not ready.
func endpointOf(svc *corev1.Service, pod *corev1.Pod, t discoveryv1.AddressType, zone string) discoveryv1.Endpoint {
	serving, terminating := podstate.Ready(pod), pod.DeletionTimestamp != nil
	ready := svc.Spec.PublishNotReadyAddresses || serving && !terminating
	ep := discoveryv1.Endpoint{
		Addresses:  addressesOf(pod, t),
		Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &serving, Terminating: &terminating},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		name := pod.Spec.NodeName
		ep.NodeName = &name
	}
	if zone != "" {
		ep.Zone = &zone
	}
	if h := hostnameOf(svc, pod); h != "" {
		ep.Hostname = &h
	}
	if ready {
		ep.Hints = hintsOf(svc, ep)
	}
	return ep
}

// hostnameOf is the name under which DNS knows the pod below the Service.
func hostnameOf(svc *corev1.Service, pod *corev1.Pod) string {
	if pod.Spec.Subdomain == svc.Name && pod.Namespace == svc.Namespace {
		return pod.Spec.Hostname
	}
	return ""
}

// hintsOf says which zone and node an endpoint is for, where the Service wants traffic to stay close (KEP-3015).
func hintsOf(svc *corev1.Service, ep discoveryv1.Endpoint) *discoveryv1.EndpointHints {
	if svc.Spec.TrafficDistribution == nil {
		return nil
	}
	var h discoveryv1.EndpointHints
	switch *svc.Spec.TrafficDistribution {
	case corev1.ServiceTrafficDistributionPreferSameNode:
		if ep.NodeName != nil {
			h.ForNodes = []discoveryv1.ForNode{{Name: *ep.NodeName}}
		}
		fallthrough
	case corev1.ServiceTrafficDistributionPreferClose, corev1.ServiceTrafficDistributionPreferSameZone:
		if ep.Zone != nil {
			h.ForZones = []discoveryv1.ForZone{{Name: *ep.Zone}}
		}
	}
	if h.ForNodes == nil && h.ForZones == nil {
		return nil
	}
	return &h
}

// addressesOf returns the pod's addresses of type t.
func addressesOf(pod *corev1.Pod, t discoveryv1.AddressType) []string {
	var out []string
	for _, ip := range pod.Status.PodIPs {
		a, err := netip.ParseAddr(ip.IP)
		if err == nil && a.Is4() == (t == discoveryv1.AddressTypeIPv4) {
			out = append(out, a.String())
		}
	}
	return out
}

// addressTypes are those of the Service's address families.
func addressTypes(svc *corev1.Service) []discoveryv1.AddressType {
	var out []discoveryv1.AddressType
	for _, f := range svc.Spec.IPFamilies {
		switch f {
		case corev1.IPv4Protocol:
			out = append(out, discoveryv1.AddressTypeIPv4)
		case corev1.IPv6Protocol:
			out = append(out, discoveryv1.AddressTypeIPv6)
		}
	}
	if len(out) == 0 { // not defaulted: by the cluster IP, or for want of one both
		a, err := netip.ParseAddr(svc.Spec.ClusterIP)
		if err != nil || a.Is4() {
			out = append(out, discoveryv1.AddressTypeIPv4)
		}
		if err != nil || a.Is6() {
			out = append(out, discoveryv1.AddressTypeIPv6)
		}
	}
	return out
}

// portsOf resolves the Service's ports for pod. A named port that the pod does not have is left out.
func portsOf(svc *corev1.Service, pod *corev1.Pod) []discoveryv1.EndpointPort {
	out := []discoveryv1.EndpointPort{}
	for i := range svc.Spec.Ports {
		sp := &svc.Spec.Ports[i]
		n, ok := portNumber(sp, pod)
		if !ok {
			continue
		}
		name, protocol := sp.Name, sp.Protocol
		out = append(out, discoveryv1.EndpointPort{Name: &name, Port: &n, Protocol: &protocol, AppProtocol: sp.AppProtocol})
	}
	return out
}

func portNumber(sp *corev1.ServicePort, pod *corev1.Pod) (int32, bool) {
	if sp.TargetPort.Type == intstr.Int {
		return sp.TargetPort.IntVal, true
	}
	find := func(c *corev1.Container) (int32, bool) {
		for _, p := range c.Ports {
			if p.Name == sp.TargetPort.StrVal && p.Protocol == sp.Protocol {
				return p.ContainerPort, true
			}
		}
		return 0, false
	}
	for i := range pod.Spec.Containers {
		if n, ok := find(&pod.Spec.Containers[i]); ok {
			return n, true
		}
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways { // a sidecar
			if n, ok := find(c); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// portsKey is equal for equal sets of ports.
func portsKey(ports []discoveryv1.EndpointPort) string {
	var out []string
	for _, p := range ports {
		out = append(out, fmt.Sprintf("%s/%s/%d/%s", deref(p.Name), deref(p.Protocol), deref(p.Port), deref(p.AppProtocol)))
	}
	slices.SortFunc(out, cmp.Compare[string])
	return strings.Join(out, ",")
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}
