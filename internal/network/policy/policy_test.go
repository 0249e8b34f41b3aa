package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/nft"
)

// trial is a cluster that changes at random, told to an oracle and to a model.
type trial struct {
	*rand.Rand
	oracle
	model  *Model
	kernel *kernel
	uid    int
}

func newTrial(t testing.TB, seed uint64) *trial {
	return &trial{Rand: rand.New(rand.NewPCG(seed, 1)), model: New(nft.IPv4), kernel: newKernel(t),
		oracle: oracle{map[string]*corev1.Namespace{}, map[string]*corev1.Pod{}, map[string]*networkingv1.NetworkPolicy{}}}
}

func pick[T any](t *trial, from ...T) T { return from[t.IntN(len(from))] }

func (t *trial) labels() map[string]string {
	out := map[string]string{}
	for _, k := range []string{"app", "tier"} {
		if t.IntN(3) > 0 {
			out[k] = pick(t, "a", "b")
		}
	}
	return out
}

func (t *trial) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch t.IntN(5) {
	case 0:
	case 1, 2:
		s.MatchLabels = map[string]string{pick(t, "app", "tier"): pick(t, "a", "b")}
	case 3:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "app", Operator: pick(t, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn), Values: []string{pick(t, "a", "b")}}}
	case 4:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "tier", Operator: pick(t, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}}
	}
	return s
}

func (t *trial) peers() (out []networkingv1.NetworkPolicyPeer) {
	for range t.IntN(3) {
		var p networkingv1.NetworkPolicyPeer
		switch t.IntN(4) {
		case 0:
			p.PodSelector = t.selector()
		case 1:
			p.NamespaceSelector = t.selector()
		case 2:
			p.PodSelector, p.NamespaceSelector = t.selector(), t.selector()
		case 3:
			p.IPBlock = &networkingv1.IPBlock{CIDR: pick(t, "10.0.0.0/29", "10.0.0.4/30", "0.0.0.0/0", "192.0.2.0/24", "fd00::/8")}
			if p.IPBlock.CIDR == "0.0.0.0/0" || p.IPBlock.CIDR == "10.0.0.0/29" {
				p.IPBlock.Except = pick(t, nil, []string{"10.0.0.4/31"}, []string{"10.0.0.1/32", "10.0.0.2/32"})
			}
		}
		out = append(out, p)
	}
	return out
}

func (t *trial) ports() (out []networkingv1.NetworkPolicyPort) {
	for range t.IntN(3) {
		p := networkingv1.NetworkPolicyPort{Protocol: pick(t, nil, &protocols[0], &protocols[1], &protocols[2])}
		switch t.IntN(4) {
		case 0:
		case 1:
			p.Port = &intstr.IntOrString{Type: intstr.String, StrVal: pick(t, "web", "dns")}
		case 2:
			p.Port = &intstr.IntOrString{IntVal: pick(t, int32(80), 81, 53)}
		case 3:
			end := pick(t, int32(80), 90)
			p.Port, p.EndPort = &intstr.IntOrString{IntVal: pick(t, int32(53), 80)}, &end
		}
		out = append(out, p)
	}
	return out
}

func (t *trial) policy(namespace, name string) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: networkingv1.NetworkPolicySpec{PodSelector: *t.selector()}}
	for range t.IntN(3) {
		p.Spec.Ingress = append(p.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: t.peers(), Ports: t.ports()})
	}
	for range t.IntN(3) {
		p.Spec.Egress = append(p.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: t.peers(), Ports: t.ports()})
	}
	p.Spec.PolicyTypes = pick(t, nil, []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}, []networkingv1.PolicyType{networkingv1.PolicyTypeEgress},
		[]networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress})
	return p
}

func (t *trial) pod(namespace, name, ip string) *corev1.Pod {
	t.uid++
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID(fmt.Sprint(t.uid)), Labels: t.labels()},
		Spec: corev1.PodSpec{HostNetwork: t.IntN(10) == 0}}
	p.Status.Phase = pick(t, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodSucceeded, corev1.PodFailed)
	p.Status.PodIP = ip
	p.Status.PodIPs = []corev1.PodIP{{IP: ip}}
	for _, name := range []string{"web", "dns"} {
		if t.IntN(3) > 0 {
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Ports: []corev1.ContainerPort{
				{Name: name, Protocol: pick(t, protocols...), ContainerPort: pick(t, int32(53), 80, 81, 85)}}})
		}
	}
	return p
}

const podsInTrial = 7

func podAddr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}) }

// step changes one thing. Pods with even numbers are on this node.
func (t *trial) step() {
	switch t.IntN(6) {
	case 0:
		name := pick(t, "x", "y", "z")
		if t.namespaces[name] != nil && t.IntN(4) == 0 {
			delete(t.namespaces, name)
			t.model.DeleteNamespace(name)
			return
		}
		t.namespaces[name] = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: t.labels()}}
		t.model.SetNamespace(name, t.namespaces[name].Labels)
	case 1, 2:
		namespace, name := pick(t, "x", "y", "z"), pick(t, "one", "two")
		key := namespace + "/" + name
		if t.policies[key] != nil && t.IntN(3) == 0 {
			delete(t.policies, key)
			t.model.DeletePolicy(api.Key{Namespace: namespace, Name: name})
			return
		}
		t.policies[key] = t.policy(namespace, name)
		t.model.SetPolicy(t.policies[key])
	default:
		t.stepPod(1 + t.IntN(podsInTrial))
	}
}

func (t *trial) stepPod(i int) {
	namespace, name := string("xyz"[i%3]), fmt.Sprint("pod-", i)
	key := namespace + "/" + name
	if t.pods[key] != nil && t.IntN(4) == 0 {
		delete(t.pods, key)
		t.model.DeletePod(api.Key{Namespace: namespace, Name: name})
		t.model.Detach(podAddr(i))
		return
	}
	p := t.pod(namespace, name, podAddr(i).String())
	t.pods[key] = p
	t.model.SetPod(PodOf(p))
	t.model.Detach(podAddr(i))
	if i%2 == 0 && !p.Spec.HostNetwork && p.Status.Phase == corev1.PodRunning {
		t.model.Attach(Attachment{Addr: podAddr(i), Pod: api.KeyOf(p), UID: p.UID})
	}
}

// compare asks about every ordered pair of pods and an address outside and, with explained, also why.
func (t *trial) compare(test *testing.T, explained bool) {
	test.Helper()
	ends := []netip.Addr{netip.MustParseAddr("192.0.2.7")}
	for i := 1; i <= podsInTrial; i++ {
		ends = append(ends, podAddr(i))
	}
	for _, client := range ends {
		for _, server := range ends {
			for _, protocol := range protocols {
				for _, port := range []int32{53, 80, 81, 85} {
					c := connection{client, server, protocol, port}
					for d := range NumDirections {
						self := server
						if d == Egress {
							self = client
						}
						if _, here := t.model.attached[self]; !here {
							continue
						}
						if got, want := t.kernel.passes(c, d), t.passes(c, d); got != want {
							test.Fatalf("%v by %v: passes %v, want %v", c, d, got, want)
						}
						if explained {
							t.compareExplained(test, c, d)
						}
					}
				}
			}
		}
	}
}

// compareExplained asks which rule of which policy it is, and whether the oracle agrees that this policy lets the connection pass, and that
// the others do not.
func (t *trial) compareExplained(test *testing.T, c connection, d Direction) {
	test.Helper()
	protocol, _ := ProtocolOf(c.protocol)
	for _, v := range t.model.Explain(Connection{c.client, c.server, protocol, uint16(c.port)}) {
		if v.Direction != d {
			continue
		}
		if got, want := v.Passes(), t.passes(c, d); got != want {
			test.Fatalf("%v by %v: explained as %+v, want %v", c, d, v, want)
		}
		for _, j := range v.Policies {
			p := t.policies[j.Policy.String()]
			alone := oracle{t.namespaces, t.pods, map[string]*networkingv1.NetworkPolicy{"": p}}
			if got := alone.passes(c, d); got != (j.Rule > 0) {
				test.Fatalf("%v by %v: policy %s by itself lets it pass: %v, explained as %+v", c, d, j.Policy, got, j)
			}
			if j.Rule > 0 {
				only := p.DeepCopy()
				if d == Ingress {
					only.Spec.Ingress = p.Spec.Ingress[j.Rule-1 : j.Rule]
				} else {
					only.Spec.Egress = p.Spec.Egress[j.Rule-1 : j.Rule]
				}
				alone.policies[""] = only
				if !alone.passes(c, d) {
					test.Fatalf("%v by %v: rule %d of %s does not let it pass by itself", c, d, j.Rule, j.Policy)
				}
			}
		}
	}
}

// write hands the changes to the kernel.
func (t *trial) write() Changes {
	c := t.model.Changes()
	t.kernel.apply(c)
	t.model.Written()
	return c
}

func TestPlanAgreesWithTheOracle(t *testing.T) {
	for seed := range uint64(15) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			tr := newTrial(t, seed)
			for range 25 {
				for range 1 + tr.IntN(4) {
					tr.step()
				}
				tr.write()
				tr.compare(t, seed < 2)
			}
		})
	}
}

// TestChangesAddUp: what is left after many changes is what a model that sees only the outcome would write, and nothing stays behind.
func TestChangesAddUp(t *testing.T) {
	for seed := range uint64(40) {
		tr := newTrial(t, seed)
		for range 60 {
			tr.step()
			if tr.IntN(3) == 0 {
				tr.write()
			}
		}
		tr.write()
		fresh, whole := New(nft.IPv4), newKernel(t)
		for addr, a := range tr.model.attached {
			a.Addr = addr
			fresh.Attach(a)
		}
		for _, p := range tr.policies {
			fresh.SetPolicy(p)
		}
		for _, p := range tr.pods {
			fresh.SetPod(PodOf(p))
		}
		for _, n := range tr.namespaces {
			fresh.SetNamespace(n.Name, n.Labels)
		}
		whole.apply(fresh.All())
		tr.kernel.t, whole.t = nil, nil
		if !reflect.DeepEqual(tr.kernel, whole) {
			t.Fatalf("seed %d: after all changes\n%+v\nat once\n%+v", seed, tr.kernel, whole)
		}
		if c := tr.model.Changes(); !c.Empty() {
			t.Fatalf("seed %d: nothing happened, but %+v is to be written", seed, c)
		}
		tr.kernel.t = t
		for key, p := range tr.policies {
			delete(tr.policies, key)
			tr.model.DeletePolicy(api.KeyOf(p))
		}
		tr.write()
		if n := len(tr.kernel.sets) + len(tr.kernel.chains) + len(tr.kernel.guards); n > 0 || len(tr.model.selections)+len(tr.model.chosen)+len(tr.model.sets)+len(tr.model.chains) > 0 {
			t.Fatalf("seed %d: without policies there are %d sets, chains and guards in the kernel, and in the model %d selections", seed, n, len(tr.model.selections))
		}
	}
}

func TestUnknownPodsAreClosed(t *testing.T) {
	k := newKernel(t)
	m := New(nft.IPv4)
	a := Attachment{Addr: podAddr(1), Pod: api.Key{Namespace: "x", Name: "new"}, UID: "2"}
	from := connection{podAddr(2), podAddr(1), corev1.ProtocolTCP, 80}
	write := func() { k.apply(m.Changes()); m.Written() }
	m.Attach(a)
	write()
	if !k.passes(from, Ingress) {
		t.Error("closed although there is no policy at all")
	}
	m.SetPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "elsewhere", Name: "p"}})
	write()
	if k.passes(from, Ingress) || k.passes(connection{podAddr(1), podAddr(2), corev1.ProtocolTCP, 80}, Egress) {
		t.Error("a pod that nobody knows yet is open")
	}
	m.SetPod(Pod{Key: a.Pod, UID: "1"})
	write()
	if k.passes(from, Ingress) {
		t.Error("the pod of that name before it opened the new one")
	}
	m.SetPod(Pod{Key: a.Pod, UID: "2"})
	write()
	if !k.passes(from, Ingress) {
		t.Error("no policy selects it, and it is closed")
	}
}

// TestOneChangedPodCostsOneElement: whatever else there is.
func TestOneChangedPodCostsOneElement(t *testing.T) {
	m := many(1000, 10_000)
	m.Changes()
	m.Written()
	p := Pod{Key: api.Key{Namespace: "ns-3", Name: "another"}, Labels: map[string]string{"app": "client-3"}, Addrs: []netip.Addr{netip.MustParseAddr("10.9.9.9")}}
	m.SetPod(p)
	c := m.Changes()
	if len(c.Add) != 1 || len(c.Add[0].Elements) != 1 || len(c.AddSets)+len(c.AddChains)+len(c.AddGuards)+len(c.Delete) != 0 {
		t.Errorf("one more client: %+v", c)
	}
}

// many returns the model of a node with 100 pods that policies guard, in a cluster of so many policies and pods.
func many(policies, pods int) *Model {
	m := New(nft.IPv4)
	for i := range policies {
		namespace := fmt.Sprint("ns-", i%100)
		m.SetNamespace(namespace, map[string]string{"kubernetes.io/metadata.name": namespace})
		port := intstr.FromInt32(80)
		m.SetPolicy(&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprint("policy-", i)}, Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("server-", i%100)}},
			Ingress: []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
				From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("client-", i)}}}}}}}})
	}
	for i := range pods {
		addr := netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)})
		app := fmt.Sprint("client-", i%max(policies, 1))
		if i%100 == 0 {
			app = fmt.Sprint("server-", i/100%100)
		}
		p := Pod{Key: api.Key{Namespace: fmt.Sprint("ns-", i%100), Name: fmt.Sprint("pod-", i)}, Labels: map[string]string{"app": app}, Addrs: []netip.Addr{addr}}
		if i%100 == 0 {
			p.Key.Namespace = fmt.Sprint("ns-", i/100%100)
			m.Attach(Attachment{Addr: addr, Pod: p.Key})
		}
		m.SetPod(p)
	}
	return m
}

func BenchmarkOneChangedPod(b *testing.B) {
	for _, size := range [][2]int{{1, 100}, {100, 1000}, {1000, 10_000}, {4000, 40_000}} {
		b.Run(fmt.Sprintf("%d policies, %d pods", size[0], size[1]), func(b *testing.B) {
			start := time.Now()
			m := many(size[0], size[1])
			m.Changes()
			m.Written()
			b.Logf("%d policies and %d pods from nothing: %v", size[0], size[1], time.Since(start))
			p := Pod{Key: api.Key{Namespace: "ns-0", Name: "another"}, Labels: map[string]string{"app": "client-0"}, Addrs: []netip.Addr{netip.MustParseAddr("10.9.9.9")}}
			for b.Loop() {
				m.SetPod(p)
				m.Changes()
				m.Written()
				m.DeletePod(p.Key)
				m.Changes()
				m.Written()
			}
		})
	}
}
