package node

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/ledger"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/task"
)

func (a *Agent) diskUsed() (int, error) { return machine.DiskUsedPercent(a.cfg.DataDir) }

// lookForEvictions looks in the background whether pods have to go, once at a time: adding up what pods have on disk may take longer than a lease lasts.
func (a *Agent) lookForEvictions(ctx context.Context, now time.Time) {
	if !a.evicting.CompareAndSwap(false, true) {
		return
	}
	if !a.tasks.Go(func() { defer a.evicting.Store(false); a.evict(ctx, now) }) {
		a.evicting.Store(false)
	}
}

// evict ends pods that have more on disk than they may, and, while memory or disk run short, one pod after the other.
func (a *Agent) evict(ctx context.Context, now time.Time) {
	workers := a.allWorkers()
	if len(workers) == 0 {
		return
	}
	a.evictOverDisk(ctx, workers, now)
	s := lifecycle.Short(machine.Rooms(a.cfg.DataDir, a.capacity.Memory().Value()))
	if s.Disk != "" {
		// What nobody uses goes first. collect stops by itself once there is room again.
		a.warn("removing unused images", task.Quiet(ctx, a.images.Collect(ctx, a.pods(), 0, a.cfg.ImageGCLow, a.diskUsed)))
		s = lifecycle.Short(machine.Rooms(a.cfg.DataDir, a.capacity.Memory().Value()))
	}
	if s.Memory == "" && s.Disk == "" || evicting(workers) {
		return
	}
	name, of := corev1.ResourceMemory, a.memoryUse
	if s.Memory == "" {
		name, of = corev1.ResourceEphemeralStorage, func(w *worker) uint64 { u := a.podDisk(ctx, w, now).ephemeral(w.podNow()); return u.Bytes }
	}
	a.evictOne(ctx, workers, name, of)
}

// evictOverDisk ends pods that exceed what they may have on disk.
func (a *Agent) evictOverDisk(ctx context.Context, workers []*worker, now time.Time) {
	for _, w := range workers {
		pod := w.podNow()
		if !lifecycle.LimitsDisk(pod) || !w.runs() {
			continue
		}
		d := a.podDisk(ctx, w, now)
		use := lifecycle.DiskUse{EmptyDirs: map[string]uint64{}, Containers: map[string]uint64{}}
		for name, u := range d.volumes {
			if !u.Memory {
				use.EmptyDirs[name] = u.Bytes
			}
		}
		for name, u := range d.layers {
			use.Containers[name] += u.Bytes
		}
		for name, u := range d.logs {
			use.Containers[name] += u.Bytes
		}
		if why := lifecycle.OverDisk(pod, use); why != "" {
			w.fail(why)
		}
	}
}

// evictOne ends the pod that should go first for the sake of a resource.
func (a *Agent) evictOne(ctx context.Context, workers []*worker, name corev1.ResourceName, use func(*worker) uint64) {
	var all []lifecycle.Candidate
	byPod := map[*corev1.Pod]*worker{}
	for _, w := range workers {
		if !w.runs() {
			continue
		}
		pod := w.podNow()
		requests := ledger.Requests(pod)
		wanted := requests[name]
		all, byPod[pod] = append(all, lifecycle.Candidate{Pod: pod, Use: use(w), Wanted: uint64(wanted.Value())}), w
	}
	victim := lifecycle.Victim(all)
	if victim == nil {
		a.log.Warn("something runs short, and no pod can go", "resource", name)
		return
	}
	why := fmt.Sprintf("The node was low on resource: %s. ", name)
	_, err := client.Mutate(ctx, a.cfg.Client, byPod[victim].key, "status", func(p *corev1.Pod) bool {
		if p.UID != victim.UID {
			return false
		}
		for i := range p.Status.Conditions {
			if p.Status.Conditions[i].Type == corev1.DisruptionTarget {
				return false
			}
		}
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: corev1.PodReasonTerminationByKubelet, Message: why, LastTransitionTime: metav1.Now(), ObservedGeneration: p.Generation})
		return true
	})
	a.warn("telling that a pod is evicted", task.Quiet(ctx, err), "pod", byPod[victim].key)
	byPod[victim].fail(why)
}

func (a *Agent) memoryUse(w *worker) uint64 {
	u, err := a.cgroups.PodUsage(string(w.uid))
	if err != nil {
		return 0
	}
	return u.WorkingSet
}

// evicting tells whether a pod that was evicted has not ended yet: what it held will be free soon.
func evicting(workers []*worker) bool {
	for _, w := range workers {
		w.mu.Lock()
		ending := w.mem.Failure != nil && w.mem.Failure.Reason == lifecycle.ReasonEvicted && !w.mem.TornDown
		w.mu.Unlock()
		if ending {
			return true
		}
	}
	return false
}

// runs tells whether the pod has something to lose.
func (w *worker) runs() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.admitted && w.mem.Failure == nil && w.mem.Terminating.IsZero() && !w.mem.Gone && w.obs != nil && len(w.obs.Sandboxes) > 0
}

// fail evicts the pod, at once.
func (w *worker) fail(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem.Failure != nil || w.mem.Gone || !w.mem.Terminating.IsZero() {
		return
	}
	w.mem.Failure, w.mem.Hurry = &lifecycle.Failure{Reason: lifecycle.ReasonEvicted, Message: why}, true
	w.a.log.Warn("pod evicted", "pod", w.key, "why", why)
	w.a.events.Warning(w.pod, "", lifecycle.ReasonEvicted, why)
	w.notifyLocked()
}
