package api

import (
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/utils/ptr"
)

// jobStatusOptions is what validation refuses in the status of a job (KEP-4368): controllers of others write it, too. Only what a write
// changes is looked at, so that a status that is wrong already can be mended step by step.
func jobStatusOptions(j, old *batch.Job) batchvalidation.JobStatusValidationOptions {
	turned := func(which batch.JobConditionType) bool {
		return batchvalidation.IsConditionTrue(old.Status.Conditions, which) != batchvalidation.IsConditionTrue(j.Status.Conditions, which)
	}
	var (
		was, is   = old.Status, j.Status
		finished  = batchvalidation.IsJobFinished(old) != batchvalidation.IsJobFinished(j)
		complete  = batchvalidation.IsJobComplete(old) != batchvalidation.IsJobComplete(j)
		failed    = batchvalidation.IsJobFailed(old) != batchvalidation.IsJobFailed(j)
		completed = was.CompletedIndexes != is.CompletedIndexes
		indexes   = !ptr.Equal(was.FailedIndexes, is.FailedIndexes)
		active    = was.Active != is.Active
		started   = !ptr.Equal(was.StartTime, is.StartTime)
		ended     = !ptr.Equal(was.CompletionTime, is.CompletionTime)
		uncounted = !apiequality.Semantic.DeepEqual(was.UncountedTerminatedPods, is.UncountedTerminatedPods)
		indexed   = ptr.Deref(j.Spec.CompletionMode, batch.NonIndexedCompletion) == batch.IndexedCompletion
		nothing   = ptr.Deref(j.Spec.Suspend, false) && ptr.Deref(j.Spec.Completions, 1) == 0
		resuming  = batchvalidation.IsConditionTrue(was.Conditions, batch.JobSuspended) && batchvalidation.IsConditionFalse(is.Conditions, batch.JobSuspended)
	)
	return batchvalidation.JobStatusValidationOptions{
		// An indexed job whose parallelism and completions are equal can be made smaller.
		RejectDecreasingSucceededCounter:             !indexed || !ptr.Equal(j.Spec.Completions, j.Spec.Parallelism),
		RejectDecreasingFailedCounter:                true,
		RejectDisablingTerminalCondition:             true,
		RejectInvalidCompletedIndexes:                completed,
		RejectInvalidFailedIndexes:                   indexes,
		RejectCompletedIndexesForNonIndexedJob:       completed,
		RejectFailedIndexesForNoBackoffLimitPerIndex: indexes,
		RejectFailedIndexesOverlappingCompleted:      indexes || completed,
		RejectFailedJobWithoutFailureTarget:          failed || indexes,
		RejectCompleteJobWithoutSuccessCriteriaMet:   complete || turned(batch.JobSuccessCriteriaMet),
		RejectFinishedJobWithActivePods:              finished || active,
		RejectFinishedJobWithoutStartTime:            (finished || started) && !nothing,
		RejectFinishedJobWithUncountedTerminatedPods: finished || uncounted,
		RejectStartTimeUpdateForUnsuspendedJob:       started && !resuming,
		RejectCompletionTimeBeforeStartTime:          started || ended,
		RejectMutatingCompletionTime:                 true,
		RejectNotCompleteJobWithCompletionTime:       complete || ended,
		RejectCompleteJobWithoutCompletionTime:       complete || ended,
		RejectCompleteJobWithFailedCondition:         complete || failed,
		RejectCompleteJobWithFailureTargetCondition:  complete || turned(batch.JobFailureTarget),
		RejectMoreReadyThanActivePods:                !ptr.Equal(was.Ready, is.Ready) || active,
		RejectFinishedJobWithTerminatingPods:         finished || !ptr.Equal(was.Terminating, is.Terminating),
	}
}
