package job

import (
	"maps"
	"slices"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// maxUncounted is how many pods the status names at most while they are counted, which keeps it below some 20 KB.
const maxUncounted = 500

// track adds to the status of act the pods that have ended, and plans to remove their finalizers.
//
// A pod is counted in three writes, in this order (KEP-2307): its UID joins the uncounted ones in the status; its finalizer goes; its UID
// leaves and the counter rises. Whoever is interrupted between two of them finds in the status and the finalizers how far it got. A
// succeeded pod of an indexed job needs no UID: its index is in the status or not.
func (f *facts) track(act *actions, end *batchv1.JobCondition, now time.Time) {
	uids := map[types.UID]bool{}
	for _, p := range f.pods {
		if tracked(p) {
			uids[p.UID] = true
		}
	}
	act.Tracked = uids
	count(&act.Status, uids)
	uncounted := act.Status.UncountedTerminatedPods
	var done []int
	var fresh, lost []*corev1.Pod
	for _, p := range f.pods {
		if !tracked(p) || !f.releases(p, end) {
			continue
		}
		act.Untrack = append(act.Untrack, p)
		switch i := f.index(p); {
		case p.Status.Phase == corev1.PodSucceeded && !f.uncountedFailed[p.UID]:
			fresh = append(fresh, p)
			if indexed(f.job) && i != noIndex && !f.counted.has(i) {
				done = append(done, i)
			} else if !indexed(f.job) && !f.uncountedSucceeded[p.UID] {
				uncounted.Succeeded = append(uncounted.Succeeded, p.UID)
			}
		case f.countsAsFailed(p, end) && !f.uncountedFailed[p.UID] && (!indexed(f.job) || i != noIndex):
			lost = append(lost, p)
			v := judge(f.job, p)
			act.judged(v)
			if v.counts() {
				uncounted.Failed = append(uncounted.Failed, p.UID)
			}
		}
		if act.More = len(done)+len(uncounted.Succeeded)+len(uncounted.Failed) >= maxUncounted; act.More {
			break
		}
	}
	if indexed(f.job) {
		all := f.counted.union(indexSet(done))
		act.Status.CompletedIndexes, act.Status.Succeeded = all.String(), int32(all.total())
		if perIndex(f.job) {
			act.Status.FailedIndexes = ptr.To(f.lost.String())
		}
	}
	if !perIndex(f.job) {
		act.Backoff = act.Backoff.with(fresh, lost)
	}
	act.Final = announce(&act.Status, end, now)
}

// judged notes what the failure policy says of a pod that failed.
func (act *actions) judged(v verdict) {
	if v.action == "" {
		return
	}
	if act.Judged == nil {
		act.Judged = map[batchv1.PodFailurePolicyAction]int{}
	}
	act.Judged[v.action]++
}

// announce puts why the job ends into the status, and returns the condition that follows once all pods are counted.
func announce(status *batchv1.JobStatus, end *batchv1.JobCondition, now time.Time) *batchv1.JobCondition {
	if end == nil {
		return nil
	}
	final := batchv1.JobFailed
	switch end.Type {
	case batchv1.JobFailed:
		return end
	case batchv1.JobSuccessCriteriaMet:
		final = batchv1.JobComplete
	}
	if find(status.Conditions, end.Type) == nil {
		status.Conditions = append(status.Conditions, *end)
	}
	return condition(final, end.Reason, end.Message, now)
}

// releases reports whether the finalizer of a tracked pod may go: the pod has ended, or the job has. The last failed pod of an index is kept
// until its successor has taken over its number of failures.
func (f *facts) releases(pod *corev1.Pod, end *batchv1.JobCondition) bool {
	if f.job.DeletionTimestamp != nil || end != nil || pod.Status.Phase == corev1.PodSucceeded {
		return true
	}
	return failed(f.job, pod) && (!perIndex(f.job) || f.held[f.index(pod)] != pod)
}

// countsAsFailed reports whether a pod adds to the failures: it failed, or it runs while the job fails.
func (f *facts) countsAsFailed(pod *corev1.Pod, end *batchv1.JobCondition) bool {
	return f.hasFailed(pod) || end != nil && end.Type != batchv1.JobSuccessCriteriaMet
}

// count moves pods out of the uncounted ones into the counters, but for those that still have the finalizer.
func count(status *batchv1.JobStatus, tracked map[types.UID]bool) {
	still := func(uids []types.UID) []types.UID {
		var out []types.UID
		for _, uid := range uids {
			if tracked[uid] {
				out = append(out, uid)
			}
		}
		return out
	}
	u := status.UncountedTerminatedPods
	succeeded, failed := still(u.Succeeded), still(u.Failed)
	status.Succeeded += int32(len(u.Succeeded) - len(succeeded))
	status.Failed += int32(len(u.Failed) - len(failed))
	status.UncountedTerminatedPods = &batchv1.UncountedTerminatedPods{Succeeded: succeeded, Failed: failed}
}

// settledStatus returns the status after the finalizers of the pods of act are gone, but of those that are left. ended reports whether it ends the
// job: every pod is counted and none is still ending.
func settledStatus(act actions, status batchv1.JobStatus, left map[types.UID]bool) (settled batchv1.JobStatus, ended bool) {
	settled = *status.DeepCopy()
	tracked := maps.Clone(act.Tracked)
	for _, p := range act.Untrack {
		if !left[p.UID] {
			delete(tracked, p.UID)
		}
	}
	count(&settled, tracked)
	u := settled.UncountedTerminatedPods
	if act.Final == nil || act.More || len(tracked) > 0 || len(u.Succeeded)+len(u.Failed) > 0 || ptr.Deref(settled.Terminating, 0) > 0 {
		return settled, false
	}
	final := *act.Final
	settled.Conditions = slices.DeleteFunc(settled.Conditions, func(c batchv1.JobCondition) bool { return c.Type == final.Type })
	settled.Conditions = append(settled.Conditions, final)
	if final.Type == batchv1.JobComplete {
		settled.CompletionTime = ptr.To(final.LastTransitionTime)
	}
	return settled, true
}
