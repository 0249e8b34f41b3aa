package scheduler

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// cluster is a real front door with a running scheduler, in a synctest bubble.
type cluster struct {
	t *testing.T
	client.Client
	s *Scheduler
}

// run gives body a cluster.
func run(t *testing.T, body func(c *cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{t: t, Client: clienttest.New(t)}
		c.s = New(Config{Client: c.Client, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		defer c.start(c.s)()
		body(c)
	})
}

// start runs s until the returned function is called.
func (c *cluster) start(s *Scheduler) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			c.t.Errorf("Run: %v", err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

func (c *cluster) node(name, cpu string, change ...func(*corev1.Node)) {
	c.t.Helper()
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	for _, f := range change {
		f(n)
	}
	n = clienttest.Create(c.t, c.Client, n).DeepCopy()
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n.Status.Capacity = n.Status.Allocatable
	if _, err := c.Update(context.Background(), n, "status"); err != nil {
		c.t.Fatal(err)
	}
}

func newPod(name, cpu string, change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox",
			Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}}}}},
	}
	for _, f := range change {
		f(p)
	}
	return p
}

func (c *cluster) pod(name, cpu string, change ...func(*corev1.Pod)) {
	c.t.Helper()
	clienttest.Create(c.t, c.Client, newPod(name, cpu, change...))
}

func (c *cluster) get(name string) *corev1.Pod {
	c.t.Helper()
	p, err := client.Get[*corev1.Pod](context.Background(), c.Client, api.Key{Namespace: "default", Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// remove deletes a pod at once, as its node would at the end of its grace period.
func (c *cluster) remove(name string) {
	c.t.Helper()
	zero := int64(0)
	if err := client.Delete[*corev1.Pod](context.Background(), c.Client, api.Key{Namespace: "default", Name: name}, metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) on(name, node string) {
	c.t.Helper()
	synctest.Wait()
	if got := c.get(name).Spec.NodeName; got != node {
		c.t.Fatalf("pod %s is on %q, want %q; condition: %q", name, got, node, c.message(name))
	}
}

func (c *cluster) message(name string) string {
	for _, cond := range c.get(name).Status.Conditions {
		if cond.Type == corev1.PodScheduled {
			return fmt.Sprintf("%s %s: %s", cond.Status, cond.Reason, cond.Message)
		}
	}
	return ""
}

func (c *cluster) says(name, want string) {
	c.t.Helper()
	synctest.Wait()
	if got := c.message(name); got != want {
		c.t.Fatalf("pod %s says\n%s\nwant\n%s", name, got, want)
	}
}

func (c *cluster) events(reason string) []string {
	c.t.Helper()
	synctest.Wait()
	events, err := client.List[*corev1.Event](context.Background(), c.Client, client.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	var out []string
	for _, e := range events {
		if e.Reason == reason {
			out = append(out, fmt.Sprintf("%s %s: %s", e.InvolvedObject.Name, e.Source.Component, e.Message))
		}
	}
	return out
}

func TestBindsAndTells(t *testing.T) {
	run(t, func(c *cluster) {
		c.node("n1", "2")
		c.pod("a", "500m")
		c.on("a", "n1")
		c.says("a", "True : ")
		if got := c.events("Scheduled"); len(got) != 1 || got[0] != "a default-scheduler: Successfully assigned default/a to n1" {
			t.Fatalf("events: %q", got)
		}
	})
}

func TestRejectsThenWakes(t *testing.T) {
	run(t, func(c *cluster) {
		c.pod("early", "1")
		c.says("early", "False Unschedulable: no nodes available to schedule pods")
		c.node("n1", "1")
		c.on("early", "n1")
		c.pod("late", "1")
		const want = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod."
		c.says("late", "False Unschedulable: "+want)
		if got := c.events("FailedScheduling"); len(got) != 2 || !strings.Contains(strings.Join(got, "\n"), "late default-scheduler: "+want) {
			t.Fatalf("events: %q", got)
		}
		c.remove("early")
		c.on("late", "n1") // by the event, not by time: the clock of the bubble stands still
	})
}

func TestGatesAndOtherSchedulers(t *testing.T) {
	run(t, func(c *cluster) {
		c.node("n1", "2")
		c.pod("gated", "1", func(p *corev1.Pod) { p.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/wait"}} })
		c.pod("other", "1", func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" })
		c.on("gated", "")
		c.on("other", "")
		p := c.get("gated").DeepCopy()
		p.Spec.SchedulingGates = nil
		if _, err := c.Update(context.Background(), p, ""); err != nil {
			t.Fatal(err)
		}
		c.on("gated", "n1")
		c.on("other", "")
	})
}

func TestClaims(t *testing.T) {
	run(t, func(c *cluster) {
		c.node("n1", "2")
		synctest.Wait() // a pod that is tried while its node comes is tried again after its back-off, which does not pass here
		c.pod("a", "1", func(p *corev1.Pod) {
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}
		})
		const preemption = " preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
		c.says("a", `False Unschedulable: 0/1 nodes are available: persistentvolumeclaim "data" not found.`+preemption)
		pvc := clienttest.Create(t, c.Client, &corev1.PersistentVolumeClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"},
			Spec: corev1.PersistentVolumeClaimSpec{
				AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
				Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
			},
		}).DeepCopy()
		// A claim that came does not help by itself: the reason stays until somebody looks again.
		c.on("a", "")
		clienttest.Create(t, c.Client, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			AccessModes: pvc.Spec.AccessModes, Capacity: pvc.Spec.Resources.Requests, PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}}})
		pvc.Spec.VolumeName, pvc.Annotations = "pv", map[string]string{storage.AnnBindCompleted: "yes"}
		if _, err := c.Update(context.Background(), pvc, ""); err != nil {
			t.Fatal(err)
		}
		_, err := client.Mutate(context.Background(), c.Client, api.KeyOf(pvc), "status", func(p *corev1.PersistentVolumeClaim) bool {
			p.Status.Phase = corev1.ClaimBound
			return true
		})
		if err != nil {
			t.Fatal(err)
		}
		c.on("a", "n1")
	})
}

func important(p *corev1.Pod) { p.Spec.Priority = new(int32(1000)) }

func TestPreempts(t *testing.T) {
	run(t, func(c *cluster) {
		c.node("n1", "1")
		c.node("n2", "1")
		c.pod("low1", "600m", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "guarded"} })
		synctest.Wait()
		c.pod("low2", "600m")
		synctest.Wait()
		guarded, free := c.get("low1").Spec.NodeName, c.get("low2").Spec.NodeName
		if guarded == "" || free == "" || guarded == free {
			t.Fatalf("low1 on %q, low2 on %q", guarded, free)
		}
		one := intstr.FromInt32(1)
		clienttest.Create(t, c.Client, &policyv1.PodDisruptionBudget{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "pdb"},
			Spec:       policyv1.PodDisruptionBudgetSpec{MinAvailable: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "guarded"}}},
		})
		synctest.Wait()
		c.pod("high", "600m", important)
		synctest.Wait()
		high := c.get("high")
		if high.Spec.NodeName != "" || high.Status.NominatedNodeName != free {
			t.Fatalf("on %q, nominated to %q, want a nomination to %s", high.Spec.NodeName, high.Status.NominatedNodeName, free)
		}
		victim := c.get("low2")
		if victim.DeletionTimestamp == nil || !disrupted(victim) {
			t.Fatalf("low2 is not on its way out: %v %v", victim.DeletionTimestamp, victim.Status.Conditions)
		}
		if c.get("low1").DeletionTimestamp != nil {
			t.Fatal("low1 is deleted against its budget")
		}
		c.remove("low2")
		c.on("high", free)
		c.pod("thief", "600m")
		c.on("thief", "")
		if got := c.events("Preempted"); len(got) != 1 || !strings.HasPrefix(got[0], "low2 default-scheduler: Preempted by pod ") {
			t.Fatalf("events: %q", got)
		}
	})
}

func disrupted(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget {
			return c.Status == corev1.ConditionTrue && c.Reason == corev1.PodReasonPreemptionByScheduler
		}
	}
	return false
}

// failing refuses the first bindings.
type failing struct {
	client.Client
	mu   sync.Mutex
	left int
}

func (f *failing) BindMany(ctx context.Context, bs []client.Binding) []client.Result {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return f.Client.BindMany(ctx, bs)
	}
	f.left--
	out := make([]client.Result, len(bs))
	for i := range out {
		out[i].Err = fmt.Errorf("the store is away")
	}
	return out
}

func TestFailedBindingsBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := clienttest.New(t)
		c := &cluster{t: t, Client: inner}
		c.s = New(Config{Client: &failing{Client: inner, left: 3}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		defer c.start(c.s)()
		c.node("n1", "1")
		begun := time.Now()
		c.pod("a", "1")
		c.on("a", "")
		for c.get("a").Spec.NodeName == "" {
			time.Sleep(100 * time.Millisecond) // of the bubble's clock
			synctest.Wait()
		}
		if took := time.Since(begun); took < 7*time.Second || took > 8*time.Second { // 1 + 2 + 4
			t.Fatalf("took %s", took)
		}
	})
}

func TestRestartKeepsCounting(t *testing.T) {
	run(t, func(c *cluster) {
		c.node("n1", "1")
		c.pod("a", "800m")
		c.on("a", "n1")
		again := New(Config{Client: c.Client, Logger: c.s.log, Name: "mine"})
		defer c.start(again)()
		c.pod("b", "800m", func(p *corev1.Pod) { p.Spec.SchedulerName = "mine" })
		c.on("b", "")
	})
}

func TestManyPodsNothingOvercommitted(t *testing.T) {
	run(t, func(c *cluster) {
		for i := range 20 {
			c.node(fmt.Sprintf("n%d", i), "10")
		}
		var objs []api.Object
		for i := range 2500 { // 2000 fit
			objs = append(objs, newPod(fmt.Sprintf("p%d", i), "100m"))
		}
		for _, r := range c.CreateMany(context.Background(), objs) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		synctest.Wait()
		pods, err := client.List[*corev1.Pod](context.Background(), c.Client, client.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		per, none := map[string]int{}, 0
		for _, p := range pods {
			if p.Spec.NodeName == "" {
				none++
			}
			per[p.Spec.NodeName]++
		}
		if none != 500 {
			t.Fatalf("%d pods have no node, want 500", none)
		}
		for node, n := range per {
			if node != "" && n != 100 {
				t.Fatalf("%s has %d pods, want 100", node, n)
			}
		}
	})
}
