package services

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// hintedEP reads an endpoint as ep does, followed by hints: "10.244.0.5@node-2 node:node-1 zone:a,b".
func hintedEP(s string) discoveryv1.Endpoint {
	fields := strings.Fields(s)
	e := ep(fields[0])
	for _, f := range fields[1:] {
		kind, names, _ := strings.Cut(f, ":")
		if e.Hints == nil {
			e.Hints = &discoveryv1.EndpointHints{}
		}
		for name := range strings.SplitSeq(names, ",") {
			if kind == "node" {
				e.Hints.ForNodes = append(e.Hints.ForNodes, discoveryv1.ForNode{Name: name})
			} else {
				e.Hints.ForZones = append(e.Hints.ForZones, discoveryv1.ForZone{Name: name})
			}
		}
	}
	return e
}

// destinations returns where a key of the plan leads, "10.244.0.5 10.244.0.6".
func destinations(elements []Element, match func(Element) bool) string {
	var out []string
	for _, e := range elements {
		if (e.Set == Endpoints || e.Set == NodePortEndpoints) && match(e) {
			out = append(out, e.Value.Addr.String())
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// The cases are those of kube-proxy's CategorizeEndpoints (Kubernetes 1.37, PreferSameTrafficDistribution on).
func TestHints(t *testing.T) {
	type change = func(*corev1.ServiceSpec)
	localOut := func(s *corev1.ServiceSpec) { s.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	localIn := func(s *corev1.ServiceSpec) { s.InternalTrafficPolicy = ptr(corev1.ServiceInternalTrafficPolicyLocal) }
	for _, tc := range []struct {
		name                     string
		zone                     string
		endpoints                []string
		change                   []change
		inside, outside, hairpin string // cluster IP; node port for clients outside; pods that may reach themselves
	}{
		{name: "no hints", zone: "a", endpoints: []string{"10.244.1.1@node-2", "10.244.1.2@node-3"}, inside: "10.244.1.1 10.244.1.2"},
		{name: "hints for a zone", zone: "a", endpoints: []string{"10.244.1.1@node-2 zone:a", "10.244.1.2@node-3 zone:b", "10.244.1.3@node-3 zone:b,a"},
			inside: "10.244.1.1 10.244.1.3"},
		{name: "one endpoint lacks a hint", zone: "a", endpoints: []string{"10.244.1.1@node-2 zone:a", "10.244.1.2@node-3"}, inside: "10.244.1.1 10.244.1.2"},
		{name: "an endpoint without a hint that is not ready does not count", zone: "a",
			endpoints: []string{"10.244.1.1@node-2 zone:a", "10.244.1.2@node-3 zone:b", "10.244.1.3@node-3!", "10.244.1.4@node-3~"}, inside: "10.244.1.1"},
		{name: "none for this zone", zone: "c", endpoints: []string{"10.244.1.1@node-2 zone:a", "10.244.1.2@node-3 zone:b"}, inside: "10.244.1.1 10.244.1.2"},
		{name: "the node has no zone", endpoints: []string{"10.244.1.1@node-2 zone:a", "10.244.1.2@node-3 zone:b"}, inside: "10.244.1.1 10.244.1.2"},
		{name: "the one for this zone is not ready", zone: "a", endpoints: []string{"10.244.1.1@node-2! zone:a", "10.244.1.2@node-3 zone:b"}, inside: "10.244.1.2"},
		{name: "hints for nodes", zone: "a", endpoints: []string{"10.244.0.1 node:node-1 zone:a", "10.244.1.2@node-3 node:node-3 zone:a"},
			inside: "10.244.0.1", hairpin: "10.244.0.1"},
		{name: "none for this node, some for its zone", zone: "a", endpoints: []string{"10.244.1.1@node-2 node:node-2 zone:a", "10.244.1.2@node-3 node:node-3 zone:b"},
			inside: "10.244.1.1"},
		{name: "one lacks a node hint: the zone counts", zone: "a", endpoints: []string{"10.244.0.1 node:node-1 zone:b", "10.244.1.2@node-3 zone:a"},
			inside: "10.244.1.2", hairpin: "10.244.0.1"},
		{name: "hints are for nodes of other addresses too", endpoints: []string{"10.244.1.1@node-2 node:node-2,node-1", "10.244.1.2@node-3 node:node-3"}, inside: "10.244.1.1"},
		{name: "nothing is ready: terminating ones serve whatever their hints", zone: "a", endpoints: []string{"10.244.1.1@node-2~ zone:b", "10.244.1.2@node-3~ zone:a"},
			inside: "10.244.1.1 10.244.1.2"},
		{name: "internalTrafficPolicy Local goes before hints", zone: "a", endpoints: []string{"10.244.0.1 zone:b", "10.244.1.2@node-3 zone:a"},
			change: []change{localIn}, inside: "10.244.0.1", hairpin: "10.244.0.1"},
		{name: "externalTrafficPolicy Local goes before hints for clients outside alone", zone: "a", endpoints: []string{"10.244.0.1 zone:b", "10.244.1.2@node-3 zone:a"},
			change: []change{localOut}, inside: "10.244.1.2", outside: "10.244.0.1", hairpin: "10.244.0.1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Type: corev1.ServiceTypeNodePort,
				Ports: []corev1.ServicePort{{Port: 80, NodePort: 30080}}}}
			for _, f := range tc.change {
				f(&svc.Spec)
			}
			s := slice()
			for _, e := range tc.endpoints {
				s.Endpoints = append(s.Endpoints, hintedEP(e))
			}
			part := Plan(svc, []*discoveryv1.EndpointSlice{s}, Node{Name: "node-1", Zone: tc.zone}, nft.IPv4)
			inside := destinations(part.Elements, func(e Element) bool { return e.Set == Endpoints })
			outside := destinations(part.Elements, func(e Element) bool { return e.Slot >= outsideSlots })
			var hairpins []string
			for _, e := range part.Elements {
				if e.Set == Hairpins {
					hairpins = append(hairpins, e.Key.Addr.String())
				}
			}
			if inside != tc.inside || outside != tc.outside || strings.Join(hairpins, " ") != tc.hairpin {
				t.Errorf("inside %q, outside %q, hairpins %q; want %q, %q, %q", inside, outside, hairpins, tc.inside, tc.outside, tc.hairpin)
			}
		})
	}
}

// expected follows the words of the EndpointSlice API and KEP-3015, endpoint by endpoint.
func expected(eps []discoveryv1.Endpoint, node Node) string {
	ready := slices.DeleteFunc(slices.Clone(eps), func(e discoveryv1.Endpoint) bool { return !*e.Conditions.Ready })
	serving := slices.DeleteFunc(slices.Clone(eps), func(e discoveryv1.Endpoint) bool {
		return !isTrue(e.Conditions.Serving) || !isTrue(e.Conditions.Terminating)
	})
	forNode := func(e discoveryv1.Endpoint) bool {
		return e.Hints != nil && slices.Contains(e.Hints.ForNodes, discoveryv1.ForNode{Name: node.Name})
	}
	forZone := func(e discoveryv1.Endpoint) bool {
		return e.Hints != nil && slices.Contains(e.Hints.ForZones, discoveryv1.ForZone{Name: node.Zone})
	}
	allNode, allZone := true, true
	for _, e := range ready {
		allNode = allNode && e.Hints != nil && len(e.Hints.ForNodes) > 0
		allZone = allZone && e.Hints != nil && len(e.Hints.ForZones) > 0
	}
	chosen := ready
	switch {
	case len(ready) == 0:
		chosen = serving
	case allNode && slices.ContainsFunc(ready, forNode):
		chosen = slices.DeleteFunc(ready, func(e discoveryv1.Endpoint) bool { return !forNode(e) })
	case allZone && slices.ContainsFunc(ready, forZone):
		chosen = slices.DeleteFunc(ready, func(e discoveryv1.Endpoint) bool { return !forZone(e) })
	}
	var out []string
	for _, e := range chosen {
		out = append(out, e.Addresses[0])
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestHintsOfRandomEndpoints(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		pick := func(of ...string) string { return of[r.IntN(len(of))] }
		node := Node{Name: "node-1", Zone: pick("a", "b", "c", "")}
		s, lines := slice(), []string{}
		sparse := r.IntN(2) == 0
		for i := range r.IntN(5) {
			line := fmt.Sprintf("10.244.1.%d@%s%s", i, pick("node-1", "node-2", "node-3"), pick("", "", "", "!", "~", "x"))
			if !sparse || r.IntN(4) > 0 {
				line += " node:" + pick("node-1", "node-2", "node-2,node-1")
			}
			if !sparse || r.IntN(4) > 0 {
				line += " zone:" + pick("a", "b", "a,b")
			}
			lines = append(lines, line)
			s.Endpoints = append(s.Endpoints, hintedEP(line))
		}
		svc := &corev1.Service{Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", Ports: []corev1.ServicePort{{Port: 80}}}}
		part := Plan(svc, []*discoveryv1.EndpointSlice{s}, node, nft.IPv4)
		got, want := destinations(part.Elements, func(e Element) bool { return e.Set == Endpoints }), expected(s.Endpoints, node)
		if got != want {
			t.Fatalf("seed %d, node %+v: got %q, want %q of\n%s", seed, node, got, want, strings.Join(lines, "\n"))
		}
	}
}
