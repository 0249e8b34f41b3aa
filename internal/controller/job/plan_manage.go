package job

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/controller/podstate"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

// burst is how many pods one step creates or deletes at most, as in Kubernetes.
const burst = 500

// slot is a pod to make.
type slot struct {
	index    int         // noIndex where the job is not indexed
	replaces *corev1.Pod // the last failed pod of the index, where failures are counted for each
}

// manage decides which pods to delete, or which to make.
func (f *facts) manage(act *actions, now time.Time) {
	act.Uncounted = true
	if suspended(f.job) {
		act.Delete = f.active
		return
	}
	want := f.wanted()
	act.Delete = f.surplus(max(0, len(f.active)-want))
	if len(act.Delete) > burst {
		act.Delete = act.Delete[:burst]
	}
	if len(act.Delete) > 0 {
		return
	}
	n := want - len(f.active)
	if waitsForEnd(f.job) {
		n -= int(f.terminating)
	}
	if n <= 0 {
		return
	}
	if !perIndex(f.job) {
		if act.After = f.backoff.left(now); act.After > 0 {
			return
		}
	}
	f.fill(act, min(n, burst), now)
}

// wanted returns how many pods are to run. No more than there are completions to reach; and where one success is enough, no further ones
// after it.
func (f *facts) wanted() int {
	parallel := int(*f.job.Spec.Parallelism)
	switch {
	case f.job.Spec.Completions != nil:
		return max(0, min(parallel, int(*f.job.Spec.Completions-f.succeeded)))
	case f.succeeded > 0:
		return len(f.active)
	}
	return parallel
}

// fill plans n new pods: those of an indexed job for the first indexes that need one.
func (f *facts) fill(act *actions, n int, now time.Time) {
	if !indexed(f.job) {
		for range n {
			act.Create = append(act.Create, slot{index: noIndex})
		}
		return
	}
	taken := f.done.union(f.lost, f.indexesOf(f.active))
	if waitsForEnd(f.job) {
		ending := slices.DeleteFunc(slices.Clone(f.pods), func(p *corev1.Pod) bool { return !podstate.Terminating(p) })
		taken = taken.union(f.indexesOf(ending))
	}
	for _, i := range taken.missing(n, f.completions) {
		last := f.held[i]
		if last != nil {
			pause := backoff{failures: tries(last) + 1, last: endOf(last)}
			if left := pause.left(now); left > 0 {
				act.After = soonest(act.After, left)
				continue
			}
		}
		act.Create = append(act.Create, slot{index: i, replaces: last})
	}
}

// surplus returns at least n pods to delete: first those without an index that counts, and those that are not the only ones of theirs.
func (f *facts) surplus(n int) []*corev1.Pod {
	ranked := slices.Clone(f.active)
	workload.RankByAge(ranked)
	if !indexed(f.job) {
		return ranked[:n]
	}
	var doomed, rest []*corev1.Pod
	best := map[int]*corev1.Pod{}
	for _, p := range ranked {
		best[f.index(p)] = p // the last is the one to keep
	}
	for _, p := range ranked {
		if i := f.index(p); i == noIndex || best[i] != p {
			doomed = append(doomed, p)
		} else {
			rest = append(rest, p)
		}
	}
	if more := n - len(doomed); more > 0 {
		doomed = append(doomed, rest[:more]...)
	}
	return doomed
}
