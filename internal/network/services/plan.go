// Package services makes Kubernetes Services work on one node, with nftables.
//
// What flows through it: a changed Service or EndpointSlice marks its Service dirty; [Plan], a pure function, turns a
// Service and its slices into map elements; a [Table] merges the elements of all Services and says what differs from
// the kernel; [Kernel] writes the difference in one netlink transaction. Packets meet a fixed handful of rules: a verdict map
// from (address, protocol, port) leads to a picker chain shared by all Services with as many endpoints, and a second map from
// (address, protocol, port, random slot) to the endpoint. docs/adr/0004 says why, with figures.
//
// What must stay true: a transaction leaves the table consistent, so that a packet finds the old endpoints or
// the new ones; nothing is listed or computed in proportion to the number of Services when one of them changes; nothing
// outside of the one table named for this instance is touched. Tests: TestTableChangesAddUp, TestTwoOwnersOfOneKey,
// TestKernelTwoThousandServices.
package services

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// Node is what planning must know of the machine.
type Node struct {
	Name string
	Zone string // its label topology.kubernetes.io/zone
	// Local are the Service addresses that a process of the node itself serves (cluster DNS); no rules are made for them.
	Local []netip.Addr
}

// Part is what one Service asks of the table.
type Part struct {
	Elements []Element
	// NoLocalInside and NoLocalOutside report whether a traffic policy keeps clients inside or outside of the cluster to this node, which
	// has no endpoint for them although there are some elsewhere.
	NoLocalInside, NoLocalOutside bool
	// Health, if not nil, asks for the health check server of a load balancer.
	Health *Health
}

// Health is what the health check node port of a Service answers, see Service.spec.healthCheckNodePort.
type Health struct {
	Port           uint16
	LocalEndpoints int
}

// labelProxyName names who is to serve a Service instead of the cluster's own proxy (kubernetes.io/docs, "Well-Known Labels").
const labelProxyName = "service.kubernetes.io/service-proxy-name"

// leftToOthers reports whether a Service is nothing for this node's rules: it has no address, or its labels say so.
func leftToOthers(svc *corev1.Service) bool {
	_, other := svc.Labels[labelProxyName]
	_, headless := svc.Labels[corev1.IsHeadlessService]
	return other || headless || svc.Spec.Type == corev1.ServiceTypeExternalName || svc.Spec.ClusterIP == corev1.ClusterIPNone
}

// Plan returns the elements for svc, whose EndpointSlices are slices, in the table of one family. Headless and ExternalName Services
// need none, nor does a Service that has no cluster IP of the family.
func Plan(svc *corev1.Service, epSlices []*discoveryv1.EndpointSlice, node Node, family nft.Family) Part {
	p := planner{svc: svc, slices: epSlices, node: node, family: family, ready: map[netip.Addr]bool{}, hairpins: map[netip.Addr]bool{}}
	if leftToOthers(svc) || len(p.clusterIPs()) == 0 {
		return Part{}
	}
	if svc.Spec.SessionAffinity == corev1.ServiceAffinityClientIP {
		p.affinity = uint32(corev1.DefaultClientIPServiceAffinitySeconds)
		if c := svc.Spec.SessionAffinityConfig; c != nil && c.ClientIP != nil && c.ClientIP.TimeoutSeconds != nil {
			p.affinity = uint32(*c.ClientIP.TimeoutSeconds)
		}
	}
	for i := range svc.Spec.Ports {
		p.port(&svc.Spec.Ports[i])
	}
	for addr := range p.hairpins {
		p.add(Key{Set: Hairpins, Addr: addr}, Value{})
	}
	part := Part{Elements: p.elements, NoLocalInside: p.noInside, NoLocalOutside: p.noOutside}
	if port := svc.Spec.HealthCheckNodePort; port > 0 && outsideLocal(svc) {
		part.Health = &Health{Port: uint16(port), LocalEndpoints: len(p.ready)}
	}
	sortElements(part.Elements)
	return part
}

// planner collects the elements of one Service in one family.
type planner struct {
	svc       *corev1.Service
	slices    []*discoveryv1.EndpointSlice
	node      Node
	family    nft.Family
	affinity  uint32
	elements  []Element
	noInside  bool
	noOutside bool
	hairpins  map[netip.Addr]bool // the node's own endpoints
	ready     map[netip.Addr]bool // of them, those that are ready: others serve, but load balancers are not to send more (KEP-1669)
}

func (p *planner) add(k Key, v Value) { p.elements = append(p.elements, Element{k, v}) }

// port adds the elements of one Service port. Hints choose among all endpoints; where a traffic policy says Local, those of the node
// are used whatever the hints.
func (p *planner) port(sp *corev1.ServicePort) {
	proto, ok := protocolOf(sp.Protocol)
	if !ok {
		return
	}
	all := p.endpointsOf(sp)
	cluster, here := all.hinted().choose(), all.onNode().choose()
	for _, e := range all.onNode().ready {
		p.hairpins[e.addr], p.ready[e.addr] = true, true
	}
	for _, e := range here {
		p.hairpins[e.addr] = true
	}

	inside := cluster
	if p.svc.Spec.InternalTrafficPolicy != nil && *p.svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal {
		inside = here
		p.noInside = p.noInside || len(here) == 0 && len(cluster) > 0
	}
	p.noOutside = p.noOutside || outsideLocal(p.svc) && len(here) == 0 && len(cluster) > 0
	for _, addr := range p.served(p.clusterIPs()) {
		p.frontend(Key{Set: Frontends, Addr: addr, Proto: proto, Port: uint16(sp.Port)}, inside, len(cluster) > 0, false)
	}
	for _, addr := range p.served(p.outsideIPs()) {
		key := Key{Set: Frontends, Addr: addr, Proto: proto, Port: uint16(sp.Port)}
		p.frontend(key, cluster, false, false)
		if outsideLocal(p.svc) && len(cluster) > 0 {
			key.Set = OutsideFrontends
			p.frontend(key, here, true, true)
		}
	}
	if sp.NodePort > 0 {
		key := Key{Set: NodePorts, Proto: proto, Port: uint16(sp.NodePort)}
		p.frontend(key, cluster, false, false)
		if outsideLocal(p.svc) && len(cluster) > 0 {
			key.Set = OutsideNodePorts
			p.frontend(key, here, true, true)
		}
	}
}

// frontend leads key to endpoints. Without any, packets are dropped where drop says so (the Service has endpoints on other nodes
// only, and its policy forbids to use them) and rejected otherwise.
func (p *planner) frontend(key Key, endpoints []endpoint, drop, outside bool) {
	nodePort := key.Set == NodePorts || key.Set == OutsideNodePorts
	if len(endpoints) == 0 {
		if drop {
			p.add(key, Value{Picker: Picker{Drop: true}})
			return
		}
		key.Set = Rejects
		if nodePort {
			key.Set = NodeRejects
		}
		p.add(key, Value{})
		return
	}
	p.add(key, Value{Picker: Picker{N: uint32(len(endpoints)), NodePort: nodePort, Outside: outside, Affinity: p.affinity}})
	key.Set = Endpoints
	if nodePort {
		key.Set = NodePortEndpoints
	}
	if outside {
		key.Slot = outsideSlots
	}
	for _, e := range endpoints {
		p.add(key, Value{Addr: e.addr, Port: e.port})
		key.Slot++
	}
}

// clusterIPs returns the Service's cluster IPs of the family.
func (p *planner) clusterIPs() []netip.Addr {
	ips := p.svc.Spec.ClusterIPs
	if len(ips) == 0 {
		ips = []string{p.svc.Spec.ClusterIP}
	}
	return p.addrs(ips)
}

// outsideIPs returns the addresses at which the outside world reaches the Service: external IPs and those of load
// balancers that deliver packets unchanged (ipMode VIP, KEP-1860).
func (p *planner) outsideIPs() []netip.Addr {
	ips := slices.Clone(p.svc.Spec.ExternalIPs)
	for _, in := range p.svc.Status.LoadBalancer.Ingress {
		if in.IP != "" && (in.IPMode == nil || *in.IPMode == corev1.LoadBalancerIPModeVIP) && !slices.Contains(ips, in.IP) {
			ips = append(ips, in.IP)
		}
	}
	return p.addrs(ips)
}

// addrs returns those of ips that are of the family.
func (p *planner) addrs(ips []string) []netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		if addr, err := netip.ParseAddr(ip); err == nil && nft.FamilyOf(addr) == p.family {
			out = append(out, addr)
		}
	}
	return out
}

// served returns those of addrs that no process of the node serves.
func (p *planner) served(addrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return slices.Contains(p.node.Local, a) })
}

// outsideLocal reports whether clients outside of the cluster may only be led to endpoints on the node they came to.
func outsideLocal(svc *corev1.Service) bool {
	return svc.Spec.ExternalTrafficPolicy == corev1.ServiceExternalTrafficPolicyLocal
}

func protocolOf(p corev1.Protocol) (Protocol, bool) {
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
