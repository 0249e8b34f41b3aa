package pod

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Set is the pods of one node: a worker for each.
type Set struct {
	host  *Host
	users userNamespaces

	mu      sync.Mutex
	workers map[types.UID]*Worker
	byKey   map[api.Key]*Worker
	// synced is true once the API's pods are known.
	synced bool
	// runtime is what the runtime showed when everything in it was last listed; nil before.
	runtime *Listing
}

// Listing is what is found in the runtime when everything in it is listed.
type Listing struct {
	// Runtime is the runtime's name, the scheme of container IDs in pods' statuses: "containerd", "cri-o".
	Runtime string
	// RecursiveReadOnly reports whether each of its handlers can make mounts read-only with what is below them.
	RecursiveReadOnly bool
	// Pods are the names of the pods that have a sandbox, by UID: enough to end those that the API does not know.
	Pods map[types.UID]api.Key
}

// NewSet returns a set without pods.
func NewSet(host *Host) *Set {
	s := &Set{host: host, workers: map[types.UID]*Worker{}, byKey: map[api.Key]*Worker{}}
	s.users.load(host.Node.PodDir)
	return s
}

// All returns all workers.
func (s *Set) All() []*Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Worker, 0, len(s.workers))
	for _, w := range s.workers {
		out = append(out, w)
	}
	return out
}

// Pods returns the pods of all workers, as the API has them.
func (s *Set) Pods() []*corev1.Pod {
	all := s.All()
	out := make([]*corev1.Pod, len(all))
	for i, w := range all {
		out[i] = w.Pod()
	}
	return out
}

// Get returns the worker of the pod with that UID, or nil.
func (s *Set) Get(uid types.UID) *Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers[uid]
}

// Lookup returns the worker of the newest pod of that name, or nil.
func (s *Set) Lookup(key api.Key) *Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.byKey[key]
}

// Update hands a pod's state in the API to its worker.
func (s *Set) Update(pod *corev1.Pod) {
	s.mu.Lock()
	w := s.workers[pod.UID]
	if w == nil {
		w = newWorker(s, pod)
		if s.runtime != nil {
			if _, there := s.runtime.Pods[pod.UID]; !there {
				w.seen.now, w.seen.sandboxes = &lifecycle.Observed{}, []string{} // nothing of it can be there yet
			}
		}
		s.workers[pod.UID] = w
		if pod.Status.StartTime != nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			s.host.Ledger.Hold(reportedGrant(pod).apply(pod)) // before any other pod asks for more
		}
	}
	s.byKey[w.key] = w
	s.mu.Unlock()
	w.setPod(pod)
}

// Gone ends a pod that the API no longer has.
func (s *Set) Gone(uid types.UID) {
	if w := s.Get(uid); w != nil {
		w.gone()
	}
}

// Synced ends the pods that a full list of the API did not have. Every pod that the API has was handed to Update before.
func (s *Set) Synced(listed map[types.UID]bool) {
	s.mu.Lock()
	s.synced = true
	var lost []*Worker
	for uid, w := range s.workers {
		if !listed[uid] {
			lost = append(lost, w)
		}
	}
	s.mu.Unlock()
	s.host.Ledger.Complete()
	for _, w := range lost {
		w.gone()
	}
	s.host.Tasks.Go(s.endOrphans)
}

// Listed takes what the runtime has, at the start and after its events were lost: everything is observed anew.
func (s *Set) Listed(l *Listing) {
	s.mu.Lock()
	s.runtime = l
	s.mu.Unlock()
	for _, w := range s.All() {
		w.forgetSandboxes()
		w.invalidate()
	}
	s.endOrphans()
}

// unlisted reports whether it is not known yet what the runtime has.
func (s *Set) unlisted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runtime == nil
}

// listed returns what the runtime has; no container is observed before it is known.
func (s *Set) listed() Listing {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.runtime == nil {
		return Listing{}
	}
	return *s.runtime
}

// Changed wakes the worker of a container or sandbox that ended or vanished in the runtime. uid is the pod's, "" if the sandbox is gone
// with it: then the pod is found by what is known of it.
func (s *Set) Changed(uid types.UID, id string) {
	if uid != "" {
		if w := s.Get(uid); w != nil {
			w.invalidate()
		}
		return
	}
	for _, w := range s.All() {
		if w.owns(id) {
			w.invalidate()
		}
	}
}

// DriverArrived lets the pods that have claims try again: one of them may have waited for that driver.
func (s *Set) DriverArrived() {
	s.returnDevices()
	for _, w := range s.All() {
		w.mu.Lock()
		if len(w.pod.Spec.ResourceClaims) > 0 {
			w.mem.SandboxRetryAt = time.Time{}
			w.notifyLocked()
		}
		w.mu.Unlock()
	}
}

// returnDevices gives back the devices of pods that ended while no agent was there, or no driver.
func (s *Set) returnDevices() {
	for _, uid := range s.host.Devices.Pods() {
		s.mu.Lock()
		lost := s.synced && s.workers[uid] == nil
		s.mu.Unlock()
		if lost {
			s.host.Tasks.Go(func() {
				s.host.warn("giving back the devices of a pod that is gone", s.host.Devices.Unprepare(s.host.Tasks.Context(), uid), "uid", uid)
			})
		}
	}
}

// LinkLost says that somebody deleted the network link of a sandbox. failure is why it could not be made anew: then the sandbox is ended, and
// the pod gets another one. The pod's event says so; without a sandbox it is neither Ready nor PodReadyToStartContainers.
func (s *Set) LinkLost(ctx context.Context, sandbox string, failure error) {
	for _, w := range s.All() {
		if w.owns(sandbox) {
			w.linkLost(failure)
		}
	}
	if failure == nil {
		return
	}
	call, cancel := s.host.Tasks.Steady(ctx)
	defer cancel()
	if err := s.host.Runtime.StopPodSandbox(call, sandbox); err != nil && !runtime.IsNotFound(err) && ctx.Err() == nil {
		s.host.warn("ending the sandbox of a pod without a network link", err, "sandbox", sandbox)
	}
	s.Changed("", sandbox)
}

// endOrphans ends what the runtime and the disk hold of pods that the API does not know, once both sides are known.
func (s *Set) endOrphans() {
	h := s.host
	// Listed before the workers are: a pod that comes in between is known by then.
	volumes, groups := h.Volumes.Pods(), h.Cgroups.Pods()
	s.mu.Lock()
	if !s.synced || s.runtime == nil || h.Tasks.Ended() {
		s.mu.Unlock()
		return
	}
	var lost []*Worker
	for uid, key := range s.runtime.Pods {
		if s.workers[uid] != nil {
			continue
		}
		w := newWorker(s, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: key.Name, Namespace: key.Namespace, UID: uid}})
		w.mem.Gone = true
		s.workers[uid] = w
		lost = append(lost, w)
	}
	known := make(map[string]bool, len(s.workers))
	for uid := range s.workers {
		known[string(uid)] = true
	}
	s.runtime = &Listing{Runtime: s.runtime.Runtime} // what is new from now on has nothing there
	s.mu.Unlock()
	s.returnDevices()
	for _, w := range lost {
		h.Log.Info("ending a pod that the API does not know", "pod", w.key, "uid", w.uid)
		w.notify()
	}
	for _, uid := range volumes {
		if !known[uid] {
			s.removeVolumes(uid)
		}
	}
	for _, uid := range groups {
		if !known[uid] {
			h.warn("removing the control group of a pod that is gone", h.Cgroups.Remove(uid), "uid", uid)
		}
	}
}

// orphanRetry is how long the volumes of a pod that is gone wait that could not be removed: their driver may still be starting.
const orphanRetry = 5 * time.Second

// removeVolumes removes the volumes of a pod that is gone, however long that takes.
func (s *Set) removeVolumes(uid string) {
	h := s.host
	ctx := h.Tasks.Context()
	err := h.Volumes.Teardown(ctx, uid)
	if err == nil {
		return
	}
	h.warn("removing volumes of a pod that is gone", err, "uid", uid)
	h.Tasks.Go(func() {
		for ctx.Err() == nil && err != nil {
			task.Pause(ctx, orphanRetry)
			err = h.Volumes.Teardown(ctx, uid)
		}
	})
}

// forget ends the bookkeeping of a pod of which nothing is left.
func (s *Set) forget(w *Worker) {
	w.stopTimer()
	s.mu.Lock()
	if s.workers[w.uid] == w {
		delete(s.workers, w.uid)
	}
	if s.byKey[w.key] == w {
		delete(s.byKey, w.key)
	}
	s.mu.Unlock()
	s.host.Probes.Forget(w.Pod())
	s.host.Sources.Release(w)
	s.host.Ledger.Release(w.uid)
	s.users.release(w.uid)
}

// Close stops the workers' timers, when the agent ends. The containers keep running.
func (s *Set) Close() {
	for _, w := range s.All() {
		w.stopTimer()
	}
}
