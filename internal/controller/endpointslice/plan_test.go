package endpointslice

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

func service(change func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web", UID: "svc"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.9", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
	if change != nil {
		change(svc)
	}
	return svc
}

func pod(i int, change func(*corev1.Pod)) *corev1.Pod {
	name := fmt.Sprintf("web-%04d", i)
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name), Labels: map[string]string{"app": "web"}},
		Spec:       corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c"}}},
	}
	ct.MakeReady(p, fmt.Sprintf("10.1.%d.%d", i/200, i%200), time.Unix(1, 0))
	if change != nil {
		change(p)
	}
	return p
}

func pods(from, to int) []*corev1.Pod {
	var out []*corev1.Pod
	for i := from; i < to; i++ {
		out = append(out, pod(i, nil))
	}
	return out
}

// zones are those of the nodes that exist.
func zones() map[string]string { return map[string]string{"n1": "zone-of-n1"} }

// settle applies act to slices, as the API would.
func settle(slices []*discoveryv1.EndpointSlice, act actions) []*discoveryv1.EndpointSlice {
	gone := map[string]bool{}
	for _, s := range act.remove {
		gone[s.Name] = true
	}
	changed := map[string]*discoveryv1.EndpointSlice{}
	for _, o := range act.update {
		changed[o.GetName()] = o.(*discoveryv1.EndpointSlice)
	}
	var out []*discoveryv1.EndpointSlice
	for _, s := range slices {
		switch {
		case gone[s.Name]:
		case changed[s.Name] != nil:
			out = append(out, changed[s.Name])
		default:
			out = append(out, s)
		}
	}
	for _, o := range act.create {
		s := o.(*discoveryv1.EndpointSlice)
		s.Name = fmt.Sprintf("slice-%d", len(out))
		out = append(out, s)
	}
	return out
}

func writes(act actions) string {
	return fmt.Sprintf("+%d ~%d -%d", len(act.create), len(act.update), len(act.remove))
}

func counts(slices []*discoveryv1.EndpointSlice) string {
	var out []string
	for _, s := range slices {
		out = append(out, fmt.Sprint(len(s.Endpoints)))
	}
	return strings.Join(out, " ")
}

func TestSlicesChangeLittle(t *testing.T) {
	svc := service(nil)
	var slices []*discoveryv1.EndpointSlice
	for _, step := range []struct {
		name          string
		pods          []*corev1.Pod
		writes, state string
	}{
		{"no pods: one empty slice", nil, "+1 ~0 -0", "0"},
		{"again", nil, "+0 ~0 -0", "0"},
		{"250 pods", pods(0, 250), "+3 ~0 -1", "100 100 50"},
		{"nothing new", pods(0, 250), "+0 ~0 -0", "100 100 50"},
		{"one more fills the open slice", pods(0, 251), "+0 ~1 -0", "100 100 51"},
		{"one gone touches its slice only", pods(1, 251), "+0 ~1 -0", "99 100 51"},
		{"one gone and one new: one write", pods(2, 252), "+0 ~1 -0", "99 100 51"},
		{"half gone: the one that came last stays where it is", pods(130, 252), "+0 ~2 -0", "1 70 51"},
		{"70 more go together to where there is room", pods(130, 322), "+0 ~1 -0", "71 70 51"},
		{"a slice that runs empty goes", pods(200, 322), "+0 ~0 -1", "71 51"},
		{"120 more open a slice for what fills one", pods(200, 442), "+1 ~1 -0", "91 51 100"},
		{"none left", nil, "+1 ~0 -3", "0"},
	} {
		act := planSlices(svc, step.pods, slices, zones())
		if got := writes(act); got != step.writes {
			t.Errorf("%s: writes %s, want %s", step.name, got, step.writes)
		}
		slices = settle(slices, act)
		if got := counts(slices); got != step.state {
			t.Errorf("%s: slices of %s, want %s", step.name, got, step.state)
		}
		if again := planSlices(svc, step.pods, slices, zones()); !again.empty() {
			t.Errorf("%s: a second look writes %s", step.name, writes(again))
		}
	}
}

func TestEndpoint(t *testing.T) {
	deleted := metav1.Now()
	for _, tc := range []struct {
		name                        string
		svc                         func(*corev1.Service)
		pod                         func(*corev1.Pod)
		ready, serving, terminating bool
		absent                      bool
		check                       func(ep discoveryv1.Endpoint) bool
	}{
		{name: "ready", ready: true, serving: true},
		{name: "not ready", pod: func(p *corev1.Pod) { p.Status.Conditions = nil }},
		{name: "not ready but published", svc: func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true },
			pod: func(p *corev1.Pod) { p.Status.Conditions = nil }, ready: true},
		{name: "terminating and serving", pod: func(p *corev1.Pod) { p.DeletionTimestamp = &deleted }, serving: true, terminating: true},
		{name: "terminating and published", svc: func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = true },
			pod: func(p *corev1.Pod) { p.DeletionTimestamp = &deleted }, ready: true, serving: true, terminating: true},
		{name: "failed", pod: func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, absent: true},
		{name: "without an address", pod: func(p *corev1.Pod) { p.Status.PodIPs = nil }, absent: true},
		{name: "only IPv6", pod: func(p *corev1.Pod) { p.Status.PodIPs = []corev1.PodIP{{IP: "fd00::1"}} }, absent: true},
		{name: "node gone", pod: func(p *corev1.Pod) { p.Spec.NodeName = "gone" }, absent: true},
		{name: "with a hostname below the Service", pod: func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "h", "web" },
			ready: true, serving: true, check: func(ep discoveryv1.Endpoint) bool { return ep.Hostname != nil && *ep.Hostname == "h" }},
		{name: "with a hostname below another", pod: func(p *corev1.Pod) { p.Spec.Hostname, p.Spec.Subdomain = "h", "db" },
			ready: true, serving: true, check: func(ep discoveryv1.Endpoint) bool { return ep.Hostname == nil }},
		{name: "names node, zone and pod", ready: true, serving: true, check: func(ep discoveryv1.Endpoint) bool {
			return *ep.NodeName == "n1" && *ep.Zone == "zone-of-n1" && ep.TargetRef.Kind == "Pod" && ep.TargetRef.UID == "web-0001" && ep.Hints == nil
		}},
		{name: "hints for the zone", svc: func(s *corev1.Service) { v := "PreferClose"; s.Spec.TrafficDistribution = &v }, ready: true, serving: true,
			check: func(ep discoveryv1.Endpoint) bool {
				return ep.Hints.ForZones[0].Name == "zone-of-n1" && ep.Hints.ForNodes == nil
			}},
		{name: "hints for the node", svc: func(s *corev1.Service) { v := "PreferSameNode"; s.Spec.TrafficDistribution = &v }, ready: true, serving: true,
			check: func(ep discoveryv1.Endpoint) bool {
				return ep.Hints.ForZones[0].Name == "zone-of-n1" && ep.Hints.ForNodes[0].Name == "n1"
			}},
	} {
		g := groups(service(tc.svc), []*corev1.Pod{pod(1, tc.pod)}, discoveryv1.AddressTypeIPv4, zones())
		if tc.absent {
			if len(g) != 0 {
				t.Errorf("%s: has an endpoint", tc.name)
			}
			continue
		}
		if len(g) != 1 {
			t.Errorf("%s: %d groups", tc.name, len(g))
			continue
		}
		for _, one := range g {
			ep := one.endpoints[0]
			if *ep.Conditions.Ready != tc.ready || *ep.Conditions.Serving != tc.serving || *ep.Conditions.Terminating != tc.terminating {
				t.Errorf("%s: ready %v serving %v terminating %v", tc.name, *ep.Conditions.Ready, *ep.Conditions.Serving, *ep.Conditions.Terminating)
			}
			if tc.check != nil && !tc.check(ep) {
				t.Errorf("%s: %+v", tc.name, ep)
			}
		}
	}
}

func TestNamedPortsMakeSlicesOfTheirOwn(t *testing.T) {
	svc := service(func(s *corev1.Service) { s.Spec.Ports[0].TargetPort = intstr.FromString("http") })
	port := func(n int32) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{Name: "http", Protocol: corev1.ProtocolTCP, ContainerPort: n}}
		}
	}
	always := corev1.ContainerRestartPolicyAlways
	sidecar := func(p *corev1.Pod) {
		p.Spec.InitContainers = []corev1.Container{{Name: "s", RestartPolicy: &always, Ports: []corev1.ContainerPort{{Name: "http", Protocol: corev1.ProtocolTCP, ContainerPort: 82}}}}
	}
	ps := []*corev1.Pod{pod(1, port(80)), pod(2, port(81)), pod(3, port(80)), pod(4, sidecar), pod(5, nil)}
	slices := settle(nil, planSlices(svc, ps, nil, zones()))
	got := map[string]int{}
	for _, s := range slices {
		got[portsKey(s.Ports)] = len(s.Endpoints)
	}
	if got["http/TCP/80/"] != 2 || got["http/TCP/81/"] != 1 || got["http/TCP/82/"] != 1 || got[""] != 1 || len(got) != 4 {
		t.Errorf("endpoints by ports: %v", got)
	}
}

func TestFamiliesAndForeignSlices(t *testing.T) {
	svc := service(func(s *corev1.Service) {
		s.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol, corev1.IPv4Protocol}
		s.Labels = map[string]string{"team": "a"}
	})
	p := pod(1, func(p *corev1.Pod) { p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: "fd00::1"}) })
	slices := settle(nil, planSlices(svc, []*corev1.Pod{p}, nil, zones()))
	if len(slices) != 2 || slices[0].AddressType != discoveryv1.AddressTypeIPv6 || slices[0].Endpoints[0].Addresses[0] != "fd00::1" || slices[1].Endpoints[0].Addresses[0] != "10.1.0.1" {
		t.Fatalf("slices %+v", slices)
	}
	want := map[string]string{"team": "a", discoveryv1.LabelServiceName: "web", discoveryv1.LabelManagedBy: managedBy}
	if fmt.Sprint(slices[0].Labels) != fmt.Sprint(want) || slices[0].GenerateName != "web-" || !metav1.IsControlledBy(slices[0], svc) {
		t.Errorf("metadata %+v", slices[0].ObjectMeta)
	}
	single := service(nil)
	if act := planSlices(single, []*corev1.Pod{p}, slices, zones()); writes(act) != "+0 ~1 -1" {
		t.Errorf("to one family and other labels: %s", writes(act))
	}
	reborn := service(func(s *corev1.Service) { s.UID = "other" })
	if act := planSlices(reborn, []*corev1.Pod{p}, slices[1:], zones()); writes(act) != "+1 ~0 -1" {
		t.Errorf("the slice of an earlier Service of the same name: %s", writes(act))
	}
	headless := service(func(s *corev1.Service) { s.Spec.ClusterIP = corev1.ClusterIPNone })
	if _, ok := labelsOf(headless)[corev1.IsHeadlessService]; !ok {
		t.Error("no label of a headless Service")
	}
}

func TestEndpointsObject(t *testing.T) {
	svc := service(func(s *corev1.Service) { s.Labels = map[string]string{"team": "a"} })
	notReady := func(p *corev1.Pod) { p.Status.Conditions = nil }
	ep := planEndpoints(svc, []*corev1.Pod{pod(2, nil), pod(1, nil), pod(3, notReady)}, nil)
	if len(ep.Subsets) != 1 || len(ep.Subsets[0].Addresses) != 2 || ep.Subsets[0].Addresses[0].IP != "10.1.0.1" ||
		len(ep.Subsets[0].NotReadyAddresses) != 1 || ep.Subsets[0].Ports[0].Port != 8080 || ep.Labels[endpointsManagedBy] != endpointsController || ep.Labels["team"] != "a" {
		t.Errorf("Endpoints %+v", ep)
	}
	if again := planEndpoints(svc, []*corev1.Pod{pod(1, nil), pod(2, nil), pod(3, notReady)}, ep); again != nil {
		t.Errorf("a second look changes it to %+v", again)
	}
	many := append(pods(0, 999), pod(5000, notReady), pod(5001, notReady), pod(5002, nil))
	ep = planEndpoints(svc, many, nil)
	if n := len(ep.Subsets[0].Addresses); n != 1000 || len(ep.Subsets[0].NotReadyAddresses) != 0 || ep.Annotations[corev1.EndpointsOverCapacity] != "truncated" {
		t.Errorf("of 1002 pods %d ready and %d others, annotations %v", n, len(ep.Subsets[0].NotReadyAddresses), ep.Annotations)
	}
}
