package statefulset

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

	"github.com/knarr-io/knarr/internal/api"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

const ns = metav1.NamespaceDefault

// declared is a set as a user writes it.
func declared(n int32, changes ...func(*appsv1.StatefulSet)) *appsv1.StatefulSet {
	s := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "db"},
		Spec: appsv1.StatefulSetSpec{Replicas: &n, ServiceName: "db", Selector: ct.Selector("db"), Template: ct.Template("db", "v1")}}
	for _, c := range changes {
		c(s)
	}
	return s
}

func start(c *ct.Cluster) (stop func()) {
	return c.Start(New(c.Client), ct.Kubelet(c.Client, 2*time.Second, time.Second))
}

func get(c *ct.Cluster) *appsv1.StatefulSet { return ct.Get[*appsv1.StatefulSet](c, ns, "db") }

func edit(c *ct.Cluster, change func(*appsv1.StatefulSet)) { ct.Change(c, ns, "db", "", change) }

func scale(c *ct.Cluster, n int32) {
	edit(c, func(s *appsv1.StatefulSet) { s.Spec.Replicas = &n })
}

func image(c *ct.Cluster, img string) {
	edit(c, func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = img })
}

// state shows the pods as NAME=IMAGE, with a star for those that are not ready and a dash for those that end.
func state(c *ct.Cluster) string {
	var out []string
	for _, p := range ct.All[*corev1.Pod](c, ns) {
		word := strings.TrimPrefix(p.Name, "db-") + "=" + p.Spec.Containers[0].Image
		if !slices.ContainsFunc(p.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }) {
			word += "*"
		}
		if p.DeletionTimestamp != nil {
			word += "-"
		}
		out = append(out, word)
	}
	return strings.Join(out, " ")
}

// transcript lists each state of the pods for a while.
func transcript(c *ct.Cluster, d time.Duration) string {
	var out []string
	for ; d > 0; d -= 100 * time.Millisecond {
		if s := state(c); len(out) == 0 || out[len(out)-1] != s {
			out = append(out, s)
		}
		c.Pass(100 * time.Millisecond)
	}
	return strings.Join(out, "\n")
}

func expect(t *testing.T, what, got, want string) {
	t.Helper()
	if want = strings.ReplaceAll(strings.TrimSpace(want), "\t", ""); got != want {
		t.Errorf("%s:\n%s\nwant:\n%s", what, got, want)
	}
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

func TestOrderedLife(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, declared(3))
		c.Settle()
		expect(t, "creation", transcript(c, 10*time.Second), `
			0=v1*
			0=v1 1=v1*
			0=v1 1=v1 2=v1*
			0=v1 1=v1 2=v1`)
		s := get(c)
		if st := s.Status; st.Replicas != 3 || st.ReadyReplicas != 3 || st.AvailableReplicas != 3 || st.CurrentReplicas != 3 || st.UpdatedReplicas != 3 ||
			st.ObservedGeneration != s.Generation || st.CurrentRevision != st.UpdateRevision || st.CurrentRevision == "" || *st.CollisionCount != 0 {
			t.Fatalf("status %+v, want 3 of everything", st)
		}
		image(c, "v2")
		c.Settle()
		if st := get(c).Status; st.CurrentRevision != s.Status.CurrentRevision || st.UpdateRevision == st.CurrentRevision || st.CurrentReplicas != 2 {
			t.Errorf("status %+v in the middle of an update", st)
		}
		expect(t, "update", transcript(c, 20*time.Second), `
			0=v1 1=v1 2=v1-
			0=v1 1=v1 2=v2*
			0=v1 1=v1- 2=v2
			0=v1 1=v2* 2=v2
			0=v1- 1=v2 2=v2
			0=v2* 1=v2 2=v2
			0=v2 1=v2 2=v2`)
		if st := get(c).Status; st.CurrentRevision != st.UpdateRevision || st.UpdatedReplicas != 3 {
			t.Errorf("status %+v after the update", st)
		}
		scale(c, 1)
		c.Settle()
		expect(t, "scaling down", transcript(c, 10*time.Second), `
			0=v2 1=v2 2=v2-
			0=v2 1=v2-
			0=v2`)
		expect(t, "history", revisions(c), "1=v1 2=v2")
		image(c, "v1")
		c.Pass(10 * time.Second)
		expect(t, "after undoing", state(c)+" "+revisions(c), "0=v1 2=v2 3=v1")
		if events := c.Events("SuccessfulCreate"); !slices.Contains(events, "Create Pod db-0 in StatefulSet db successful") {
			t.Errorf("events %q", events)
		}
		if events := c.Events("SuccessfulDelete"); !slices.Contains(events, "Delete Pod db-2 in StatefulSet db successful") {
			t.Errorf("events %q", events)
		}
	})
}

func TestParallelLife(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, declared(600, parallel)) // more than one burst
		c.Pass(5 * time.Second)
		if st := get(c).Status; st.ReadyReplicas != 600 {
			t.Fatalf("status %+v, want 600 ready", st)
		}
		scale(c, 3)
		c.Pass(5 * time.Second)
		expect(t, "scaled down", state(c), "0=v1 1=v1 2=v1")
		image(c, "broken")
		c.Pass(5 * time.Second)
		expect(t, "a broken update", state(c), "0=v1 1=v1 2=broken*")
		image(c, "v2")
		c.Pass(20 * time.Second)
		expect(t, "a mended one", state(c), "0=v2 1=v2 2=v2")
	})
}

// kubernetes#67250
func TestABrokenRevisionIsReplaced(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, declared(2, func(s *appsv1.StatefulSet) { s.Spec.Template.Spec.Containers[0].Image = "broken" }))
		c.Pass(time.Minute)
		expect(t, "from the beginning", state(c), "0=broken*")
		image(c, "v1")
		c.Pass(20 * time.Second)
		expect(t, "mended", state(c), "0=v1 1=v1")
		image(c, "broken")
		c.Pass(time.Minute)
		expect(t, "an update", state(c), "0=v1 1=broken*")
		image(c, "v2")
		c.Pass(20 * time.Second)
		expect(t, "mended", state(c), "0=v2 1=v2")
		image(c, "broken")
		c.Pass(time.Minute)
		image(c, "v2")
		c.Pass(20 * time.Second)
		expect(t, "rolled back", state(c), "0=v2 1=v2")
	})
}

func TestPodsThatFailAreReplacedWithBackOff(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		c.Start(New(c.Client), ct.Kubelet(c.Client, time.Hour, 0))
		ct.Make(c, declared(1))
		seen, made := "", 0
		for range 36000 {
			for _, p := range ct.All[*corev1.Pod](c, ns) {
				if string(p.UID) != seen {
					seen = string(p.UID)
					made++
					ct.Change(c, ns, p.Name, "status", func(p *corev1.Pod) { p.Status.Phase, p.Status.Reason = corev1.PodFailed, "Evicted" })
				}
			}
			c.Pass(100 * time.Millisecond)
		}
		// At once, then after 1, 2, 4, ... 256 seconds and every five minutes.
		if made < 15 || made > 25 {
			t.Errorf("%d pods in an hour, want about 20", made)
		}
	})
}

func TestRevisionsAreLimited(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		two := int32(2)
		ct.Make(c, declared(1, func(s *appsv1.StatefulSet) { s.Spec.RevisionHistoryLimit = &two }))
		for i := range 6 {
			c.Pass(10 * time.Second)
			image(c, fmt.Sprintf("v%d", i+2))
		}
		c.Pass(10 * time.Second)
		expect(t, "history", revisions(c), "5=v5 6=v6 7=v7")
	})
}

func TestOrphansAreAdopted(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		stop := start(c)
		ct.Make(c, declared(2))
		c.Pass(10 * time.Second)
		before := ct.All[*corev1.Pod](c, ns)
		stop()
		// As the garbage collector does for kubectl delete --cascade=orphan.
		ct.Delete[*appsv1.StatefulSet](c, ns, "db", metav1.DeleteOptions{})
		for _, p := range before {
			ct.Change(c, ns, p.Name, "", func(p *corev1.Pod) { p.OwnerReferences = nil })
		}
		for _, r := range ct.All[*appsv1.ControllerRevision](c, ns) {
			ct.Change(c, ns, r.Name, "", func(r *appsv1.ControllerRevision) { r.OwnerReferences = nil })
		}
		start(c)
		ct.Make(c, declared(2))
		c.Pass(10 * time.Second)
		for i, p := range ct.All[*corev1.Pod](c, ns) {
			if p.UID != before[i].UID || !metav1.IsControlledBy(p, get(c)) {
				t.Errorf("pod %s was made again", p.Name)
			}
		}
		expect(t, "history", revisions(c), "1=v1")
		for _, r := range ct.All[*appsv1.ControllerRevision](c, ns) {
			if !metav1.IsControlledBy(r, get(c)) {
				t.Errorf("revision %s was not adopted", r.Name)
			}
		}
	})
}

func TestANameThatIsTakenIsSaid(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "db-0"}, Spec: ct.Template("x", "x").Spec})
		ct.Make(c, declared(1))
		c.Pass(time.Minute)
		if events := c.Events("FailedCreate"); len(events) != 1 || !strings.Contains(events[0], "already exists") {
			t.Errorf("events %q, want one that says why", events)
		}
		ct.Delete[*corev1.Pod](c, ns, "db-0", metav1.DeleteOptions{})
		c.Pass(2 * time.Minute)
		expect(t, "when the name is free", state(c), "0=v1")
	})
}

// A controller that is killed after any of its writes leaves nothing that the next one cannot go on from.
func TestRestartBetweenAnyTwoWrites(t *testing.T) {
	for _, change := range []func(*appsv1.StatefulSet){func(*appsv1.StatefulSet) {}, parallel} {
		for kill := 1; kill < 40; kill++ {
			ct.Run(t, func(c *ct.Cluster) {
				front := &failing{Client: c.Client, after: kill}
				ct.Make(c, declared(3, change, withClaims))
				r := New(front)
				stop := c.Start(ct.Kubelet(c.Client, time.Second, time.Second))
				defer stop()
				ctx := context.Background()
				step := func(rounds int) {
					for range rounds {
						if front.after <= 0 {
							front.after = 1 << 30
							r = New(front) // a new process, without memories
						}
						_, _ = r.Reconciler.Reconcile(ctx, api.Key{Namespace: ns, Name: "db"})
						c.Pass(time.Second)
					}
				}
				step(12)
				image(c, "v2")
				step(20)
				scale(c, 1)
				step(12)
				if got, st := state(c), get(c).Status; got != "0=v2" || st.ReadyReplicas != 1 || st.CurrentRevision != st.UpdateRevision || revisions(c) != "1=v1 2=v2" {
					t.Errorf("killed after %d writes: %s, %s, status %+v", kill, got, revisions(c), st)
				}
				if n := len(ct.All[*corev1.PersistentVolumeClaim](c, ns)); n != 3 {
					t.Errorf("killed after %d writes: %d claims, want 3", kill, n)
				}
			})
		}
	}
}
