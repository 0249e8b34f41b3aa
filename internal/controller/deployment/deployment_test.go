package deployment

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
)

const ns = metav1.NamespaceDefault

// start runs the controllers that a rollout needs; pods take 2 s to be ready and 1 s to stop.
func start(c *ct.Cluster) (stop func()) {
	return c.Start(New(c.Client, nil), replicaset.New(c.Client), ct.Kubelet(c.Client, 2*time.Second, time.Second))
}

// web is a Deployment as a user writes it: everything else is defaulted.
func web(n int32) *appsv1.Deployment {
	return &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec:       appsv1.DeploymentSpec{Replicas: &n, Selector: ct.Selector("web"), Template: ct.Template("web", "v1")},
	}
}

func edit(c *ct.Cluster, change func(d *appsv1.Deployment)) *appsv1.Deployment {
	return ct.Change(c, ns, "web", "", change)
}

func image(c *ct.Cluster, img string) {
	edit(c, func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Image = img })
}

// state shows each ReplicaSet as IMAGE=SIZE, oldest first by image.
func state(c *ct.Cluster) string {
	var out []string
	for _, rs := range ct.All[*appsv1.ReplicaSet](c, ns) {
		out = append(out, fmt.Sprintf("%s=%d", rs.Spec.Template.Spec.Containers[0].Image, *rs.Spec.Replicas))
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func replicaSetOf(c *ct.Cluster, img string) *appsv1.ReplicaSet {
	for _, rs := range ct.All[*appsv1.ReplicaSet](c, ns) {
		if rs.Spec.Template.Spec.Containers[0].Image == img {
			return rs
		}
	}
	c.T.Fatalf("no ReplicaSet of %s", img)
	return nil
}

func progressing(c *ct.Cluster) string {
	d := ct.Get[*appsv1.Deployment](c, ns, "web")
	if p := conditionOf(&d.Status, appsv1.DeploymentProgressing); p != nil {
		return p.Reason
	}
	return "none"
}

// finished is what kubectl rollout status waits for.
func finished(d *appsv1.Deployment) bool {
	s := d.Status
	return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas >= *d.Spec.Replicas && s.Replicas <= s.UpdatedReplicas && s.AvailableReplicas >= s.UpdatedReplicas
}

func TestRolloutAndUndo(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		d := web(4)
		d.Annotations = map[string]string{"kubernetes.io/change-cause": "first"}
		ct.Make(c, d)
		c.Settle()
		if got := progressing(c); got != reasonNewReplicaSet && got != reasonUpdated {
			t.Errorf("right after creation: Progressing %s", got)
		}
		c.Pass(10 * time.Second)
		d = ct.Get[*appsv1.Deployment](c, ns, "web")
		if !finished(d) || progressing(c) != reasonAvailable || d.Annotations[revisionAnnotation] != "1" || d.Generation != 1 {
			t.Fatalf("first rollout: status %+v, annotations %v, generation %d", d.Status, d.Annotations, d.Generation)
		}
		if a := conditionOf(&d.Status, appsv1.DeploymentAvailable); a == nil || a.Status != corev1.ConditionTrue || a.Reason != reasonMinimum {
			t.Errorf("Available: %+v", a)
		}

		// A rolling update never has fewer than 3 available (25 % of 4 may be missing) nor more than 5 pods.
		edit(c, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.Containers[0].Image = "v2"
			d.Annotations["kubernetes.io/change-cause"] = "second"
		})
		for range 60 {
			c.Pass(500 * time.Millisecond)
			running, available := 0, 0
			for _, p := range ct.All[*corev1.Pod](c, ns) {
				if p.DeletionTimestamp == nil {
					running++
					if len(p.Status.Conditions) > 1 {
						available++
					}
				}
			}
			if running > 5 || available < 3 {
				t.Fatalf("in the middle: %d pods, %d available (%s)", running, available, state(c))
			}
		}
		d = ct.Get[*appsv1.Deployment](c, ns, "web")
		if !finished(d) || state(c) != "v1=0 v2=4" || d.Annotations[revisionAnnotation] != "2" {
			t.Fatalf("second rollout: %s, status %+v", state(c), d.Status)
		}

		// kubectl rollout undo: the old template without the hash label, and the old ReplicaSet's annotations.
		old := replicaSetOf(c, "v1")
		if old.Annotations["kubernetes.io/change-cause"] != "first" || old.Annotations[revisionAnnotation] != "1" {
			t.Errorf("history of the old ReplicaSet: %v", old.Annotations)
		}
		edit(c, func(d *appsv1.Deployment) {
			tmpl := *old.Spec.Template.DeepCopy()
			delete(tmpl.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
			d.Spec.Template = tmpl
			d.Annotations["kubernetes.io/change-cause"] = "first"
		})
		c.Pass(30 * time.Second)
		if state(c) != "v1=4 v2=0" {
			t.Fatalf("after undo: %s", state(c))
		}
		old = replicaSetOf(c, "v1")
		if old.Annotations[revisionAnnotation] != "3" || old.Annotations[revisionHistoryAnnotation] != "1" {
			t.Errorf("after undo the ReplicaSet has annotations %v", old.Annotations)
		}
		if d = ct.Get[*appsv1.Deployment](c, ns, "web"); d.Annotations[revisionAnnotation] != "3" {
			t.Errorf("after undo the Deployment has revision %s", d.Annotations[revisionAnnotation])
		}
		if events := c.Events("ScalingReplicaSet"); !slices.ContainsFunc(events, func(m string) bool { return strings.HasPrefix(m, "Scaled up replica set web-") }) {
			t.Errorf("events %q", events)
		}
	})
}

func TestPauseAndResume(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, web(2))
		c.Pass(10 * time.Second)
		edit(c, func(d *appsv1.Deployment) { d.Spec.Paused = true })
		c.Settle()
		image(c, "v2")
		c.Pass(time.Hour)
		if state(c) != "v1=2" || progressing(c) != reasonPaused {
			t.Errorf("paused: %s, %s", state(c), progressing(c))
		}
		edit(c, func(d *appsv1.Deployment) { n := int32(5); d.Spec.Replicas = &n })
		c.Pass(10 * time.Second)
		if state(c) != "v1=5" {
			t.Errorf("scaled while paused: %s", state(c))
		}
		edit(c, func(d *appsv1.Deployment) { d.Spec.Paused = false })
		c.Pass(time.Minute)
		if state(c) != "v1=0 v2=5" || progressing(c) != reasonAvailable {
			t.Errorf("resumed: %s, %s", state(c), progressing(c))
		}
	})
}

func TestStuckRollout(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		d := web(3)
		deadline := int32(60)
		d.Spec.ProgressDeadlineSeconds = &deadline
		ct.Make(c, d)
		c.Pass(10 * time.Second)
		image(c, "broken")
		c.Pass(50 * time.Second)
		if got := progressing(c); got != reasonUpdated && got != reasonNewReplicaSet {
			t.Errorf("before the deadline: %s", got)
		}
		c.Pass(30 * time.Second)
		if got := progressing(c); got != reasonTimedOut {
			t.Errorf("after the deadline: %s", got)
		}
		if s := state(c); s != "broken=1 v1=3" {
			t.Errorf("a broken image took healthy pods: %s", s)
		}
		image(c, "v2")
		c.Pass(time.Minute)
		if state(c) != "broken=0 v1=0 v2=3" || progressing(c) != reasonAvailable {
			t.Errorf("after the repair: %s, %s", state(c), progressing(c))
		}
	})
}

func TestRecreateHasNoOverlap(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		d := web(3)
		d.Spec.Strategy.Type = appsv1.RecreateDeploymentStrategyType
		ct.Make(c, d)
		c.Pass(10 * time.Second)
		image(c, "v2")
		for range 40 {
			c.Pass(250 * time.Millisecond)
			images := map[string]bool{}
			for _, p := range ct.All[*corev1.Pod](c, ns) {
				images[p.Spec.Containers[0].Image] = true
			}
			if len(images) > 1 {
				t.Fatal("pods of both templates at once")
			}
		}
		if state(c) != "v1=0 v2=3" {
			t.Errorf("at the end: %s", state(c))
		}
	})
}

func TestHistoryLimit(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		d := web(1)
		two := int32(2)
		d.Spec.RevisionHistoryLimit = &two
		ct.Make(c, d)
		for i := 2; i <= 5; i++ {
			c.Pass(20 * time.Second)
			image(c, fmt.Sprintf("v%d", i))
		}
		c.Pass(20 * time.Second)
		if got := state(c); got != "v3=0 v4=0 v5=1" {
			t.Errorf("kept %s, want the newest two of the old ones", got)
		}
	})
}

func TestHashCollision(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		d := ct.Make(c, web(1))
		other := newReplicaSet(d, "")
		other.OwnerReferences = nil
		other.Labels = map[string]string{"app": "stranger"}
		other.Spec.Selector = ct.Selector("stranger")
		other.Spec.Template = ct.Template("stranger", "v1")
		ct.Make(c, other)
		start(c)
		c.Pass(10 * time.Second)
		d = ct.Get[*appsv1.Deployment](c, ns, "web")
		if !finished(d) || d.Status.CollisionCount == nil || *d.Status.CollisionCount != 1 {
			t.Errorf("status %+v, want one collision and a finished rollout", d.Status)
		}
	})
}

func TestScaleInTheMiddle(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		d := web(10)
		ct.Make(c, d)
		c.Pass(10 * time.Second)
		image(c, "broken") // stands still at 3 new, 8 old
		c.Pass(20 * time.Second)
		before := state(c)
		edit(c, func(d *appsv1.Deployment) { n := int32(20); d.Spec.Replicas = &n })
		c.Pass(20 * time.Second)
		if after := state(c); after != "broken=10 v1=15" {
			t.Errorf("%s scaled to 20 became %s", before, after)
		}
	})
}

func TestRestartsInTheMiddle(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, web(6))
		for i := range 12 {
			stop := start(c)
			c.Pass(time.Duration(i) * 300 * time.Millisecond)
			if i == 5 {
				image(c, "v2")
			}
			stop()
		}
		start(c)
		c.Pass(time.Minute)
		if d := ct.Get[*appsv1.Deployment](c, ns, "web"); !finished(d) || state(c) != "v1=0 v2=6" {
			t.Errorf("%s, status %+v", state(c), d.Status)
		}
	})
}

func TestDefaultsAreNotATemplateChange(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, web(1))
		c.Pass(10 * time.Second)
		edit(c, func(d *appsv1.Deployment) { d.Annotations["team"] = "a" })
		c.Pass(10 * time.Second)
		if state(c) != "v1=1" || replicaSetOf(c, "v1").Annotations["team"] != "a" {
			t.Errorf("%s with annotations %v", state(c), replicaSetOf(c, "v1").Annotations)
		}
		d := ct.Get[*appsv1.Deployment](c, ns, "web")
		if d.Status.ObservedGeneration != d.Generation {
			t.Errorf("observed generation %d of %d", d.Status.ObservedGeneration, d.Generation)
		}
	})
}
