package upkeep

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/ledger"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/task"
)

func (k *Keeper) diskUsed() (int, error) { return machine.DiskUsedPercent(k.DataDir) }

// lookForEvictions looks in the background whether pods have to go, once at a time: adding up what pods have on disk may take longer than a lease lasts.
func (k *Keeper) lookForEvictions(ctx context.Context, now time.Time) {
	if !k.evicting.CompareAndSwap(false, true) {
		return
	}
	if !k.Tasks.Go(func() { defer k.evicting.Store(false); k.evict(ctx, now) }) {
		k.evicting.Store(false)
	}
}

// evict ends pods that have more on disk than they may, and, while memory or disk run short, one pod after the other.
func (k *Keeper) evict(ctx context.Context, now time.Time) {
	workers := k.Pods.All()
	if len(workers) == 0 {
		return
	}
	k.evictOverDisk(ctx, workers, now)
	s := lifecycle.Short(k.Rooms())
	if s.Disk != "" {
		// What nobody uses goes first. collect stops by itself once there is room again.
		k.warn("removing unused images", task.Quiet(ctx, k.Images.Collect(ctx, k.Pods.Pods(), 0, k.ImageGCLow, k.diskUsed)))
		s = lifecycle.Short(k.Rooms())
	}
	if s.Memory == "" && s.Disk == "" || evicting(workers) {
		return
	}
	name, of := corev1.ResourceMemory, k.memoryUse
	if s.Memory == "" {
		name, of = corev1.ResourceEphemeralStorage, func(w *pod.Worker) uint64 { u := k.Disks.Of(ctx, w, now).Ephemeral(w.Pod()); return u.Bytes }
	}
	k.evictOne(ctx, workers, name, of)
}

// evictOverDisk ends pods that exceed what they may have on disk.
func (k *Keeper) evictOverDisk(ctx context.Context, workers []*pod.Worker, now time.Time) {
	for _, w := range workers {
		p := w.Pod()
		if !lifecycle.LimitsDisk(p) || !w.Evictable() {
			continue
		}
		d := k.Disks.Of(ctx, w, now)
		use := lifecycle.DiskUse{EmptyDirs: map[string]uint64{}, Containers: map[string]uint64{}}
		for name, u := range d.Volumes {
			if !u.Memory {
				use.EmptyDirs[name] = u.Bytes
			}
		}
		for name, u := range d.Layers {
			use.Containers[name] += u.Bytes
		}
		for name, u := range d.Logs {
			use.Containers[name] += u.Bytes
		}
		if why := lifecycle.OverDisk(p, use); why != "" {
			w.Evict(why)
		}
	}
}

// evictOne ends the pod that should go first for the sake of a resource.
func (k *Keeper) evictOne(ctx context.Context, workers []*pod.Worker, name corev1.ResourceName, use func(*pod.Worker) uint64) {
	var all []lifecycle.Candidate
	byPod := map[*corev1.Pod]*pod.Worker{}
	for _, w := range workers {
		if !w.Evictable() {
			continue
		}
		p := w.Pod()
		requests := ledger.Requests(p)
		wanted := requests[name]
		all, byPod[p] = append(all, lifecycle.Candidate{Pod: p, Use: use(w), Wanted: uint64(amount.Units(wanted))}), w
	}
	victim := lifecycle.Victim(all)
	if victim == nil {
		k.Log.Warn("something runs short, and no pod can go", "resource", name)
		return
	}
	why := fmt.Sprintf("The node was low on resource: %s. ", name)
	_, err := client.Mutate(ctx, k.Client, byPod[victim].Key(), "status", func(p *corev1.Pod) bool {
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
	k.warn("telling that a pod is evicted", task.Quiet(ctx, err), "pod", byPod[victim].Key())
	byPod[victim].Evict(why)
}

func (k *Keeper) memoryUse(w *pod.Worker) uint64 {
	u, err := k.Cgroups.PodUsage(string(w.UID()))
	if err != nil {
		return 0
	}
	return u.WorkingSet
}

// evicting reports whether a pod that was evicted has not ended yet: what it held will be free soon.
func evicting(workers []*pod.Worker) bool {
	for _, w := range workers {
		if w.Evicting() {
			return true
		}
	}
	return false
}
