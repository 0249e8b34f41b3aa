package job

import (
	"cmp"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// observed is what a plan is made from.
type observed struct {
	pods    []*corev1.Pod // those of the job that it has not done with
	backoff backoff       // from the failures that are counted already
	// ending is why the job ends, where that was decided before its pods were deleted; they do not change it.
	ending *batchv1.JobCondition
	// stopped are the pods that were deleted then, which is no failure of theirs.
	stopped map[types.UID]bool
}

// actions is what to do about a Job, in this order: pods first; if there were any, the job is observed and planned again, and of that plan
// status, untracking and final status are carried out.
type actions struct {
	Delete []*corev1.Pod
	// Uncounted reports that the pods to delete are too many rather than failed: their finalizer goes first.
	Uncounted bool
	Create    []slot
	Ending    *batchv1.JobCondition

	// Status is written before pods are untracked, so that those that it names are never forgotten and never counted twice (KEP-2307).
	Status  batchv1.JobStatus
	Untrack []*corev1.Pod      // whose finalizer is to be removed once Status is written
	Tracked map[types.UID]bool // the pods that have it before
	Final   *batchv1.JobCondition
	More    bool // there are more pods to count than one step does
	// Judged counts the pods to untrack for whose failure the failure policy had an action, by action.
	Judged map[batchv1.PodFailurePolicyAction]int
	Events []event.Event

	Backoff backoff // to be remembered once Status is written
	After   time.Duration
}

// facts is a job and its pods, counted.
type facts struct {
	job         *batchv1.Job
	completions int // of an indexed job; 0 for others
	pods        []*corev1.Pod
	active      []*corev1.Pod
	terminating int32

	freshSucceeded, freshFailed []*corev1.Pod // not in the status yet
	succeeded, failed           int32         // with those

	uncountedSucceeded, uncountedFailed map[types.UID]bool

	counted, done indexes             // succeeded: in the status, and with fresh ones
	lost          indexes             // failed for good, with fresh ones; of a job with a limit per index
	held          map[int]*corev1.Pod // the last failed pod of each index that has no successor yet; likewise
	backoff       backoff
	stopped       map[types.UID]bool // deleted because the job ends
}

func indexed(job *batchv1.Job) bool {
	return job.Spec.CompletionMode != nil && *job.Spec.CompletionMode == batchv1.IndexedCompletion
}

func perIndex(job *batchv1.Job) bool { return job.Spec.BackoffLimitPerIndex != nil }

func suspended(job *batchv1.Job) bool { return ptr.Deref(job.Spec.Suspend, false) }

func tracked(pod *corev1.Pod) bool {
	return slices.Contains(pod.Finalizers, batchv1.JobTrackingFinalizer)
}

// finished reports whether the job is Complete or Failed.
func finished(job *batchv1.Job) bool {
	return slices.ContainsFunc(job.Status.Conditions, func(c batchv1.JobCondition) bool {
		return (c.Type == batchv1.JobComplete || c.Type == batchv1.JobFailed) && c.Status == corev1.ConditionTrue
	})
}

// managed reports whether this controller is the one that the job asks for (KEP-4368).
func managed(job *batchv1.Job) bool {
	return ptr.Deref(job.Spec.ManagedBy, batchv1.JobControllerName) == batchv1.JobControllerName
}

// index returns the completion index of a pod of the job.
func (f *facts) index(pod *corev1.Pod) int { return indexOf(pod, f.completions) }

// look counts the pods of job.
func look(job *batchv1.Job, obs observed) *facts {
	f := &facts{job: job, pods: slices.Clone(obs.pods), stopped: obs.stopped, uncountedSucceeded: map[types.UID]bool{}, uncountedFailed: map[types.UID]bool{}}
	if u := job.Status.UncountedTerminatedPods; u != nil {
		for _, uid := range u.Succeeded {
			f.uncountedSucceeded[uid] = true
		}
		for _, uid := range u.Failed {
			f.uncountedFailed[uid] = true
		}
	}
	if indexed(job) {
		f.completions = int(*job.Spec.Completions)
		slices.SortStableFunc(f.pods, func(a, b *corev1.Pod) int { return cmp.Compare(f.index(a), f.index(b)) })
	}
	ignored := int32(0)
	for _, p := range f.pods {
		switch {
		case podstate.Active(p):
			f.active = append(f.active, p)
		case podstate.Terminating(p):
			f.terminating++
		}
		if !tracked(p) || indexed(job) && f.index(p) == noIndex {
			continue
		}
		switch {
		case p.Status.Phase == corev1.PodSucceeded && !f.uncountedSucceeded[p.UID]:
			f.freshSucceeded = append(f.freshSucceeded, p)
		case failed(job, p) && !f.uncountedFailed[p.UID]:
			f.freshFailed = append(f.freshFailed, p)
			if !judge(job, p).counts() {
				ignored++
			}
		}
	}
	f.succeeded = job.Status.Succeeded + int32(len(f.freshSucceeded)+len(f.uncountedSucceeded))
	f.failed = job.Status.Failed + int32(len(f.freshFailed)+len(f.uncountedFailed)) - ignored
	if indexed(job) {
		f.lookAtIndexes()
	}
	f.backoff = obs.backoff.with(f.freshSucceeded, f.freshFailed)
	return f
}

// hasFailed reports whether a pod has failed, and not only been stopped because the job ends.
func (f *facts) hasFailed(pod *corev1.Pod) bool {
	return failed(f.job, pod) && !f.stopped[pod.UID]
}

// lookAtIndexes finds the indexes that have succeeded or failed.
func (f *facts) lookAtIndexes() {
	f.counted = parseIndexes(f.job.Status.CompletedIndexes, f.completions)
	var fresh []int
	for _, p := range f.freshSucceeded {
		fresh = append(fresh, f.index(p))
	}
	f.done = f.counted.union(indexSet(fresh))
	f.succeeded = int32(f.done.total())
	if !perIndex(f.job) {
		return
	}
	var lost []int
	for _, p := range f.pods {
		if i := f.index(p); i != noIndex && tracked(p) && f.losesIndex(p) {
			lost = append(lost, i)
		}
	}
	f.lost = parseIndexes(ptr.Deref(f.job.Status.FailedIndexes, ""), f.completions).union(indexSet(lost))
	settled := f.done.union(f.lost, f.indexesOf(f.active))
	f.held = map[int]*corev1.Pod{}
	for _, p := range f.pods {
		i := f.index(p)
		if i == noIndex || !tracked(p) || !failed(f.job, p) || settled.has(i) {
			continue
		}
		if had := f.held[i]; had == nil || tries(had) <= tries(p) && !endOf(p).Before(endOf(had)) {
			f.held[i] = p
		}
	}
}

// losesIndex reports whether the failure of a pod is the end of its index (KEP-3850).
func (f *facts) losesIndex(pod *corev1.Pod) bool {
	if !f.hasFailed(pod) {
		return false
	}
	v := judge(f.job, pod)
	return v.action == batchv1.PodFailurePolicyActionFailIndex || v.counts() && failures(pod) >= *f.job.Spec.BackoffLimitPerIndex
}

func (f *facts) indexesOf(pods []*corev1.Pod) indexes {
	var out []int
	for _, p := range pods {
		if i := f.index(p); i != noIndex {
			out = append(out, i)
		}
	}
	return indexSet(out)
}

func (f *facts) ready() (n int32) {
	for _, p := range f.active {
		if podstate.Ready(p) {
			n++
		}
	}
	return n
}

// plan compares a job that has not finished, and that this controller manages, with its pods.
func plan(job *batchv1.Job, obs observed, now time.Time) actions {
	f := look(job, obs)
	act := actions{Status: *job.Status.DeepCopy(), Backoff: obs.backoff}
	if act.Status.UncountedTerminatedPods == nil {
		act.Status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{}
	}
	if act.Status.StartTime == nil && !suspended(job) {
		act.Status.StartTime = ptr.To(metav1.NewTime(now))
	}
	end := obs.ending
	if end == nil {
		end = f.ending(act.Status.StartTime, now)
	}
	switch {
	case end != nil:
		act.Ending, act.Delete = end, f.active
		if len(f.active) > 0 {
			end = nil // not before they are all being deleted
		}
	case job.DeletionTimestamp == nil:
		f.manage(&act, now)
		if f.complete() {
			end = condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods", now)
		} else {
			f.suspension(&act, now)
		}
	case f.complete():
		end = condition(batchv1.JobSuccessCriteriaMet, batchv1.JobReasonCompletionsReached, "Reached expected number of succeeded pods", now)
	}
	if end != nil && act.Status.StartTime == nil { // it was suspended all the time; the API refuses an end without a start
		act.Status.StartTime = ptr.To(metav1.NewTime(now))
	}
	if left := deadline(job, act.Status.StartTime, now); end == nil && left > 0 {
		act.After = soonest(act.After, left)
	}
	act.Status.Active, act.Status.Ready, act.Status.Terminating = int32(len(f.active)), ptr.To(f.ready()), ptr.To(f.terminating)
	f.track(&act, end, now)
	return act
}

// soonest returns the shorter of two waits, of which 0 is none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
