package daemonset

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

const ns = metav1.NamespaceDefault

// declared is a set as a user writes it.
func declared(changes ...func(*appsv1.DaemonSet)) *appsv1.DaemonSet {
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "agent"},
		Spec: appsv1.DaemonSetSpec{Selector: ct.Selector("agent"), Template: ct.Template("agent", "v1")}}
	for _, c := range changes {
		c(ds)
	}
	return ds
}

func within(surge, unavailable string) func(*appsv1.DaemonSet) {
	return func(ds *appsv1.DaemonSet) {
		s, u := intstr.Parse(surge), intstr.Parse(unavailable)
		ds.Spec.UpdateStrategy = appsv1.DaemonSetUpdateStrategy{Type: appsv1.RollingUpdateDaemonSetStrategyType,
			RollingUpdate: &appsv1.RollingUpdateDaemonSet{MaxSurge: &s, MaxUnavailable: &u}}
	}
}

func start(c *ct.Cluster) (stop func()) {
	return c.Start(New(c.Client), ct.Kubelet(c.Client, 2*time.Second, time.Second))
}

func nodes(c *ct.Cluster, first, count int) {
	for i := first; i < first+count; i++ {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i)}})
	}
}

func get(c *ct.Cluster) *appsv1.DaemonSet { return ct.Get[*appsv1.DaemonSet](c, ns, "agent") }

func image(c *ct.Cluster, img string) {
	ct.Change(c, ns, "agent", "", func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.Containers[0].Image = img })
}

func ready(p *corev1.Pod) bool {
	return slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue })
}

// state shows the pods by node as NODE=IMAGE, with a star for those that are not ready and a dash for those that end.
func state(c *ct.Cluster) string {
	var out []string
	for _, p := range ct.All[*corev1.Pod](c, ns) {
		word := p.Spec.NodeName + "=" + p.Spec.Containers[0].Image
		if !ready(p) {
			word += "*"
		}
		if p.DeletionTimestamp != nil {
			word += "-"
		}
		out = append(out, word)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func revisions(c *ct.Cluster) string {
	all := ct.All[*appsv1.ControllerRevision](c, ns)
	slices.SortFunc(all, func(a, b *appsv1.ControllerRevision) int { return int(a.Revision - b.Revision) })
	var out []string
	for _, r := range all {
		_, img, _ := strings.Cut(string(r.Data.Raw), `"image":"`)
		img, _, _ = strings.Cut(img, `"`)
		out = append(out, fmt.Sprintf("%d=%s", r.Revision, img))
	}
	return strings.Join(out, " ")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %s, want %s", what, got, want)
	}
}

func TestLifeOnNodes(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		nodes(c, 1, 2)
		ct.Make(c, declared(func(ds *appsv1.DaemonSet) { ds.Spec.Template.Spec.NodeSelector = map[string]string{"role": "db"} }))
		c.Pass(5 * time.Second)
		expect(t, "no node has the label", state(c), "")
		ct.Change(c, "", "n2", "", func(n *corev1.Node) { n.Labels = map[string]string{"role": "db"} })
		c.Pass(5 * time.Second)
		expect(t, "one has", state(c), "n2=v1")
		ct.Change(c, "", "n1", "", func(n *corev1.Node) { n.Labels = map[string]string{"role": "db"} })
		ct.Change(c, "", "n2", "", func(n *corev1.Node) { n.Labels = nil })
		c.Pass(5 * time.Second)
		expect(t, "another has", state(c), "n1=v1")
		ct.Change(c, "", "n1", "", func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: "k", Effect: corev1.TaintEffectNoSchedule}} })
		c.Pass(5 * time.Second)
		if st := get(c).Status; state(c) != "n1=v1" || st.NumberMisscheduled != 1 || st.DesiredNumberScheduled != 0 {
			t.Errorf("with a taint: %s, status %+v", state(c), st)
		}
		ct.Change(c, "", "n1", "", func(n *corev1.Node) {
			n.Spec.Unschedulable = true
			n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeUnschedulable, Effect: corev1.TaintEffectNoSchedule}}
		})
		c.Pass(5 * time.Second)
		ds := get(c)
		if st := ds.Status; st.NumberMisscheduled != 0 || st.DesiredNumberScheduled != 1 || st.NumberAvailable != 1 || st.UpdatedNumberScheduled != 1 || st.ObservedGeneration != ds.Generation {
			t.Errorf("on a cordoned node: status %+v", st)
		}
		if events := c.Events("SuccessfulCreate"); len(events) == 0 || !strings.HasPrefix(events[0], "Created pod: agent-") {
			t.Errorf("events %q", events)
		}
	})
}

func TestAThousandNodes(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		nodes(c, 0, 1000)
		ct.Make(c, declared(within("0", "10%")))
		c.Pass(10 * time.Second)
		if st := get(c).Status; st.NumberAvailable != 1000 || st.NumberUnavailable != 0 {
			t.Fatalf("status %+v, want 1,000 available", st)
		}
		image(c, "v2")
		c.Pass(2 * time.Minute)
		if st := get(c).Status; st.UpdatedNumberScheduled != 1000 || st.NumberAvailable != 1000 {
			t.Errorf("status %+v, want 1,000 updated", st)
		}
	})
}

func TestUpdatesKeepWithinTheirBounds(t *testing.T) {
	for _, tc := range []struct {
		surge, unavailable         string
		fewestReady, mostAtOneTime int
	}{{"0", "2", 4, 6}, {"2", "0", 6, 8}} {
		ct.Run(t, func(c *ct.Cluster) {
			start(c)
			nodes(c, 0, 6)
			ct.Make(c, declared(within(tc.surge, tc.unavailable)))
			c.Pass(10 * time.Second)
			image(c, "v2")
			fewest, most := 6, 0
			for range 600 {
				c.Pass(100 * time.Millisecond)
				working, all := 0, 0
				for _, p := range ct.All[*corev1.Pod](c, ns) {
					if p.DeletionTimestamp == nil {
						all++
						if ready(p) {
							working++
						}
					}
				}
				fewest, most = min(fewest, working), max(most, all)
			}
			if fewest != tc.fewestReady || most != tc.mostAtOneTime {
				t.Errorf("surge %s, unavailable %s: at least %d pods were ready and at most %d there; want %d and %d", tc.surge, tc.unavailable, fewest, most, tc.fewestReady, tc.mostAtOneTime)
			}
			expect(t, "at the end", state(c)+" "+revisions(c), "n0=v2 n1=v2 n2=v2 n3=v2 n4=v2 n5=v2 1=v1 2=v2")
			image(c, "v1")
			c.Pass(time.Minute)
			expect(t, "after undoing", state(c)+" "+revisions(c), "n0=v1 n1=v1 n2=v1 n3=v1 n4=v1 n5=v1 2=v2 3=v1")
		})
	}
}

func TestABrokenUpdateStopsAndIsMended(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		nodes(c, 0, 3)
		ct.Make(c, declared())
		c.Pass(10 * time.Second)
		image(c, "broken")
		c.Pass(time.Minute)
		expect(t, "broken", state(c), "n0=broken* n1=v1 n2=v1")
		image(c, "v2")
		c.Pass(time.Minute)
		expect(t, "mended", state(c), "n0=v2 n1=v2 n2=v2")
	})
}

func TestPodsThatFailAreReplacedWithBackOff(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client), ct.Kubelet(c.Client, time.Hour, 0))
		nodes(c, 0, 1)
		ct.Make(c, declared())
		seen := map[string]bool{}
		for range 36000 {
			for _, p := range ct.All[*corev1.Pod](c, ns) {
				if !seen[p.Name] {
					seen[p.Name] = true
					ct.Change(c, ns, p.Name, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
				}
			}
			c.Pass(100 * time.Millisecond)
		}
		// At once, then after 1, 2, 4, ... 256 seconds and every five minutes.
		if len(seen) < 15 || len(seen) > 25 {
			t.Errorf("%d pods in an hour, want about 20", len(seen))
		}
		if events := c.Events("FailedDaemonPod"); len(events) == 0 || !strings.Contains(events[0], "on node n0, will try to kill it") {
			t.Errorf("events %q", events)
		}
	})
}

func TestNodesComeAndGo(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client))
		nodes(c, 0, 2)
		ct.Make(c, declared())
		c.Pass(time.Second)
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 2 {
			t.Fatalf("%d pods, want 2", n)
		}
		ct.Delete[*corev1.Node](c, "", "n1", metav1.DeleteOptions{})
		c.Pass(time.Second)
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 1 || get(c).Status.DesiredNumberScheduled != 1 {
			t.Errorf("%d pods, want the one that waits for a node that is gone to go", n)
		}
		nodes(c, 5, 1)
		c.Pass(time.Second)
		if n := len(ct.All[*corev1.Pod](c, ns)); n != 2 {
			t.Errorf("%d pods, want one for the new node", n)
		}
	})
}

func TestOrphansAreAdopted(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		stop := start(c)
		nodes(c, 0, 2)
		ct.Make(c, declared())
		c.Pass(10 * time.Second)
		before := ct.All[*corev1.Pod](c, ns)
		stop()
		// As the garbage collector does for kubectl delete --cascade=orphan.
		ct.Delete[*appsv1.DaemonSet](c, ns, "agent", metav1.DeleteOptions{})
		for _, p := range before {
			ct.Change(c, ns, p.Name, "", func(p *corev1.Pod) { p.OwnerReferences = nil })
		}
		for _, r := range ct.All[*appsv1.ControllerRevision](c, ns) {
			ct.Change(c, ns, r.Name, "", func(r *appsv1.ControllerRevision) { r.OwnerReferences = nil })
		}
		start(c)
		ct.Make(c, declared())
		c.Pass(10 * time.Second)
		for i, p := range ct.All[*corev1.Pod](c, ns) {
			if p.UID != before[i].UID || !metav1.IsControlledBy(p, get(c)) {
				t.Errorf("pod %s was made again", p.Name)
			}
		}
		expect(t, "history", revisions(c), "1=v1")
	})
}

// failing is a client that refuses all writes once it has made some.
type failing struct {
	client.Client
	after int
}

func (f *failing) spend() bool {
	f.after--
	return f.after >= 0
}

func (f *failing) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	if !f.spend() {
		return nil, context.Canceled
	}
	return f.Client.Create(ctx, obj)
}

func (f *failing) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	if !f.spend() {
		return nil, context.Canceled
	}
	return f.Client.Update(ctx, obj, sub)
}

func (f *failing) CreateMany(ctx context.Context, objs []api.Object) []client.Result {
	if len(objs) > 0 && f.Served().Now().Of(objs[0]) == api.Events {
		return f.Client.CreateMany(ctx, objs)
	}
	out := make([]client.Result, len(objs))
	for i := range objs {
		if out[i].Err = context.Canceled; f.spend() {
			out[i] = f.Client.CreateMany(ctx, objs[i:i+1])[0]
		}
	}
	return out
}

func (f *failing) DeleteMany(ctx context.Context, objs []api.Object, opts metav1.DeleteOptions) []client.Result {
	out := make([]client.Result, len(objs))
	for i := range objs {
		if out[i].Err = context.Canceled; f.spend() {
			out[i] = f.Client.DeleteMany(ctx, objs[i:i+1], opts)[0]
		}
	}
	return out
}

// A controller that is killed after any of its writes leaves nothing that the next one cannot go on from.
func TestRestartBetweenAnyTwoWrites(t *testing.T) {
	for _, bounds := range []func(*appsv1.DaemonSet){within("0", "1"), within("1", "0")} {
		for kill := range 30 {
			ct.Run(t, func(c *ct.Cluster) {
				front := &failing{Client: c.Client, after: kill}
				nodes(c, 0, 3)
				ct.Make(c, declared(bounds))
				r := New(front)
				stop := c.Start(ct.Kubelet(c.Client, time.Second, time.Second))
				defer stop()
				step := func(rounds int) {
					for range rounds {
						if front.after < 0 {
							front.after = 1 << 30
							r = New(front) // a new process, without memories
						}
						_, _ = r.Reconciler.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "agent"})
						c.Pass(time.Second)
					}
				}
				step(5)
				image(c, "v2")
				step(20)
				st := get(c).Status
				if got := state(c); got != "n0=v2 n1=v2 n2=v2" || st.NumberAvailable != 3 || st.UpdatedNumberScheduled != 3 || revisions(c) != "1=v1 2=v2" {
					t.Errorf("killed after %d writes: %s, %s, status %+v", kill, got, revisions(c), st)
				}
			})
		}
	}
}
