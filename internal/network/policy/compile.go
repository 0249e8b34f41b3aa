package policy

import (
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/nft"
)

// Direction is that of connections, seen from the pod that a policy selects.
type Direction uint8

// The directions.
const (
	Ingress Direction = iota
	Egress
	NumDirections
)

// String returns the direction as metrics and chains name it.
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// guard is a policy as it was read: whom it selects, and what it lets pass in the directions that it is about.
type guard struct {
	key     api.Key
	pods    choice
	isolate [NumDirections]bool
	rules   [NumDirections][]allowance
}

// allowance is one rule: connections with any of the peers at any of the ports.
type allowance struct {
	anyPeer bool
	peers   []choice
	blocks  []Range
	ports   []portMatch // nil is all ports of all protocols
}

// portMatch is one entry of a rule's ports.
type portMatch struct {
	protocol    Protocol
	first, last uint16 // 0, 0 is every port
	name        string // of a port of the pod to which the connection goes
}

// choice chooses pods: of one namespace, or of those that spaces chooses.
type choice struct {
	namespace string
	spaces    labels.Selector // nil where namespace says it
	pods      labels.Selector
}

// id is the same for choices that say the same.
func (c choice) id() string {
	if c.spaces == nil {
		return "in " + c.namespace + ": " + c.pods.String()
	}
	return "where " + c.spaces.String() + ": " + c.pods.String()
}

// everyPod chooses all pods.
func everyPod() choice { return choice{spaces: labels.Everything(), pods: labels.Everything()} }

// selector returns s as a selector; one that validation let pass by mistake chooses nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	out, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return out
}

// read returns what p says, for one family.
func read(p *networkingv1.NetworkPolicy, family nft.Family) *guard {
	g := &guard{key: api.KeyOf(p), pods: choice{namespace: p.Namespace, pods: selector(&p.Spec.PodSelector)}}
	// Without policyTypes a policy is about ingress, and about egress if it has rules for that.
	g.isolate[Ingress] = len(p.Spec.PolicyTypes) == 0 || slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeIngress)
	g.isolate[Egress] = len(p.Spec.PolicyTypes) == 0 && len(p.Spec.Egress) > 0 || slices.Contains(p.Spec.PolicyTypes, networkingv1.PolicyTypeEgress)
	if g.isolate[Ingress] {
		for _, r := range p.Spec.Ingress {
			g.rules[Ingress] = append(g.rules[Ingress], readRule(p.Namespace, r.From, r.Ports, family))
		}
	}
	if g.isolate[Egress] {
		for _, r := range p.Spec.Egress {
			g.rules[Egress] = append(g.rules[Egress], readRule(p.Namespace, r.To, r.Ports, family))
		}
	}
	return g
}

func readRule(namespace string, peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort, family nft.Family) allowance {
	a := allowance{anyPeer: len(peers) == 0}
	var blocks []*networkingv1.IPBlock
	for _, p := range peers {
		switch {
		case p.IPBlock != nil:
			blocks = append(blocks, p.IPBlock)
		case p.NamespaceSelector != nil:
			c := choice{spaces: selector(p.NamespaceSelector), pods: labels.Everything()}
			if p.PodSelector != nil {
				c.pods = selector(p.PodSelector)
			}
			a.peers = append(a.peers, c)
		case p.PodSelector != nil:
			a.peers = append(a.peers, choice{namespace: namespace, pods: selector(p.PodSelector)})
		}
	}
	a.blocks = rangesOf(blocks, family)
	for _, p := range ports {
		if m, ok := readPort(p); ok {
			a.ports = append(a.ports, m)
		}
	}
	if len(ports) > 0 && a.ports == nil {
		return allowance{} // for protocols that nobody knows
	}
	return a
}

func readPort(p networkingv1.NetworkPolicyPort) (portMatch, bool) {
	m := portMatch{protocol: TCP}
	if p.Protocol != nil {
		var ok bool
		if m.protocol, ok = ProtocolOf(*p.Protocol); !ok {
			return m, false
		}
	}
	switch {
	case p.Port == nil:
	case p.Port.Type == intstr.String:
		m.name = p.Port.StrVal
	default:
		m.first = uint16(p.Port.IntVal)
		m.last = m.first
		if p.EndPort != nil {
			m.last = uint16(*p.EndPort)
		}
	}
	return m, true
}
