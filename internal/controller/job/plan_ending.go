package job

import (
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// condition returns a condition that is true.
func condition(which batchv1.JobConditionType, reason, message string, now time.Time) *batchv1.JobCondition {
	t := metav1.NewTime(now)
	return &batchv1.JobCondition{Type: which, Status: corev1.ConditionTrue, LastProbeTime: t, LastTransitionTime: t, Reason: reason, Message: message}
}

// find returns the condition of a type, or nil.
func find(conditions []batchv1.JobCondition, which batchv1.JobConditionType) *batchv1.JobCondition {
	for i := range conditions {
		if conditions[i].Type == which {
			return &conditions[i]
		}
	}
	return nil
}

// ending returns why the job ends, or nil. What was found out before stands; failures come before success, as upstream has it.
func (f *facts) ending(start *metav1.Time, now time.Time) *batchv1.JobCondition {
	if c := find(f.job.Status.Conditions, batchv1.JobSuccessCriteriaMet); c != nil && c.Status == corev1.ConditionTrue {
		return c
	}
	if c := find(f.job.Status.Conditions, batchv1.JobFailureTarget); c != nil && c.Status == corev1.ConditionTrue {
		return condition(batchv1.JobFailed, c.Reason, c.Message, now)
	}
	if reason, message := f.failure(start, now); reason != "" {
		return condition(batchv1.JobFailureTarget, reason, message, now)
	}
	if message := succeeds(f.job.Spec.SuccessPolicy, f.completions, f.done); message != "" {
		return condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonSuccessPolicy, message, now)
	}
	return nil
}

// failure returns why the job has failed, or nothing.
func (f *facts) failure(start *metav1.Time, now time.Time) (reason, message string) {
	spec := f.job.Spec
	if spec.PodFailurePolicy != nil {
		for _, p := range f.pods {
			if failed(f.job, p) {
				if v := judge(f.job, p); v.message != "" {
					return batchv1.JobReasonPodFailurePolicy, v.message
				}
			}
		}
	}
	switch limit := spec.ActiveDeadlineSeconds; {
	case f.failed > *spec.BackoffLimit || f.restartedTooOften():
		return batchv1.JobReasonBackoffLimitExceeded, "Job has reached the specified backoff limit"
	case limit != nil && start != nil && !suspended(f.job) && deadline(f.job, start, now) <= 0:
		return batchv1.JobReasonDeadlineExceeded, "Job was active longer than specified deadline"
	case !perIndex(f.job):
	case spec.MaxFailedIndexes != nil && f.lost.total() > int(*spec.MaxFailedIndexes):
		return batchv1.JobReasonMaxFailedIndexesExceeded, "Job has exceeded the specified maximal number of failed indexes"
	case f.lost.total() > 0 && f.lost.total()+f.done.total() >= f.completions:
		return batchv1.JobReasonFailedIndexes, "Job has failed indexes"
	}
	return "", ""
}

// restartedTooOften reports whether containers that the kubelet starts again have used up the limit.
func (f *facts) restartedTooOften() bool {
	if f.job.Spec.Template.Spec.RestartPolicy != corev1.RestartPolicyOnFailure {
		return false
	}
	restarts := int32(0)
	for _, p := range f.pods {
		if p.Status.Phase != corev1.PodRunning && p.Status.Phase != corev1.PodPending {
			continue
		}
		for _, s := range p.Status.InitContainerStatuses {
			restarts += s.RestartCount
		}
		for _, s := range p.Status.ContainerStatuses {
			restarts += s.RestartCount
		}
	}
	return restarts >= max(*f.job.Spec.BackoffLimit, 1)
}

// deadline returns how long the job may still be active, or 0 if nothing limits it. What is not positive has passed.
func deadline(job *batchv1.Job, start *metav1.Time, now time.Time) time.Duration {
	if job.Spec.ActiveDeadlineSeconds == nil || start == nil || suspended(job) {
		return 0
	}
	return start.Add(amount.Seconds(*job.Spec.ActiveDeadlineSeconds)).Sub(now)
}

// complete reports whether enough pods have succeeded and none runs. Without a number one success is enough.
func (f *facts) complete() bool {
	return len(f.active) == 0 && (f.job.Spec.Completions == nil && f.succeeded > 0 ||
		f.job.Spec.Completions != nil && f.succeeded >= *f.job.Spec.Completions)
}

// suspension records that the job is suspended, or no longer. The time of its start is that of its last resumption.
func (f *facts) suspension(act *actions, now time.Time) {
	want := condition(batchv1.JobSuspended, "JobSuspended", "Job suspended", now)
	ev, start := event.Normal(f.job, "Suspended", "Job suspended"), (*metav1.Time)(nil)
	if !suspended(f.job) {
		want.Status, want.Reason, want.Message = corev1.ConditionFalse, "JobResumed", "Job resumed"
		ev, start = event.Normal(f.job, "Resumed", "Job resumed"), ptr.To(metav1.NewTime(now))
	}
	had := find(act.Status.Conditions, batchv1.JobSuspended)
	switch {
	case had == nil && want.Status == corev1.ConditionFalse: // it never was suspended
		return
	case had == nil:
		act.Status.Conditions = append(act.Status.Conditions, *want)
	case had.Status == want.Status && had.Reason == want.Reason && had.Message == want.Message:
		return
	default:
		*had = *want
	}
	act.Events, act.Status.StartTime = append(act.Events, ev), start
}
