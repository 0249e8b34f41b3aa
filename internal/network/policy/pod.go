package policy

import (
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
)

// Protocol is an IP protocol number.
type Protocol uint8

// The protocols that a policy may name.
const (
	TCP  Protocol = 6
	UDP  Protocol = 17
	SCTP Protocol = 132
)

// String returns the protocol as policies name it.
func (p Protocol) String() string {
	switch p {
	case UDP:
		return string(corev1.ProtocolUDP)
	case SCTP:
		return string(corev1.ProtocolSCTP)
	}
	return string(corev1.ProtocolTCP)
}

// ProtocolOf returns the protocol of a port; the default is TCP. ok is false for those that no policy may name.
func ProtocolOf(p corev1.Protocol) (protocol Protocol, ok bool) {
	switch p {
	case corev1.ProtocolTCP, "":
		return TCP, true
	case corev1.ProtocolUDP:
		return UDP, true
	case corev1.ProtocolSCTP:
		return SCTP, true
	}
	return 0, false
}

// Pod is what policies see of a pod.
type Pod struct {
	Key    api.Key
	UID    types.UID
	Labels map[string]string
	Addrs  []netip.Addr
	Ports  []NamedPort
	// Gone reports whether it has no address, whatever else is known: it has ended, or is on the network of its node, as part of which it
	// counts.
	Gone bool
}

// Equal reports whether policies see no difference between p and q.
func (p Pod) Equal(q Pod) bool {
	return p.UID == q.UID && p.Gone == q.Gone && maps.Equal(p.Labels, q.Labels) && slices.Equal(p.Addrs, q.Addrs) && slices.Equal(p.Ports, q.Ports)
}

// NamedPort is a port of a container that has a name.
type NamedPort struct {
	Name     string
	Protocol Protocol
	Number   uint16
}

// PodOf returns what policies see of p.
func PodOf(p *corev1.Pod) Pod {
	pod := Pod{Key: api.KeyOf(p), UID: p.UID, Labels: p.Labels}
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		pod.Gone = true
		return pod
	}
	for _, ip := range p.Status.PodIPs {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			pod.Addrs = append(pod.Addrs, addr)
		}
	}
	if addr, err := netip.ParseAddr(p.Status.PodIP); err == nil && len(pod.Addrs) == 0 {
		pod.Addrs = append(pod.Addrs, addr)
	}
	for i := range p.Spec.InitContainers {
		// Only those that go on running serve (KEP-753).
		if c := &p.Spec.InitContainers[i]; c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			pod.addPorts(c.Ports)
		}
	}
	for i := range p.Spec.Containers {
		pod.addPorts(p.Spec.Containers[i].Ports)
	}
	return pod
}

func (p *Pod) addPorts(ports []corev1.ContainerPort) {
	for _, cp := range ports {
		protocol, ok := ProtocolOf(cp.Protocol)
		if cp.Name == "" || !ok {
			continue
		}
		// Of two containers' ports of one name and protocol the first one has it.
		if !slices.ContainsFunc(p.Ports, func(n NamedPort) bool { return n.Name == cp.Name && n.Protocol == protocol }) {
			p.Ports = append(p.Ports, NamedPort{Name: cp.Name, Protocol: protocol, Number: uint16(cp.ContainerPort)})
		}
	}
}
