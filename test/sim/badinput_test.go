package sim

import (
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

func endlessJob(name string, change ...func(*batchv1.Job)) *batchv1.Job {
	t := setTemplate("")
	t.Labels, t.Spec.RestartPolicy = nil, corev1.RestartPolicyNever
	j := &batchv1.Job{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: batchv1.JobSpec{Completions: ptr.To[int32](1e9), Parallelism: ptr.To[int32](2), Template: t}}
	for _, c := range change {
		c(j)
	}
	return j
}

// TestBadInputIsRefused: what cannot be right is refused with Kubernetes' words for it.
func TestBadInputIsRefused(t *testing.T) {
	simulate(t, 0, func(w *world) {
		meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
		jobs := batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: endlessJob("").Spec.Template}}
		for want, o := range map[string]api.Object{
			`spec.schedule: Invalid value: "never"`:        &batchv1.CronJob{ObjectMeta: meta("a"), Spec: batchv1.CronJobSpec{Schedule: "never", JobTemplate: jobs}},
			`spec.timeZone: Invalid value: "Mars/Olympus"`: &batchv1.CronJob{ObjectMeta: meta("b"), Spec: batchv1.CronJobSpec{Schedule: "* * * * *", TimeZone: ptr.To("Mars/Olympus"), JobTemplate: jobs}},
			"`selector` does not match template `labels`":  &appsv1.Deployment{ObjectMeta: meta("c"), Spec: appsv1.DeploymentSpec{Selector: chosen("other"), Template: setTemplate("c")}},
			"empty selector is invalid for deployment":     &appsv1.Deployment{ObjectMeta: meta("d"), Spec: appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{}, Template: setTemplate("d")}},
			"spec.parallelism: Invalid value: 1000000000": endlessJob("e", func(j *batchv1.Job) {
				j.Spec.Parallelism, j.Spec.CompletionMode = j.Spec.Completions, ptr.To(batchv1.IndexedCompletion)
			}),
		} {
			if _, err := w.Create(w.ctx, o); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), want) {
				t.Errorf("creating %T %s: %v, want %q", o, o.GetName(), err, want)
			}
		}
		set := &appsv1.StatefulSet{ObjectMeta: meta("f"), Spec: appsv1.StatefulSetSpec{Replicas: ptr.To[int32](0), Selector: chosen("f"), Template: setTemplate("f")}}
		if _, err := w.Create(w.ctx, set); err != nil {
			t.Fatal(err)
		}
		_, err := client.Mutate(w.ctx, w.Client, api.KeyOf(set), "", func(s *appsv1.StatefulSet) bool {
			s.Spec.VolumeClaimTemplates = []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}}
			return true
		})
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.volumeClaimTemplates: ") {
			t.Errorf("changing the claim templates of a StatefulSet: %v", err)
		}
	})
}

// TestWhatCannotBeDoneIsNoHotLoop: what is accepted and cannot be done, or not soon, is tried again, but writes little meanwhile.
func TestWhatCannotBeDoneIsNoHotLoop(t *testing.T) {
	const minutes = 30
	simulate(t, 0, func(w *world) {
		w.nodes(0, 1)
		meta := func(name string) metav1.ObjectMeta { return metav1.ObjectMeta{Namespace: "default", Name: name} }
		for _, o := range []api.Object{
			&corev1.ResourceQuota{ObjectMeta: meta("full"), Spec: corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: pods(4)[corev1.ResourcePods]}}},
			// Its pods wait for a node: on a hollow one they would end at once, and 10^9 of them be made.
			endlessJob("endless", func(j *batchv1.Job) { j.Spec.Template.Spec.NodeSelector = map[string]string{"there": "none"} }),
			&appsv1.ReplicaSet{ObjectMeta: meta("first"), Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](1), Selector: chosen("same"), Template: setTemplate("same")}},
			&autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: meta("blind"), Spec: autoscalingv2.HorizontalPodAutoscalerSpec{MaxReplicas: 5,
				ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "first"}}},
		} {
			if _, err := w.Create(w.ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(20 * time.Second)
		// It selects the pod of the first one, which it leaves alone, and may have one of its own, where it wants two.
		second := &appsv1.ReplicaSet{ObjectMeta: meta("second"), Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](2), Selector: chosen("same"), Template: setTemplate("same")}}
		if _, err := w.Create(w.ctx, second); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.backend.counted()
		w.pass(minutes * time.Minute)
		for kind, n := range w.backend.counted() {
			// The node renews its Lease every ten seconds; what the leader writes has the condition that it leads ("knarr").
			if limit := map[string]int{"leases": minutes*6 + 1}[kind]; n > max(limit, 2*minutes) {
				t.Errorf("%d writes of %s in %d minutes", n, kind, minutes)
			}
		}
		for name, want := range map[string]int32{"first": 1, "second": 1} {
			rs, err := client.Get[*appsv1.ReplicaSet](w.ctx, w.Client, api.Key{Namespace: "default", Name: name})
			if err != nil || rs.Status.ReadyReplicas != want {
				t.Errorf("%s: %+v, %v; want %d ready", name, rs, err, want)
			}
		}
		hpa, err := client.Get[*autoscalingv2.HorizontalPodAutoscaler](w.ctx, w.Client, api.Key{Namespace: "default", Name: "blind"})
		if err != nil {
			t.Fatal(err)
		}
		active := ""
		for _, c := range hpa.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive {
				active = string(c.Status) + " " + c.Reason
			}
		}
		if active != "False FailedGetResourceMetric" {
			t.Errorf("the autoscaler of pods without requests is active: %s", active)
		}
	})
}
