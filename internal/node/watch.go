package node

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/task"
)

// orphan is a pod found in the runtime: enough to end it if the API does not know it.
type orphan struct {
	name, namespace string
}

// watchPods follows the node's pods in the API.
func (a *Agent) watchPods(ctx context.Context) {
	var r task.Retry
	for ctx.Err() == nil {
		w, err := client.Watch[*corev1.Pod](ctx, a.cfg.Client, client.ListOptions{Index: client.IndexNode, Value: a.cfg.NodeName})
		if err == nil {
			err = a.followPods(ctx, w, &r)
			w.Stop()
		}
		if ctx.Err() == nil {
			a.log.Warn("watch of the node's pods was lost, trying again", "err", err)
			r.Wait(ctx)
		}
	}
}

func (a *Agent) followPods(ctx context.Context, w client.Watcher, r *task.Retry) error {
	seen := map[types.UID]bool{} // nil once synced
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		r.Reset()
		for _, e := range events {
			switch e.Type {
			case client.Reset:
				seen = map[types.UID]bool{}
			case client.Synced:
				a.podsSynced(seen)
				seen = nil
			case client.Deleted:
				a.podGone(e.Object.GetUID())
			default:
				pod := e.Object.(*corev1.Pod)
				if seen != nil {
					seen[pod.UID] = true
				}
				a.podChanged(pod)
			}
		}
	}
}

// podChanged hands a pod's state in the API to its worker.
func (a *Agent) podChanged(pod *corev1.Pod) {
	a.mu.Lock()
	w := a.workers[pod.UID]
	if w == nil {
		w = newWorker(a, pod)
		if _, there := a.found[pod.UID]; a.listed && !there {
			w.obs, w.known = &lifecycle.Observed{}, []string{} // nothing of it can be there yet
		}
		a.workers[pod.UID] = w
		if pod.Status.StartTime != nil && pod.Status.Phase != corev1.PodSucceeded && pod.Status.Phase != corev1.PodFailed {
			a.ledger.Hold(toldGrant(pod).apply(pod)) // before any other pod asks for more
		}
	}
	a.byKey[w.key] = w
	a.mu.Unlock()
	w.setPod(pod)
}

// podGone ends a pod that the API does not have any more.
func (a *Agent) podGone(uid types.UID) {
	if w := a.worker(uid); w != nil {
		w.gone()
	}
}

// podsSynced ends the pods that were not seen in a full list.
func (a *Agent) podsSynced(seen map[types.UID]bool) {
	a.mu.Lock()
	a.synced = true
	var lost []*worker
	for uid, w := range a.workers {
		if !seen[uid] {
			lost = append(lost, w)
		}
	}
	a.mu.Unlock()
	a.ledger.Complete()
	for _, w := range lost {
		w.gone()
	}
	a.tasks.Go(func() { a.endOrphans() })
}

// watchRuntime follows the runtime's events; at the start and whenever the stream was lost, everything is looked at once.
func (a *Agent) watchRuntime(ctx context.Context) {
	var r task.Retry
	for ctx.Err() == nil {
		err := a.rt.Events(ctx, func() { r.Reset(); a.tasks.Go(func() { a.relist(ctx) }) }, a.runtimeEvent)
		if ctx.Err() == nil {
			a.log.Warn("runtime events were lost, trying again", "err", err)
			r.Wait(ctx)
		}
	}
}

// runtimeEvent wakes the worker of a container that ended or vanished. What the agent itself created or started it knows.
func (a *Agent) runtimeEvent(e *runtime.Event) {
	switch e.ContainerEventType {
	case cri.ContainerEventType_CONTAINER_STOPPED_EVENT, cri.ContainerEventType_CONTAINER_DELETED_EVENT:
	default:
		return
	}
	if s := e.PodSandboxStatus; s != nil && s.Metadata != nil {
		if w := a.worker(types.UID(s.Metadata.Uid)); w != nil {
			w.invalidate()
		}
		return
	}
	// The sandbox is gone: find the pod by what is known of it.
	for _, w := range a.allWorkers() {
		if w.owns(e.ContainerId) {
			w.invalidate()
		}
	}
}

// relist looks at everything in the runtime.
func (a *Agent) relist(ctx context.Context) {
	var r task.Retry
	for ctx.Err() == nil {
		found, err := a.runtimePods(ctx)
		if err != nil {
			a.log.Warn("listing the runtime's pods failed, trying again", "err", err)
			r.Wait(ctx)
			continue
		}
		if len(a.cfg.PodCIDRs) > 0 {
			a.setPodCIDRs(ctx)
		}
		a.mu.Lock()
		a.found, a.listed = found, true
		workers := a.snapshot()
		a.mu.Unlock()
		for _, w := range workers {
			w.forgetSandboxes()
			w.invalidate()
		}
		a.endOrphans()
		return
	}
}

func (a *Agent) runtimePods(ctx context.Context) (map[types.UID]orphan, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	sandboxes, err := a.rt.ListPodSandbox(ctx, nil)
	if err != nil {
		return nil, err
	}
	out := map[types.UID]orphan{}
	for _, s := range sandboxes {
		if uid := s.Labels[lifecycle.LabelPodUID]; uid != "" {
			out[types.UID(uid)] = orphan{name: s.Labels[lifecycle.LabelPodName], namespace: s.Labels[lifecycle.LabelPodNamespace]}
		}
	}
	return out, nil
}

// endOrphans ends what the runtime and the disk hold of pods that the API does not know, once both sides are known.
func (a *Agent) endOrphans() {
	// Listed before the workers are: a pod that comes in between is known by then.
	volumes, groups := a.volumes.Pods(), a.cgroups.Pods()
	a.mu.Lock()
	if !a.synced || !a.listed || a.tasks.Ended() {
		a.mu.Unlock()
		return
	}
	var lost []*worker
	for uid, o := range a.found {
		if a.workers[uid] != nil {
			continue
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: o.name, Namespace: o.namespace, UID: uid}}
		w := newWorker(a, pod)
		w.mem.Gone = true
		a.workers[uid] = w
		lost = append(lost, w)
	}
	known := make(map[string]bool, len(a.workers))
	for uid := range a.workers {
		known[string(uid)] = true
	}
	a.found = nil
	a.mu.Unlock()
	for _, w := range lost {
		a.log.Info("ending a pod that the API does not know", "pod", w.key, "uid", w.uid)
		w.notify()
	}
	for _, uid := range volumes {
		if !known[uid] {
			a.warn("removing volumes of a pod that is gone", a.volumes.Teardown(uid), "uid", uid)
		}
	}
	for _, uid := range groups {
		if !known[uid] {
			a.warn("removing the control group of a pod that is gone", a.cgroups.Remove(uid), "uid", uid)
		}
	}
}

// warn logs an error of something that is tried again another time.
func (a *Agent) warn(what string, err error, args ...any) {
	if err != nil {
		a.log.Warn(what+" failed", append(args, "err", err)...)
	}
}

func (a *Agent) lookup(key api.Key) *worker {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.byKey[key]
}
