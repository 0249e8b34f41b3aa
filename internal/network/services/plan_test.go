package services

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/network/nft"
)

func ptr[T any](v T) *T { return &v }

// ep reads "10.244.0.5", "10.244.0.5@node-2", and states after it: "!" not ready, "~" terminating but serving, "x" terminating.
func ep(s string) discoveryv1.Endpoint {
	e := discoveryv1.Endpoint{NodeName: ptr("node-1"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}}
	switch {
	case strings.HasSuffix(s, "!"):
		e.Conditions = discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(false)}
	case strings.HasSuffix(s, "~"):
		e.Conditions = discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(true), Terminating: ptr(true)}
	case strings.HasSuffix(s, "x"):
		e.Conditions = discoveryv1.EndpointConditions{Ready: ptr(false), Serving: ptr(false), Terminating: ptr(true)}
	}
	addr, node, ok := strings.Cut(strings.TrimRight(s, "!~x"), "@")
	if ok {
		e.NodeName = &node
	}
	e.Addresses = []string{addr}
	return e
}

func slice(eps ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: ptr(""), Port: ptr[int32](8080), Protocol: ptr(corev1.ProtocolTCP)}}}
	for _, e := range eps {
		s.Endpoints = append(s.Endpoints, ep(e))
	}
	return s
}

func TestPlan(t *testing.T) {
	type change = func(*corev1.ServiceSpec)
	localOut := func(s *corev1.ServiceSpec) { s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	localIn := func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = ptr(corev1.ServiceInternalTrafficPolicyLocal) }
	nodePort := func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeNodePort; s.Ports[0].NodePort = 30080 }
	for _, tc := range []struct {
		name   string
		change []change
		slices []*discoveryv1.EndpointSlice
		want   string
	}{
		{"two endpoints, one on this node", nil, []*discoveryv1.EndpointSlice{slice("10.244.1.9@node-2", "10.244.0.5")}, `
			frontends 10.96.0.9 tcp 80 -> pick-2
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.0.5:8080
			endpoints 10.96.0.9 tcp 80 slot 1 -> 10.244.1.9:8080
			hairpins 10.244.0.5`},
		{"no slices", nil, nil, `rejects 10.96.0.9 tcp 80`},
		{"nothing ready", nil, []*discoveryv1.EndpointSlice{slice("10.244.0.5!", "10.244.0.6x")}, `rejects 10.96.0.9 tcp 80`},
		{"an endpoint in two slices counts once", nil, []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2"), slice("10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080`},
		{"terminating endpoints are left out while others are ready", nil, []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2~", "10.244.1.6@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.6:8080`},
		{"terminating endpoints serve when there are no others (KEP-1669)", nil, []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2~", "10.244.1.6@node-2x")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080`},
		{"headless", []change{func(s *corev1.ServiceSpec) { s.ClusterIP = "None" }}, []*discoveryv1.EndpointSlice{slice("10.244.0.5")}, ``},
		{"external name", []change{func(s *corev1.ServiceSpec) { s.Type = corev1.ServiceTypeExternalName }}, nil, ``},
		{"cluster DNS is the node's own", []change{func(s *corev1.ServiceSpec) { s.ClusterIP, s.ClusterIPs = "10.96.0.10", nil }}, nil, ``},
		{"IPv6 slices and addresses are skipped", []change{func(s *corev1.ServiceSpec) { s.ClusterIPs = append(s.ClusterIPs, "fd00::9") }},
			[]*discoveryv1.EndpointSlice{{AddressType: discoveryv1.AddressTypeIPv6, Endpoints: []discoveryv1.Endpoint{ep("fd00::5")}}}, `rejects 10.96.0.9 tcp 80`},
		{"another port name", []change{func(s *corev1.ServiceSpec) { s.Ports[0].Name = "http" }}, []*discoveryv1.EndpointSlice{slice("10.244.0.5")}, `rejects 10.96.0.9 tcp 80`},
		{"another protocol", []change{func(s *corev1.ServiceSpec) { s.Ports[0].Protocol = corev1.ProtocolUDP }}, []*discoveryv1.EndpointSlice{slice("10.244.0.5")}, `rejects 10.96.0.9 udp 80`},
		{"session affinity", []change{func(s *corev1.ServiceSpec) { s.SessionAffinity = corev1.ServiceAffinityClientIP }}, []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1-sticky-10800
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080`},
		{"node port", []change{nodePort}, []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			node-ports tcp 30080 -> pick-node-port-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 slot 0 -> 10.244.1.5:8080`},
		{"node port without endpoints", []change{nodePort}, nil, `
			rejects 10.96.0.9 tcp 80
			node-rejects tcp 30080`},
		{"externalTrafficPolicy Local", []change{nodePort, localOut}, []*discoveryv1.EndpointSlice{slice("10.244.0.5", "10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-2
			node-ports tcp 30080 -> pick-node-port-2
			outside-node-ports tcp 30080 -> pick-node-port-outside-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.0.5:8080
			endpoints 10.96.0.9 tcp 80 slot 1 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 slot 0 -> 10.244.0.5:8080
			node-port-endpoints tcp 30080 slot 1 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 outside slot 0 -> 10.244.0.5:8080
			hairpins 10.244.0.5`},
		{"externalTrafficPolicy Local with endpoints elsewhere only", []change{nodePort, localOut}, []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			node-ports tcp 30080 -> pick-node-port-1
			outside-node-ports tcp 30080 -> drop
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 slot 0 -> 10.244.1.5:8080`},
		{"a terminating endpoint here serves outside clients while others are ready elsewhere", []change{nodePort, localOut},
			[]*discoveryv1.EndpointSlice{slice("10.244.0.5~", "10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			node-ports tcp 30080 -> pick-node-port-1
			outside-node-ports tcp 30080 -> pick-node-port-outside-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 slot 0 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 outside slot 0 -> 10.244.0.5:8080
			hairpins 10.244.0.5`},
		{"internalTrafficPolicy Local", []change{localIn}, []*discoveryv1.EndpointSlice{slice("10.244.0.5", "10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.0.5:8080
			hairpins 10.244.0.5`},
		{"internalTrafficPolicy Local with endpoints elsewhere only", []change{localIn}, []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> drop`},
		{"external IP", []change{func(s *corev1.ServiceSpec) { s.ExternalIPs = []string{"198.51.100.1", "fd00::1", "x"} }, localOut},
			[]*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2")}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			frontends 198.51.100.1 tcp 80 -> pick-1
			outside-frontends 198.51.100.1 tcp 80 -> drop
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080
			endpoints 198.51.100.1 tcp 80 slot 0 -> 10.244.1.5:8080`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"}, Spec: corev1.ServiceSpec{
				ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"}, Ports: []corev1.ServicePort{{Port: 80}}}}
			for _, f := range tc.change {
				f(&svc.Spec)
			}
			part := Plan(svc, tc.slices, Node{Name: "node-1", Local: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}, nft.IPv4)
			compare(t, part.Elements, tc.want)
		})
	}
}

func TestPlanLeavesLabelledServicesToOthers(t *testing.T) {
	svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []corev1.ServicePort{{Port: 80}}, HealthCheckNodePort: 31000,
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, Type: corev1.ServiceTypeLoadBalancer}}
	slices := []*discoveryv1.EndpointSlice{slice("10.244.0.5")}
	for label, want := range map[string]bool{"app": true, "service.kubernetes.io/service-proxy-name": false, "service.kubernetes.io/headless": false} {
		svc.Labels = map[string]string{label: ""}
		part := Plan(svc, slices, Node{Name: "node-1"}, nft.IPv4)
		if got := len(part.Elements) > 0; got != want || got != (part.Health != nil) {
			t.Errorf("labelled %s: %v, health %v; want rules: %v", label, part.Elements, part.Health, want)
		}
	}
}

func TestPlanSkipsSlicesLabelledHeadless(t *testing.T) {
	svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []corev1.ServicePort{{Port: 80}}}}
	s := slice("10.244.1.5@node-2")
	s.Labels = map[string]string{"service.kubernetes.io/headless": ""}
	compare(t, Plan(svc, []*discoveryv1.EndpointSlice{s}, Node{Name: "node-1"}, nft.IPv4).Elements, `rejects 10.96.0.9 tcp 80`)
}

func compare(t *testing.T, elements []Element, want string) {
	t.Helper()
	var got []string
	for _, e := range elements {
		got = append(got, e.String())
	}
	var lines []string
	for line := range strings.Lines(want) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	if g, w := strings.Join(got, "\n"), strings.Join(lines, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

func TestPlanLoadBalancer(t *testing.T) {
	svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []corev1.ServicePort{{Port: 80}}, HealthCheckNodePort: 31000,
		ExternalTrafficPolicy: corev1.ServiceExternalTrafficPolicyLocal, Type: corev1.ServiceTypeLoadBalancer}}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "198.51.100.1"}, {Hostname: "lb.example.com"},
		{IP: "198.51.100.2", IPMode: ptr(corev1.LoadBalancerIPModeProxy)}}
	part := Plan(svc, []*discoveryv1.EndpointSlice{slice("10.244.0.5", "10.244.0.6", "10.244.1.5@node-2")}, Node{Name: "node-1"}, nft.IPv4)
	if part.Health == nil || *part.Health != (Health{Port: 31000, LocalEndpoints: 2}) {
		t.Errorf("health check %+v", part.Health)
	}
	if last := Plan(svc, []*discoveryv1.EndpointSlice{slice("10.244.0.5~")}, Node{Name: "node-1"}, nft.IPv4); last.Health == nil || last.Health.LocalEndpoints != 0 || len(last.Elements) == 0 {
		t.Errorf("with a terminating endpoint alone: health %+v, %d elements; it serves, but is not to get more", last.Health, len(last.Elements))
	}
	found := map[string]bool{}
	for _, e := range part.Elements {
		found[e.String()] = true
	}
	if !found["outside-frontends 198.51.100.1 tcp 80 -> pick-outside-2"] || !found["frontends 198.51.100.1 tcp 80 -> pick-3"] {
		t.Errorf("load balancer address is missing: %v", part.Elements)
	}
	if found["frontends 198.51.100.2 tcp 80 -> pick-3"] {
		t.Error("an address with ipMode Proxy must be left to the load balancer (KEP-1860)")
	}
}

// apply follows Changes as the kernel does, and refuses what the kernel would refuse.
func apply(t *testing.T, kernel map[Key]Value, pickers map[Picker]bool, c Changes) {
	t.Helper()
	for _, p := range c.AddPickers {
		if pickers[p] {
			t.Fatalf("picker %s added twice", p.Name())
		}
		pickers[p] = true
	}
	for _, e := range c.Delete {
		if v, ok := kernel[e.Key]; !ok || v != e.Value {
			t.Fatalf("deleting %v, which is not there", e)
		}
		delete(kernel, e.Key)
	}
	for _, e := range c.Add {
		if _, ok := kernel[e.Key]; ok {
			t.Fatalf("adding %v, whose key is taken", e)
		}
		if p := e.Picker; !p.IsZero() && !p.Drop && !pickers[p] {
			t.Fatalf("adding %v, whose picker is missing", e)
		}
		kernel[e.Key] = e.Value
	}
	for _, p := range c.DeletePickers {
		for k, v := range kernel {
			if v.Picker == p {
				t.Fatalf("deleting picker %s, which %v uses", p.Name(), Element{k, v})
			}
		}
		delete(pickers, p)
	}
}

// Whatever the order in which Services come, change and go, the kernel ends up with what writing all at once gives.
func TestTableChangesAddUp(t *testing.T) {
	table := NewTable()
	kernel, pickers := map[Key]Value{}, map[Picker]bool{}
	step := func(owner string, elements []Element) {
		table.Set(owner, elements)
		c := table.Changes()
		apply(t, kernel, pickers, c)
		table.Written(c)
		if c := table.Changes(); !c.Empty() {
			t.Fatalf("changes left after writing: %+v", c)
		}
		all := table.All()
		if len(all.Add) != len(kernel) || len(all.AddPickers) > len(pickers) {
			t.Fatalf("%s: kernel has %d elements and %d pickers, want %d and %d", owner, len(kernel), len(pickers), len(all.Add), len(all.AddPickers))
		}
		if rand.IntN(3) == 0 {
			idle := table.Idle()
			apply(t, kernel, pickers, idle)
			table.Written(idle)
			if len(all.AddPickers) != len(pickers) {
				t.Fatalf("%s: %d pickers left, want %d", owner, len(pickers), len(all.AddPickers))
			}
		}
		for _, e := range all.Add {
			if kernel[e.Key] != e.Value {
				t.Fatalf("kernel has %v for %v", kernel[e.Key], e)
			}
		}
	}
	for _, n := range []int{1, 3, 50, 2, 1} {
		for i := range 5 {
			step(fmt.Sprint("default/svc-", i), manyServices(5, n)[fmt.Sprintf("default/svc-%05d", i)])
		}
	}
	for i := range 5 {
		step(fmt.Sprint("default/svc-", i), nil)
	}
	apply(t, kernel, pickers, table.Idle())
	if len(kernel)+len(pickers) != 0 {
		t.Errorf("left at the end: %v %v", kernel, pickers)
	}
}

func TestTwoOwnersOfOneKey(t *testing.T) {
	table := NewTable()
	key := Key{Set: HostPorts, Addr: netip.MustParseAddr("192.0.2.1"), Proto: TCP, Port: 80}
	first, second := Value{Addr: netip.MustParseAddr("10.244.0.1"), Port: 1}, Value{Addr: netip.MustParseAddr("10.244.0.2"), Port: 2}
	write := func() { table.Written(table.Changes()) }
	table.Set("b", []Element{{key, second}})
	write()
	table.Set("a", []Element{{key, first}})
	write()
	if table.kernel[key] != first {
		t.Errorf("got %v, want the first owner's %v", table.kernel[key], first)
	}
	table.Set("a", nil)
	write()
	if table.kernel[key] != second {
		t.Errorf("got %v, want the other owner's %v", table.kernel[key], second)
	}
	table.Set("b", nil)
	write()
	if len(table.kernel)+len(table.claims) != 0 {
		t.Errorf("left: %v %v", table.kernel, table.claims)
	}
}

func TestStale(t *testing.T) {
	table := NewTable()
	for owner, es := range manyServices(2, 2) {
		table.Set(owner, es)
	}
	table.Written(table.Changes())
	client, front := netip.MustParseAddr("10.244.9.9"), netip.MustParseAddr("10.96.1.1")
	keep := Remembered{client, front, TCP, 80, netip.MustParseAddrPort("10.244.0.1:8080")}
	gone := Remembered{client, front, TCP, 80, netip.MustParseAddrPort("10.244.0.7:8080")}
	elsewhere := Remembered{client, netip.MustParseAddr("10.96.9.9"), TCP, 80, netip.MustParseAddrPort("10.244.0.1:8080")}
	if got := table.Stale([]Remembered{keep, gone, elsewhere}); len(got) != 2 || got[0] != gone || got[1] != elsewhere {
		t.Errorf("stale: %v", got)
	}
}

func TestStaleFlows(t *testing.T) {
	udp := func(front string, endpoints ...string) []Element {
		addr := netip.MustParseAddr(front)
		if len(endpoints) == 0 {
			return []Element{{Key{Set: Rejects, Addr: addr, Proto: UDP, Port: 53}, Value{}}}
		}
		es := []Element{{Key{Set: Frontends, Addr: addr, Proto: UDP, Port: 53}, Value{Picker: Picker{N: uint32(len(endpoints))}}}}
		for i, e := range endpoints {
			es = append(es, Element{Key{Set: Endpoints, Addr: addr, Proto: UDP, Port: 53, Slot: uint32(i)}, Value{Addr: netip.MustParseAddr(e), Port: 53}})
		}
		return es
	}
	table := NewTable()
	change := func(es []Element) []FlowFilter {
		table.Set("x", es)
		c := table.Changes()
		table.Written(c)
		return table.StaleFlows(c)
	}
	front := netip.MustParseAddr("10.96.0.1")
	if got := change(udp("10.96.0.1")); len(got) != 0 {
		t.Errorf("no endpoints yet: %v", got)
	}
	if got := change(udp("10.96.0.1", "10.244.0.1", "10.244.0.2")); len(got) != 1 || got[0] != (Flow{Addr: front, Port: 53}) {
		t.Errorf("first endpoints: %v, want the flows that were led nowhere", got)
	}
	if got := change(udp("10.96.0.1", "10.244.0.2", "10.244.0.3")); len(got) != 1 || got[0] != (Flow{front, 53, netip.MustParseAddrPort("10.244.0.1:53")}) {
		t.Errorf("one endpoint replaced, one moved to another slot: %v", got)
	}
}
