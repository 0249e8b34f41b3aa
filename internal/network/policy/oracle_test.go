package policy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// oracle says what the API's reference says, one connection after the other, with nothing kept and nothing shared.
type oracle struct {
	namespaces map[string]*corev1.Namespace
	pods       map[string]*corev1.Pod // by namespace/name
	policies   map[string]*networkingv1.NetworkPolicy
}

// connection is a question. The ends are addresses.
type connection struct {
	client, server netip.Addr
	protocol       corev1.Protocol
	port           int32
}

// podAt returns the pod that has an address of its own.
func (o *oracle) podAt(addr netip.Addr) *corev1.Pod {
	for _, p := range o.pods {
		if p.Status.PodIP == addr.String() && !p.Spec.HostNetwork && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			return p
		}
	}
	return nil
}

// passes reports whether the policies of one end let the connection pass.
func (o *oracle) passes(c connection, d Direction) bool {
	self, other := c.server, c.client
	if d == Egress {
		self, other = c.client, c.server
	}
	if self == other {
		return true
	}
	pod := o.podAt(self)
	if pod == nil {
		return true
	}
	isolated := false
	for _, p := range o.policies {
		if p.Namespace != pod.Namespace || !matches(&p.Spec.PodSelector, pod.Labels) || !about(p, d) {
			continue
		}
		isolated = true
		if d == Ingress {
			for _, r := range p.Spec.Ingress {
				if o.peersInclude(r.From, p.Namespace, other) && portsInclude(r.Ports, c, o.podAt(c.server)) {
					return true
				}
			}
		} else {
			for _, r := range p.Spec.Egress {
				if o.peersInclude(r.To, p.Namespace, other) && portsInclude(r.Ports, c, o.podAt(c.server)) {
					return true
				}
			}
		}
	}
	return !isolated
}

func about(p *networkingv1.NetworkPolicy, d Direction) bool {
	if len(p.Spec.PolicyTypes) == 0 {
		return d == Ingress || len(p.Spec.Egress) > 0
	}
	for _, t := range p.Spec.PolicyTypes {
		if t == networkingv1.PolicyTypeIngress && d == Ingress || t == networkingv1.PolicyTypeEgress && d == Egress {
			return true
		}
	}
	return false
}

func matches(s *metav1.LabelSelector, set map[string]string) bool {
	sel, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && sel.Matches(labels.Set(set))
}

func (o *oracle) peersInclude(peers []networkingv1.NetworkPolicyPeer, namespace string, other netip.Addr) bool {
	if len(peers) == 0 {
		return true
	}
	pod := o.podAt(other)
	for _, p := range peers {
		if p.IPBlock != nil {
			if inBlock(p.IPBlock, other) {
				return true
			}
			continue
		}
		if pod == nil || p.PodSelector != nil && !matches(p.PodSelector, pod.Labels) {
			continue
		}
		if p.NamespaceSelector == nil {
			if pod.Namespace == namespace {
				return true
			}
			continue
		}
		// An empty selector is every namespace, whatever is known of it.
		all := len(p.NamespaceSelector.MatchLabels)+len(p.NamespaceSelector.MatchExpressions) == 0
		if ns := o.namespaces[pod.Namespace]; all || ns != nil && matches(p.NamespaceSelector, ns.Labels) {
			return true
		}
	}
	return false
}

func inBlock(b *networkingv1.IPBlock, addr netip.Addr) bool {
	if !netip.MustParsePrefix(b.CIDR).Contains(addr) {
		return false
	}
	for _, e := range b.Except {
		if netip.MustParsePrefix(e).Contains(addr) {
			return false
		}
	}
	return true
}

func portsInclude(ports []networkingv1.NetworkPolicyPort, c connection, server *corev1.Pod) bool {
	if len(ports) == 0 {
		return true
	}
	for _, p := range ports {
		protocol := corev1.ProtocolTCP
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		switch {
		case protocol != c.protocol:
		case p.Port == nil:
			return true
		case p.Port.Type == intstr.String:
			if server == nil {
				continue
			}
			for _, container := range server.Spec.Containers {
				for _, cp := range container.Ports {
					if cp.Name == p.Port.StrVal && cp.Protocol == protocol && cp.ContainerPort == c.port {
						return true
					}
				}
			}
		case p.EndPort != nil:
			if c.port >= p.Port.IntVal && c.port <= *p.EndPort {
				return true
			}
		case p.Port.IntVal == c.port:
			return true
		}
	}
	return false
}
