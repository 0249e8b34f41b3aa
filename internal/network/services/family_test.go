package services

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// slice6 is slice for IPv6 endpoints.
func slice6(eps ...string) *discoveryv1.EndpointSlice {
	s := slice(eps...)
	s.AddressType = discoveryv1.AddressTypeIPv6
	return s
}

func TestPlanOfEachFamily(t *testing.T) {
	both := []*discoveryv1.EndpointSlice{slice("10.244.1.5@node-2"), slice6("fd00:244::5"),
		{AddressType: discoveryv1.AddressTypeFQDN, Ports: slice().Ports, Endpoints: []discoveryv1.Endpoint{ep("example.com")}}}
	for _, tc := range []struct {
		name     string
		clusters []string
		v4, v6   string
	}{
		{"dual stack", []string{"10.96.0.9", "fd00:96::9"}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			frontends 198.51.100.1 tcp 80 -> pick-1
			node-ports tcp 30080 -> pick-node-port-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080
			endpoints 198.51.100.1 tcp 80 slot 0 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 slot 0 -> 10.244.1.5:8080`, `
			frontends 2001:db8::1 tcp 80 -> pick-1
			frontends fd00:96::9 tcp 80 -> pick-1
			node-ports tcp 30080 -> pick-node-port-1
			endpoints 2001:db8::1 tcp 80 slot 0 -> [fd00:244::5]:8080
			endpoints fd00:96::9 tcp 80 slot 0 -> [fd00:244::5]:8080
			node-port-endpoints tcp 30080 slot 0 -> [fd00:244::5]:8080
			hairpins fd00:244::5`},
		{"IPv6 alone", []string{"fd00:96::9"}, ``, `
			frontends 2001:db8::1 tcp 80 -> pick-1
			frontends fd00:96::9 tcp 80 -> pick-1
			node-ports tcp 30080 -> pick-node-port-1
			endpoints 2001:db8::1 tcp 80 slot 0 -> [fd00:244::5]:8080
			endpoints fd00:96::9 tcp 80 slot 0 -> [fd00:244::5]:8080
			node-port-endpoints tcp 30080 slot 0 -> [fd00:244::5]:8080
			hairpins fd00:244::5`},
		{"IPv4 alone", []string{"10.96.0.9"}, `
			frontends 10.96.0.9 tcp 80 -> pick-1
			frontends 198.51.100.1 tcp 80 -> pick-1
			node-ports tcp 30080 -> pick-node-port-1
			endpoints 10.96.0.9 tcp 80 slot 0 -> 10.244.1.5:8080
			endpoints 198.51.100.1 tcp 80 slot 0 -> 10.244.1.5:8080
			node-port-endpoints tcp 30080 slot 0 -> 10.244.1.5:8080`, ``},
	} {
		t.Run(tc.name, func(t *testing.T) {
			svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: tc.clusters[0], ClusterIPs: tc.clusters, Type: corev1.ServiceTypeLoadBalancer,
				Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}, ExternalIPs: []string{"198.51.100.1", "2001:db8::1"}}}
			for family, want := range map[nft.Family]string{nft.IPv4: tc.v4, nft.IPv6: tc.v6} {
				part := Plan(svc, both, Node{Name: "node-1"}, family)
				compare(t, part.Elements, want)
				for _, e := range part.Elements {
					if f, ok := e.Family(); ok && f != family {
						t.Errorf("%v is not for the table of %v", e, family)
					}
				}
			}
		})
	}
}
