package nodelifecycle

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/controller"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

const ns = metav1.NamespaceDefault

// join makes a node that is ready, with a Lease.
func join(c *ct.Cluster, name, zone string) {
	now := metav1.Now()
	ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelTopologyZone: zone}}})
	ct.Change(c, "", name, "status", func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: now, LastTransitionTime: now}}
	})
	renew := metav1.NowMicro()
	ct.Make(c, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: name}, Spec: coordinationv1.LeaseSpec{RenewTime: &renew}})
}

// beat renews the Leases of nodes every 10 s for d.
func beat(c *ct.Cluster, d time.Duration, nodes ...string) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		for _, n := range nodes {
			renew := metav1.NowMicro()
			ct.Change(c, corev1.NamespaceNodeLease, n, "", func(l *coordinationv1.Lease) { l.Spec.RenewTime = &renew })
		}
		c.Pass(10 * time.Second)
	}
}

// status shows the Ready condition and the taints of a node.
func status(c *ct.Cluster, name string) string {
	n := ct.Get[*corev1.Node](c, "", name)
	out := "none"
	if r := conditionOf(n, corev1.NodeReady); r != nil {
		out = string(r.Status)
	}
	for _, t := range n.Spec.Taints {
		out += " " + strings.TrimPrefix(t.Key, "node.kubernetes.io/") + ":" + string(t.Effect)
	}
	return out
}

// podOn makes a ready pod on a node, which tolerates its being lost for five minutes, as admission makes every pod do.
func podOn(c *ct.Cluster, name, node string) { podTolerating(c, name, node, 300) }

func podTolerating(c *ct.Cluster, name, node string, seconds int64) {
	spec := ct.Template("web", "img").Spec
	spec.NodeName = node
	for _, key := range []string{corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable} {
		spec.Tolerations = append(spec.Tolerations, corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoExecute, TolerationSeconds: &seconds})
	}
	ct.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: spec})
	ct.Change(c, ns, name, "status", func(p *corev1.Pod) { ct.MakeReady(p, "10.0.0.1", time.Now()) })
}

func both(c *ct.Cluster) []controller.Controller {
	return []controller.Controller{New(c.Client, Config{}), NewTaintEviction(c.Client)}
}

func makeLeaseNamespace(c *ct.Cluster) {
	ct.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceNodeLease}})
}

func TestLostNode(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		join(c, "a", "z")
		join(c, "b", "z")
		podOn(c, "p", "b")
		c.Start(both(c)...)
		beat(c, time.Hour, "a", "b")
		if got := status(c, "b"); got != "True" {
			t.Fatalf("after an hour of heartbeats: %s", got)
		}
		beat(c, 40*time.Second, "a")
		if got := status(c, "b"); got != "True" {
			t.Errorf("silent for 50 s: %s", got)
		}
		beat(c, 20*time.Second, "a")
		if got := status(c, "b"); got != "Unknown unreachable:NoSchedule unreachable:NoExecute" {
			t.Errorf("silent for 70 s: %s", got)
		}
		p := ct.Get[*corev1.Pod](c, ns, "p")
		if podstate.Ready(p) || p.DeletionTimestamp != nil {
			t.Errorf("its pod is ready %v, deleted %v; want neither", podstate.Ready(p), p.DeletionTimestamp)
		}
		if got := status(c, "a"); got != "True" {
			t.Errorf("the other node: %s", got)
		}
		beat(c, 270*time.Second, "a")
		if p = ct.Get[*corev1.Pod](c, ns, "p"); p.DeletionTimestamp != nil {
			t.Error("the pod is deleted before five minutes have passed")
		}
		beat(c, 30*time.Second, "a")
		p = ct.Get[*corev1.Pod](c, ns, "p")
		if c := podstate.Condition(p, corev1.DisruptionTarget); p.DeletionTimestamp == nil || c == nil || c.Reason != "DeletionByTaintManager" {
			t.Errorf("after five minutes: deleted %v, condition %+v", p.DeletionTimestamp, c)
		}
		ct.Change(c, "", "b", "status", func(n *corev1.Node) {
			n.Status.Conditions[0].Status, n.Status.Conditions[0].LastHeartbeatTime = corev1.ConditionTrue, metav1.Now()
		})
		c.Settle()
		if got := status(c, "b"); got != "True" {
			t.Errorf("back again: %s", got)
		}
		if got := c.Events("NodeNotReady"); len(got) != 2 {
			t.Errorf("events %q, want one for the node and one for the pod", got)
		}
	})
}

func TestNodeThatComesBackKeepsItsPods(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		join(c, "a", "z")
		join(c, "b", "z")
		podOn(c, "p", "b")
		c.Start(both(c)...)
		beat(c, 4*time.Minute, "a")
		ct.Change(c, "", "b", "status", func(n *corev1.Node) {
			n.Status.Conditions[0].Status, n.Status.Conditions[0].LastHeartbeatTime = corev1.ConditionTrue, metav1.Now()
		})
		beat(c, 10*time.Minute, "a", "b")
		if ct.Get[*corev1.Pod](c, ns, "p").DeletionTimestamp != nil {
			t.Error("the pod of a node that came back in time was evicted")
		}
	})
}

func TestNodeThatNeverReported(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		c.Start(both(c)...)
		c.Pass(59 * time.Second)
		if got := status(c, "n"); got != "none" {
			t.Errorf("after 59 s: %s", got)
		}
		c.Pass(3 * time.Second)
		n := ct.Get[*corev1.Node](c, "", "n")
		if r := conditionOf(n, corev1.NodeReady); r == nil || r.Reason != "NodeStatusNeverUpdated" {
			t.Errorf("after 62 s: %+v", r)
		}
	})
}

func TestClockOfTheNodeDoesNotMatter(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		join(c, "a", "z")
		c.Start(both(c)...)
		for i := range 60 {
			past := metav1.NewMicroTime(time.Now().Add(-24*time.Hour + time.Duration(i)*time.Second))
			ct.Change(c, corev1.NamespaceNodeLease, "a", "", func(l *coordinationv1.Lease) { l.Spec.RenewTime = &past })
			c.Pass(10 * time.Second)
		}
		// The first renewal went back a day, which is no sign of life; the later ones go on from there.
		if got := status(c, "a"); got != "True" {
			t.Errorf("a node whose clock is a day late: %s", got)
		}
	})
}

func TestEvictionIsSpacedOut(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		var alive []string
		for i := range 10 {
			name := fmt.Sprintf("n%d", i)
			join(c, name, "z")
			if i >= 4 {
				alive = append(alive, name)
			}
		}
		c.Start(both(c)...)
		beat(c, 60*time.Second, alive...)
		tainted := func() (n int) {
			for i := range 4 {
				if strings.Contains(status(c, fmt.Sprintf("n%d", i)), "NoExecute") {
					n++
				}
			}
			return n
		}
		first := tainted()
		beat(c, 20*time.Second, alive...)
		later := tainted()
		if first < 1 || first > 2 || later-first != 2 {
			t.Errorf("%d of 4 lost nodes evict at 60 s and %d at 80 s, want one every ten seconds", first, later)
		}
	})
}

func TestNobodyEvictsWhenAllAreSilent(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		for i := range 3 {
			join(c, fmt.Sprintf("n%d", i), fmt.Sprintf("z%d", i))
		}
		podOn(c, "p", "n0")
		c.Start(both(c)...)
		c.Pass(time.Hour)
		for i := range 3 {
			if got := status(c, fmt.Sprintf("n%d", i)); got != "Unknown unreachable:NoSchedule" {
				t.Errorf("n%d: %s", i, got)
			}
		}
		if ct.Get[*corev1.Pod](c, ns, "p").DeletionTimestamp != nil {
			t.Error("a pod was evicted although no node answers")
		}
	})
}

func TestEvictionRate(t *testing.T) {
	cfg := Config{}.withDefaults()
	nodes := func(zone string, up, down int) (out []*corev1.Node) {
		for i := range up + down {
			s := corev1.ConditionTrue
			if i >= up {
				s = corev1.ConditionUnknown
			}
			out = append(out, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelTopologyZone: zone}},
				Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: s}}}})
		}
		return out
	}
	for _, tc := range []struct {
		name  string
		nodes []*corev1.Node
		rate  float64
		all   bool
	}{
		{"one of ten", nodes("z", 9, 1), 0.1, false},
		{"two of three: too few to call it a disruption", nodes("z", 1, 2), 0.1, false},
		{"most of a small zone", nodes("z", 4, 6), 0, false},
		{"most of a large zone", nodes("z", 20, 40), 0.01, false},
		{"all of a zone, another is well", append(nodes("z", 0, 5), nodes("y", 1, 0)...), 0.1, false},
		{"all of all zones", append(nodes("z", 0, 5), nodes("y", 0, 2)...), 0, true},
	} {
		if rate, all := evictionRate(tc.nodes, "/z", cfg); rate != tc.rate || all != tc.all {
			t.Errorf("%s: rate %v all %v, want %v %v", tc.name, rate, all, tc.rate, tc.all)
		}
	}
}

func TestPlanTaints(t *testing.T) {
	now := time.Unix(1000, 0)
	added := metav1.NewTime(time.Unix(500, 0))
	node := func(ready corev1.ConditionStatus, taints ...corev1.Taint) *corev1.Node {
		return &corev1.Node{Spec: corev1.NodeSpec{Taints: taints}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}}}
	}
	taint := func(key string, effect corev1.TaintEffect) corev1.Taint {
		return corev1.Taint{Key: key, Effect: effect}
	}
	mine := taint("example.com/dedicated", corev1.TaintEffectNoSchedule)
	pressed := node(corev1.ConditionTrue)
	pressed.Status.Conditions = append(pressed.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue})
	cordoned := node(corev1.ConditionTrue)
	cordoned.Spec.Unschedulable = true
	swapped := taint(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	swapped.TimeAdded = &added
	for _, tc := range []struct {
		name  string
		node  *corev1.Node
		evict evictMode
		want  string
	}{
		{"ready", node(corev1.ConditionTrue, mine), evictNever, "unchanged"},
		{"registered not ready, now ready", node(corev1.ConditionTrue, taint(corev1.TaintNodeNotReady, corev1.TaintEffectNoSchedule), mine), evictNever, "example.com/dedicated:NoSchedule"},
		{"not ready", node(corev1.ConditionFalse, mine), evictNow, "example.com/dedicated:NoSchedule node.kubernetes.io/not-ready:NoSchedule node.kubernetes.io/not-ready:NoExecute@1000"},
		{"not ready, not its turn", node(corev1.ConditionFalse), evictKeep, "node.kubernetes.io/not-ready:NoSchedule"},
		{"from not ready to unreachable", node(corev1.ConditionUnknown, swapped), evictNow, "node.kubernetes.io/unreachable:NoSchedule node.kubernetes.io/unreachable:NoExecute@500"},
		{"disk pressure", pressed, evictNever, "node.kubernetes.io/disk-pressure:NoSchedule"},
		{"cordoned", cordoned, evictNever, "node.kubernetes.io/unschedulable:NoSchedule"},
		{"uncordoned", node(corev1.ConditionTrue, taint(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)), evictNever, ""},
		{"a user's eviction taint stays", node(corev1.ConditionTrue, taint("example.com/x", corev1.TaintEffectNoExecute)), evictNever, "unchanged"},
	} {
		got := "unchanged"
		if p := planTaints(tc.node, tc.evict, now); p != nil {
			var parts []string
			for _, x := range *p {
				s := x.Key + ":" + string(x.Effect)
				if x.TimeAdded != nil {
					s += fmt.Sprintf("@%d", x.TimeAdded.Unix())
				}
				parts = append(parts, s)
			}
			got = strings.Join(parts, " ")
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func TestTolerations(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(s int64) *metav1.Time { t := metav1.NewTime(time.Unix(s, 0)); return &t }
	secs := func(n int64) *int64 { return &n }
	x := corev1.Taint{Key: "x", Value: "1", Effect: corev1.TaintEffectNoExecute, TimeAdded: at(900)}
	y := corev1.Taint{Key: "y", Effect: corev1.TaintEffectNoExecute, TimeAdded: at(950)}
	for _, tc := range []struct {
		name    string
		tols    []corev1.Toleration
		created int64
		evict   bool
		after   time.Duration
	}{
		{"none", nil, 0, true, 0},
		{"all of everything", []corev1.Toleration{{Operator: corev1.TolerationOpExists}}, 0, false, 0},
		{"one of two", []corev1.Toleration{{Key: "x", Operator: corev1.TolerationOpExists}}, 0, true, 0},
		{"another value", []corev1.Toleration{{Key: "x", Value: "2"}, {Key: "y", Operator: corev1.TolerationOpExists}}, 0, true, 0},
		{"another effect", []corev1.Toleration{{Operator: corev1.TolerationOpExists, Effect: corev1.TaintEffectNoSchedule}}, 0, true, 0},
		{"the earlier end counts", []corev1.Toleration{{Key: "x", Value: "1", TolerationSeconds: secs(130)}, {Key: "y", Operator: corev1.TolerationOpExists, TolerationSeconds: secs(60)}}, 0, false, 10 * time.Second},
		{"over", []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: secs(50)}}, 0, true, 0},
		{"a pod that came later has its time from then", []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: secs(50)}}, 990, false, 40 * time.Second},
		{"as good as for ever", []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: secs(math.MaxInt64)}}, 990, false, amount.Seconds(math.MaxInt64) - 10*time.Second},
		{"zero seconds", []corev1.Toleration{{Operator: corev1.TolerationOpExists, TolerationSeconds: secs(0)}}, 990, true, 0},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: *at(tc.created)}, Spec: corev1.PodSpec{Tolerations: tc.tols}}
		evict, after := planEvictions([]*corev1.Pod{p}, []corev1.Taint{x, y}, now)
		if (len(evict) == 1) != tc.evict || after != tc.after {
			t.Errorf("%s: evicted %v, next after %v; want %v, %v", tc.name, len(evict) == 1, after, tc.evict, tc.after)
		}
	}
}

func TestTaintByHand(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		join2 := func(name string) { ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}) }
		join2("n")
		podOn(c, "stays", "n")
		podOn(c, "goes", "n")
		ct.Change(c, ns, "stays", "", func(p *corev1.Pod) {
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: "maintenance", Operator: corev1.TolerationOpExists})
		})
		c.Start(NewTaintEviction(c.Client))
		ct.Change(c, "", "n", "", func(n *corev1.Node) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "maintenance", Effect: corev1.TaintEffectNoExecute})
		})
		c.Settle()
		if ct.Get[*corev1.Pod](c, ns, "goes").DeletionTimestamp == nil || ct.Get[*corev1.Pod](c, ns, "stays").DeletionTimestamp != nil {
			t.Error("only the pod that does not tolerate the taint should go")
		}
		podOn(c, "late", "n")
		c.Settle()
		if ct.Get[*corev1.Pod](c, ns, "late").DeletionTimestamp == nil {
			t.Error("a pod that came to a tainted node stays")
		}
	})
}

func TestHeartbeatsOfManyNodes(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		var all []string
		for i := range 300 {
			all = append(all, fmt.Sprintf("n%d", i))
			join(c, all[i], fmt.Sprintf("z%d", i%3))
		}
		c.Start(both(c)...)
		beat(c, 5*time.Minute, all...)
		for _, name := range all {
			if got := status(c, name); got != "True" {
				t.Fatalf("%s: %s", name, got)
			}
		}
	})
}
