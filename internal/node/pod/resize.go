package pod

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// resizeRetry is how long after a failure a resize is tried again.
const resizeRetry = 10 * time.Second

// noteResize remembers what a pod had been granted when it begins to ask for something else. w.mu must be held.
func (w *Worker) noteResize(old, pod *corev1.Pod) {
	if !w.share.admitted || old == pod || old.Generation == pod.Generation {
		return
	}
	if had := grantOf(old); w.share.granted == nil && !sameResources(had, grantOf(pod)) {
		w.share.granted = had
	}
}

// takeOver finds out whether a pod of an earlier agent asks for something else than it was granted, or had a resize under way. w.mu must
// be held.
func (w *Worker) takeOver(pod *corev1.Pod) {
	if had := reportedGrant(pod); !sameResources(had, grantOf(pod)) {
		w.share.granted = had
	}
	for i := range pod.Status.Conditions {
		switch c := &pod.Status.Conditions[i]; c.Type {
		case corev1.PodResizeInProgress:
			w.mem.Resize.Active = true
		case corev1.PodResizePending:
			if w.share.granted != nil {
				w.mem.Resize.Pending = lifecycle.Waiting{Reason: c.Reason, Message: c.Message}
			}
		}
	}
}

// resize takes over what the pod asks for, if the node has that, and reports whether it did. w.mu must be held.
func (w *Worker) resize(obs *lifecycle.Observed) bool {
	m := &w.mem.Resize
	if w.share.granted == nil || !w.share.admitted || w.mem.Failure != nil || w.pod.DeletionTimestamp != nil || w.mem.Gone {
		return false
	}
	if sameResources(w.share.granted, grantOf(w.pod)) { // it was taken back
		w.share.granted, m.Pending = nil, lifecycle.Waiting{}
		return true
	}
	pending := tellsResources(obs)
	if pending.Reason == "" {
		var known bool
		if pending, known = w.host.Ledger.Resize(w.pod, w.notify); !known {
			return false
		}
	}
	if pending.Reason != "" {
		if pending.Reason != m.Pending.Reason {
			w.host.Events.Warning(w.pod, "", "Resize"+pending.Reason, pending.Message)
			w.host.Log.Info("resize not granted", "pod", w.key, "reason", pending.Reason, "message", pending.Message)
		}
		m.Pending = pending
		return false
	}
	w.share.granted, *m = nil, lifecycle.Resize{Active: true}
	w.host.Events.Normal(w.pod, "", "ResizeStarted", fmt.Sprintf("Pod resize started: generation %d", w.pod.Generation))
	return true
}

// tellsResources refuses to resize containers of a runtime that does not say what it gives them: nobody could know when it is done.
func tellsResources(obs *lifecycle.Observed) lifecycle.Waiting {
	for i := range obs.Containers {
		if c := &obs.Containers[i]; c.State == lifecycle.Running && c.Resources == nil {
			return lifecycle.Waiting{Reason: corev1.PodReasonInfeasible, Message: "the node's container runtime does not tell the resources of its containers"}
		}
	}
	return lifecycle.Waiting{}
}

// resizeAll gives running containers, and the pod's control group around them, what was granted. The group grows first and shrinks last.
func (w *Worker) resizeAll(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed) {
	done, err := w.resizeNow(ctx, pod, obs)
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &w.mem.Resize
	switch {
	case ctx.Err() != nil:
	case err != nil:
		if m.Error.Message != err.Error() {
			w.host.Events.Warning(w.pod, "", "ResizeError", err.Error())
			w.host.Log.Warn("resizing a pod failed, trying again", "pod", w.key, "err", err)
		}
		m.Error = lifecycle.Waiting{Reason: corev1.PodReasonError, Message: err.Error()}
		m.RetryAt = metav1.NewTime(time.Now().Add(resizeRetry))
	case done:
		*m = lifecycle.Resize{Pending: m.Pending}
		w.host.Events.Normal(w.pod, "", "ResizeCompleted", fmt.Sprintf("Pod resize completed: generation %d", pod.Generation))
	default:
		// Containers that are restarted for it come back with it; until then there is nothing to do.
		m.Error, m.RetryAt = lifecycle.Waiting{}, metav1.NewTime(time.Now().Add(time.Second))
	}
}

func (w *Worker) resizeNow(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed) (done bool, err error) {
	group := podspec.ForPod(pod)
	if err := w.host.Cgroups.Raise(string(pod.UID), group); err != nil {
		return false, err
	}
	done = true
	for i := range obs.Containers {
		run := &obs.Containers[i]
		c := podspec.FindContainer(pod, run.Name)
		if c == nil || run.State != lifecycle.Running || podspec.Target(pod, run.Name) != "" {
			continue
		}
		cpu, memory := lifecycle.Differs(c, run.Resources)
		if lifecycle.ResizeRestarts(c, cpu, memory) {
			done = false
			continue
		}
		if !cpu && !memory {
			continue
		}
		if err := w.resizeContainer(ctx, pod, c, run); err != nil {
			return false, fmt.Errorf("container %s: %w", c.Name, err)
		}
	}
	if !done {
		return false, nil
	}
	_, err = w.host.Cgroups.Setup(string(pod.UID), group)
	return err == nil, err
}

func (w *Worker) resizeContainer(ctx context.Context, pod *corev1.Pod, c *corev1.Container, run *lifecycle.Container) error {
	r := podspec.ContainerResources(pod, c, w.host.Node.Capacity)
	if limit, had := r.MemoryLimitInBytes, run.Resources.MemoryLimitInBytes; limit > 0 && (had <= 0 || limit < had) {
		// The kernel would kill the container, or refuse. The kubelet waits likewise until it holds less.
		st, err := w.host.Runtime.ContainerStats(ctx, run.ID)
		if err != nil {
			return err
		}
		if held := st.GetMemory().GetWorkingSetBytes().GetValue(); held >= uint64(limit) {
			return fmt.Errorf("the memory limit of %d bytes would be below what it holds now, %d bytes", limit, held)
		}
	}
	return w.host.Runtime.UpdateContainerResources(ctx, run.ID, r)
}
