package job

import (
	"math"
	"strconv"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func runs(i int, phase corev1.PodPhase) *corev1.Pod {
	text := strconv.Itoa(i)
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "a-" + text, UID: types.UID(text), Finalizers: []string{batchv1.JobTrackingFinalizer},
		Annotations: map[string]string{batchv1.JobCompletionIndexAnnotation: text, batchv1.JobIndexFailureCountAnnotation: "0"}}, Status: corev1.PodStatus{Phase: phase}}
}

func TestPodsStoppedByTheEndHaveNotFailed(t *testing.T) {
	job := newJob("a", 3, 3, byIndex, func(j *batchv1.Job) {
		j.Spec.BackoffLimit, j.Spec.BackoffLimitPerIndex, j.Spec.MaxFailedIndexes = ptr.To(int32(math.MaxInt32)), ptr.To(int32(0)), ptr.To(int32(0))
	})
	now := time.Now()
	pods := []*corev1.Pod{runs(0, corev1.PodFailed), runs(1, corev1.PodRunning), runs(2, corev1.PodRunning)}
	first := plan(job, observed{pods: pods}, now)
	if first.Ending == nil || len(first.Delete) != 2 {
		t.Fatalf("a job with more failed indexes than it allows ends by %+v and stops %d pods", first.Ending, len(first.Delete))
	}
	for _, p := range pods[1:] {
		p.DeletionTimestamp = &metav1.Time{Time: now}
	}
	second := plan(job, observed{pods: pods, ending: first.Ending, stopped: uids(first.Delete)}, now)
	if got := ptr.Deref(second.Status.FailedIndexes, ""); got != "0" {
		t.Errorf("the indexes %q have failed, want that of the pod that failed by itself", got)
	}
	won := condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, "", now)
	third := plan(job, observed{pods: pods[1:], ending: won, stopped: uids(pods[1:])}, now)
	if n := len(third.Status.UncountedTerminatedPods.Failed); n != 0 {
		t.Errorf("%d of the pods that were stopped because the job has succeeded count as failed", n)
	}
}

func TestAJobThatEndsWhileSuspendedHasAStart(t *testing.T) {
	job := newJob("a", 1, 1, func(j *batchv1.Job) { j.Spec.Suspend, j.Spec.BackoffLimit = ptr.To(true), ptr.To(int32(0)) })
	job.Status.Failed = 1
	act := plan(job, observed{}, time.Now())
	if act.Final == nil || act.Status.StartTime == nil {
		t.Errorf("it ends by %+v with the start %v; the API refuses an end without one", act.Final, act.Status.StartTime)
	}
}
