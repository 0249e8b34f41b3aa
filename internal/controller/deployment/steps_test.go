package deployment

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
	"github.com/knarr-io/knarr/internal/controller/rollout"
)

const inSteps = `{strategy: canary, steps: [{weight: 20}, {pause: 1m}, {weight: 60}, {pause: untilPromoted}]}`

// rolledOut makes a Deployment of n pods of v1 that is to be rolled out as text says.
func rolledOut(c *ct.Cluster, n int32, text string) {
	d := web(n)
	d.Annotations = map[string]string{spec.How: text}
	deadline := int32(60)
	d.Spec.ProgressDeadlineSeconds = &deadline
	ct.Make(c, d)
	c.Pass(20 * time.Second)
}

func ask(c *ct.Cluster, action string) {
	edit(c, func(d *appsv1.Deployment) { d.Annotations[spec.Action] = action })
}

// at waits and compares the ReplicaSets, and the conditions Progressing and knarr.io/Rollout.
func at(c *ct.Cluster, wait time.Duration, want string) {
	c.T.Helper()
	c.Pass(wait)
	d := ct.Get[*appsv1.Deployment](c, ns, "web")
	got := state(c) + " " + progressing(c)
	message := ""
	if p := conditionOf(&d.Status, conditionRollout); p != nil {
		got, message = got+" "+p.Reason, p.Message
	}
	if got != want {
		c.T.Fatalf("%s (%s), want %s", got, message, want)
	}
}

func TestACanaryGoesThroughItsSteps(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		rolledOut(c, 5, inSteps)
		at(c, 0, "v1=5 NewReplicaSetAvailable Ready")
		image(c, "v2")
		at(c, 20*time.Second, "v1=4 v2=1 DeploymentPaused UnderWay")
		d := ct.Get[*appsv1.Deployment](c, ns, "web")
		if finished(d) || d.Status.UpdatedReplicas != 1 || d.Status.AvailableReplicas != 5 {
			t.Errorf("kubectl rollout status takes it for finished: %+v", d.Status)
		}
		at(c, 2*time.Minute, "v1=2 v2=3 DeploymentPaused UnderWay")
		at(c, 24*time.Hour, "v1=2 v2=3 DeploymentPaused UnderWay")
		ask(c, spec.Promote)
		generation := ct.Get[*appsv1.Deployment](c, ns, "web").Generation
		at(c, time.Minute, "v1=0 v2=5 NewReplicaSetAvailable Ready")
		d = ct.Get[*appsv1.Deployment](c, ns, "web")
		if _, left := d.Annotations[spec.Action]; left || !finished(d) || d.Generation != generation {
			t.Errorf("at the end annotations %v, status %+v, generation %d", d.Annotations, d.Status, d.Generation)
		}
		if events := strings.Join(c.Events("Rollout"), "\n"); !strings.Contains(events, "At step 2 of 4 (pause: 1m)") || !strings.Contains(events, "The pause of step 4 of 4") ||
			!strings.Contains(events, "All pods are of the new revision") {
			t.Errorf("events:\n%s", events)
		}
	})
}

func TestACanaryThatFailsIsRolledBack(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		rolledOut(c, 5, inSteps)
		image(c, "broken")
		at(c, 30*time.Second, "broken=1 v1=4 ReplicaSetUpdated UnderWay")
		at(c, 50*time.Second, "broken=0 v1=5 ProgressDeadlineExceeded RolledBack")
		at(c, time.Hour, "broken=0 v1=5 ProgressDeadlineExceeded RolledBack")
		image(c, "v2")
		at(c, 20*time.Second, "broken=0 v1=4 v2=1 DeploymentPaused UnderWay")
		image(c, "broken") // comes back, and begins again
		at(c, 30*time.Second, "broken=1 v1=4 v2=0 ReplicaSetUpdated UnderWay")
		image(c, "v2")
		ask(c, spec.PromoteFull)
		at(c, time.Minute, "broken=0 v1=0 v2=5 NewReplicaSetAvailable Ready")
	})
}

// undo does what kubectl rollout undo does: the template, and the annotations, are those of the ReplicaSet of an image.
func undo(c *ct.Cluster, img string) {
	rs := replicaSetOf(c, img)
	edit(c, func(d *appsv1.Deployment) {
		tmpl := *rs.Spec.Template.DeepCopy()
		delete(tmpl.Labels, appsv1.DefaultDeploymentUniqueLabelKey)
		d.Spec.Template = tmpl
		annotations := map[string]string{revisionAnnotation: d.Annotations[revisionAnnotation]}
		for k, v := range rs.Annotations {
			if !strings.HasPrefix(k, "deployment.kubernetes.io/") {
				annotations[k] = v
			}
		}
		d.Annotations = annotations
	})
}

func TestUndoIsTheWayBack(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		ct.Make(c, web(5))
		c.Pass(20 * time.Second)
		edit(c, func(d *appsv1.Deployment) {
			d.Annotations[spec.How] = inSteps // with the new image, as a commit has both
			d.Spec.Template.Spec.Containers[0].Image = "v2"
		})
		at(c, 20*time.Second, "v1=4 v2=1 DeploymentPaused UnderWay")
		undo(c, "v1")
		at(c, time.Minute, "v1=5 v2=0 NewReplicaSetAvailable Ready")
		image(c, "v2")
		at(c, 20*time.Second, "v1=4 v2=1 DeploymentPaused UnderWay")
		ask(c, spec.PromoteFull)
		at(c, time.Minute, "v1=0 v2=5 NewReplicaSetAvailable Ready")
		undo(c, "v1") // it was stable before: no steps
		at(c, time.Minute, "v1=5 v2=0 NewReplicaSetAvailable Ready")
		undo(c, "v2")
		at(c, time.Minute, "v1=0 v2=5 NewReplicaSetAvailable Ready")
		d := ct.Get[*appsv1.Deployment](c, ns, "web")
		if _, has := d.Annotations[spec.State]; has || d.Annotations[spec.How] != inSteps {
			t.Errorf("undo left the Deployment with %v", slices.Sorted(maps.Keys(d.Annotations)))
		}
	})
}

func TestABrokenStableRevisionIsReplaced(t *testing.T) {
	for _, surge := range []string{"25%", "0"} {
		ct.Run(t, func(c *ct.Cluster) {
			start(c)
			d := deployment(5, surge, "1")
			d.ObjectMeta = metav1.ObjectMeta{Namespace: ns, Name: "web", Annotations: map[string]string{spec.How: inSteps}}
			d.Spec.Template.Spec.Containers[0].Image = "broken"
			ct.Make(c, d)
			c.Pass(time.Minute)
			image(c, "v2")
			at(c, 3*time.Minute, "broken=2 v2=3 DeploymentPaused UnderWay")
			ask(c, spec.Promote)
			at(c, time.Minute, "broken=0 v2=5 NewReplicaSetAvailable Ready")
		})
	}
}

func TestScalingAndNewTemplatesInACanary(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		rolledOut(c, 10, `{strategy: canary, steps: [{weight: 20}, {pause: untilPromoted}]}`)
		image(c, "v2")
		at(c, 20*time.Second, "v1=8 v2=2 DeploymentPaused UnderWay")
		scale := func(n int32) { edit(c, func(d *appsv1.Deployment) { d.Spec.Replicas = &n }) }
		scale(20)
		at(c, 20*time.Second, "v1=16 v2=4 DeploymentPaused UnderWay")
		scale(5)
		at(c, 20*time.Second, "v1=4 v2=1 DeploymentPaused UnderWay")
		image(c, "v3")
		at(c, 30*time.Second, "v1=4 v2=0 v3=1 DeploymentPaused UnderWay")
		edit(c, func(d *appsv1.Deployment) { d.Spec.Paused = true })
		at(c, time.Hour, "v1=4 v2=0 v3=1 DeploymentPaused UnderWay")
		edit(c, func(d *appsv1.Deployment) { d.Spec.Paused = false })
		at(c, 10*time.Second, "v1=4 v2=0 v3=1 DeploymentPaused UnderWay")
		ask(c, spec.Abort)
		at(c, 30*time.Second, "v1=5 v2=0 v3=0 ProgressDeadlineExceeded RolledBack")
		ask(c, spec.Retry)
		at(c, 30*time.Second, "v1=4 v2=0 v3=1 DeploymentPaused UnderWay")
		edit(c, func(d *appsv1.Deployment) { delete(d.Annotations, spec.How) })
		at(c, time.Minute, "v1=0 v2=0 v3=5 NewReplicaSetAvailable")
		image(c, "v4") // without steps
		at(c, time.Minute, "v1=0 v2=0 v3=0 v4=5 NewReplicaSetAvailable")
	})
}

func TestAMistakeStopsNoRollout(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		rolledOut(c, 5, `{strategy: canary, steps: [{wieght: 20}]}`)
		at(c, 0, "v1=5 NewReplicaSetAvailable InvalidAnnotation")
		image(c, "v2")
		at(c, time.Minute, "v1=0 v2=5 NewReplicaSetAvailable InvalidAnnotation")
		edit(c, func(d *appsv1.Deployment) { d.Annotations[spec.How] = inSteps })
		image(c, "v3")
		at(c, 20*time.Second, "v1=0 v2=4 v3=1 DeploymentPaused UnderWay")
		edit(c, func(d *appsv1.Deployment) { d.Annotations[spec.How] = "{strategy: canary}" })
		at(c, 3*time.Minute, "v1=0 v2=2 v3=3 DeploymentPaused InvalidAnnotation") // the last one that was right goes on
		edit(c, func(d *appsv1.Deployment) { d.Annotations[spec.How] = inSteps })
		ask(c, "go")
		at(c, time.Minute, "v1=0 v2=2 v3=3 DeploymentPaused InvalidAnnotation")
		ask(c, spec.Promote)
		at(c, time.Minute, "v1=0 v2=0 v3=5 NewReplicaSetAvailable Ready")
		ask(c, spec.Promote)
		c.Pass(time.Minute)
		if d := ct.Get[*appsv1.Deployment](c, ns, "web"); d.Annotations[spec.Action] != "" {
			t.Error("an action that cannot be done stays")
		}
	})
}

func TestAJobHasToSucceed(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		rolledOut(c, 5, `{strategy: canary, steps: [{weight: 20}, {job: smoke}]}`)
		image(c, "v2")
		at(c, 20*time.Second, "v1=4 v2=1 ReplicaSetUpdated UnderWay")
		suspended := true
		ct.Make(c, &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "smoke"}, Spec: batchv1.JobSpec{Suspend: &suspended, Template: corev1.PodTemplateSpec{
			Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "c", Image: "curl"}}}}}})
		at(c, 10*time.Second, "v1=4 v2=1 ReplicaSetUpdated UnderWay")
		hash := replicaSetOf(c, "v2").Labels[appsv1.DefaultDeploymentUniqueLabelKey]
		name := "web-" + hash + "-step-2"
		j := ct.Get[*batchv1.Job](c, ns, name)
		env := j.Spec.Template.Spec.Containers[0].Env
		if *j.Spec.Suspend || len(env) != 1 || env[0].Value != hash || j.OwnerReferences[0].Name != replicaSetOf(c, "v2").Name {
			t.Errorf("the Job is %+v", j)
		}
		end := func(name string, how batchv1.JobConditionType) {
			ct.Change(c, ns, name, "status", func(j *batchv1.Job) {
				now := metav1.Now()
				before := batchv1.JobSuccessCriteriaMet
				if how == batchv1.JobFailed {
					before = batchv1.JobFailureTarget
				}
				j.Status.StartTime = &now
				if how == batchv1.JobComplete {
					j.Status.CompletionTime = &now
				}
				for _, t := range []batchv1.JobConditionType{before, how} {
					j.Status.Conditions = append(j.Status.Conditions, batchv1.JobCondition{Type: t, Status: corev1.ConditionTrue, Message: "as the test says", LastTransitionTime: now})
				}
			})
		}
		end(name, batchv1.JobFailed)
		at(c, 20*time.Second, "v1=5 v2=0 ProgressDeadlineExceeded RolledBack")
		ask(c, spec.Retry)
		at(c, 20*time.Second, "v1=4 v2=1 ReplicaSetUpdated UnderWay")
		end(name+"-2", batchv1.JobComplete)
		at(c, time.Minute, "v1=0 v2=5 NewReplicaSetAvailable Ready")
	})
}

func TestFiguresOutOfBoundsRollBack(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		rolledOut(c, 5, `{strategy: canary, steps: [{weight: 20}, {pause: 5m}], checks: [{source: restarts, max: 1, for: 10s}]}`)
		image(c, "v2")
		at(c, time.Minute, "v1=4 v2=1 DeploymentPaused UnderWay")
		for _, p := range ct.All[*corev1.Pod](c, ns) {
			if p.Spec.Containers[0].Image == "v2" {
				ct.Change(c, ns, p.Name, "status", func(p *corev1.Pod) {
					p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "c", RestartCount: 2}}
				})
			}
		}
		at(c, time.Minute, "v1=5 v2=0 ProgressDeadlineExceeded RolledBack")
		d := ct.Get[*appsv1.Deployment](c, ns, "web")
		if m := conditionOf(&d.Status, conditionRollout).Message; !strings.Contains(m, "restarts is 2, more than 1") {
			t.Errorf("message %s", m)
		}
	})
}

func TestBlueGreenGoesOverAtOnce(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		start(c)
		rolledOut(c, 4, `{strategy: blueGreen, steps: [{pause: untilPromoted}], keepOld: 2m}`)
		off := func(img string) string { return replicaSetOf(c, img).Annotations[spec.Traffic] }
		image(c, "v2")
		at(c, 20*time.Second, "v1=4 v2=4 DeploymentPaused UnderWay")
		if off("v1") != "" || off("v2") != spec.PreviewOnly {
			t.Fatalf("before the switch: old %q, new %q", off("v1"), off("v2"))
		}
		ask(c, spec.Promote)
		at(c, 20*time.Second, "v1=4 v2=4 ReplicaSetUpdated UnderWay")
		if off("v1") != spec.Off || off("v2") != "" {
			t.Fatalf("after the switch: old %q, new %q", off("v1"), off("v2"))
		}
		ask(c, spec.Abort)
		at(c, 20*time.Second, "v1=4 v2=0 ProgressDeadlineExceeded RolledBack")
		if off("v1") != "" {
			t.Fatal("Services were not brought back")
		}
		ask(c, spec.PromoteFull)
		at(c, 5*time.Minute, "v1=0 v2=4 NewReplicaSetAvailable Ready")
		if off("v1") != "" || off("v2") != "" {
			t.Errorf("at the end: old %q, new %q", off("v1"), off("v2"))
		}
		undo(c, "v1")
		at(c, time.Minute, "v1=4 v2=4 ReplicaSetUpdated UnderWay")
		if off("v1") != "" || off("v2") != spec.Off {
			t.Errorf("on the way back: v1 %q, v2 %q", off("v1"), off("v2"))
		}
		at(c, 3*time.Minute, "v1=4 v2=0 NewReplicaSetAvailable Ready")
	})
}

// Between the two writes of a switch there are pods behind the Services.
func TestNobodyIsWithoutTraffic(t *testing.T) {
	u := func(name, old, now string) update {
		rs := func(word string) *appsv1.ReplicaSet {
			return &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{spec.Traffic: word}}}
		}
		return update{rs(old), rs(now)}
	}
	updates := []update{u("other", "", ""), u("old", "", spec.Off), u("new", spec.PreviewOnly, "")}
	slices.SortStableFunc(updates, trafficFirst)
	if updates[0].old.Name != "new" || updates[1].old.Name != "other" {
		t.Errorf("first %s, then %s", updates[0].old.Name, updates[1].old.Name)
	}
}

// failing is a client whose writes fail after a number of them, as those of a process that was killed.
type failing struct {
	client.Client
	after int
}

func (f *failing) gone() bool {
	f.after--
	return f.after < 0
}

func (f *failing) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	if f.gone() {
		return nil, context.Canceled
	}
	return f.Client.Create(ctx, obj)
}

func (f *failing) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	if f.gone() {
		return nil, context.Canceled
	}
	return f.Client.Update(ctx, obj, sub)
}

// A controller that is killed after any of its writes leaves nothing that the next one cannot go on from, and what was asked for is done
// once.
func TestRestartBetweenAnyTwoWrites(t *testing.T) {
	const twoPauses = `{strategy: canary, steps: [{weight: 25}, {pause: untilPromoted}, {weight: 50}, {pause: untilPromoted}]}`
	for kill := 1; kill < 30; kill++ {
		ct.Run(t, func(c *ct.Cluster) {
			front := &failing{Client: c.Client, after: kill}
			c.Start(replicaset.New(c.Client), ct.Kubelet(c.Client, time.Second, time.Second))
			d := web(4)
			d.Annotations = map[string]string{spec.How: twoPauses}
			ct.Make(c, d)
			r := New(front, nil)
			step := func(rounds int) {
				for range rounds {
					if front.after <= 0 {
						front.after = 1 << 30
						r = New(front, nil) // a new process, without memories
					}
					_, _ = r.Reconciler.Reconcile(context.Background(), api.Key{Namespace: ns, Name: "web"})
					c.Pass(time.Second)
				}
			}
			step(6)
			image(c, "v2")
			step(15)
			if got := state(c); got != "v1=3 v2=1" {
				t.Errorf("killed after %d writes: %s in the first pause", kill, got)
			}
			ask(c, spec.Promote)
			step(15)
			if got := state(c); got != "v1=2 v2=2" {
				t.Errorf("killed after %d writes: %s in the second pause", kill, got)
			}
			ask(c, spec.Promote)
			step(20)
			var st rollout.State
			err := json.Unmarshal([]byte(replicaSetOf(c, "v2").Annotations[spec.State]), &st)
			if d := ct.Get[*appsv1.Deployment](c, ns, "web"); state(c) != "v1=0 v2=4" || !finished(d) || progressing(c) != reasonAvailable || err != nil || st.Phase != rollout.Promoted {
				t.Errorf("killed after %d writes: %s, %s, %+v", kill, state(c), progressing(c), st)
			}
		})
	}
}
