package node

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// resizeRetry is how long after a failure a resize is tried again.
const resizeRetry = 10 * time.Second

// grant is what a node has granted a pod that asks for something else now (KEP-1287): by container, and for the pod as a whole.
type grant struct {
	containers map[string]corev1.ResourceRequirements
	pod        *corev1.ResourceRequirements
}

// grantOf returns what a pod asks for.
func grantOf(pod *corev1.Pod) *grant {
	g := &grant{containers: map[string]corev1.ResourceRequirements{}, pod: pod.Spec.Resources}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			g.containers[list[i].Name] = list[i].Resources
		}
	}
	return g
}

// toldGrant returns what the status says that the pod has been granted; what it does not say is as the pod asks. An agent that
// was restarted goes on from there.
func toldGrant(pod *corev1.Pod) *grant {
	g := grantOf(pod)
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if s := &list[i]; s.Resources != nil {
				g.containers[s.Name] = corev1.ResourceRequirements{Requests: s.AllocatedResources, Limits: s.Resources.Limits, Claims: s.Resources.Claims}
			}
		}
	}
	return g
}

// apply returns pod with the resources that it was granted.
func (g *grant) apply(pod *corev1.Pod) *corev1.Pod {
	if g == nil {
		return pod
	}
	out := *pod
	out.Spec.Resources = g.pod
	put := func(list []corev1.Container) []corev1.Container {
		list = append([]corev1.Container(nil), list...)
		for i := range list {
			if r, ok := g.containers[list[i].Name]; ok {
				list[i].Resources = r
			}
		}
		return list
	}
	out.Spec.Containers, out.Spec.InitContainers = put(pod.Spec.Containers), put(pod.Spec.InitContainers)
	return &out
}

// sameResources compares what two versions of a pod ask for.
func sameResources(a, b *grant) bool {
	if len(a.containers) != len(b.containers) || !apiequality.Semantic.DeepEqual(a.pod, b.pod) {
		return false
	}
	for name, r := range a.containers {
		if !apiequality.Semantic.DeepEqual(r, b.containers[name]) {
			return false
		}
	}
	return true
}

// noteResize remembers what a pod had been granted when it begins to ask for something else. w.mu must be held.
func (w *worker) noteResize(old, pod *corev1.Pod) {
	if !w.admitted || old == pod || old.Generation == pod.Generation {
		return
	}
	if had := grantOf(old); w.granted == nil && !sameResources(had, grantOf(pod)) {
		w.granted = had
	}
}

// takeOver finds out whether a pod of an earlier agent asks for something else than it was granted, or had a resize under way. w.mu must
// be held.
func (w *worker) takeOver(pod *corev1.Pod) {
	if had := toldGrant(pod); !sameResources(had, grantOf(pod)) {
		w.granted = had
	}
	for i := range pod.Status.Conditions {
		switch c := &pod.Status.Conditions[i]; c.Type {
		case corev1.PodResizeInProgress:
			w.mem.Resize.Active = true
		case corev1.PodResizePending:
			if w.granted != nil {
				w.mem.Resize.Pending = lifecycle.Waiting{Reason: c.Reason, Message: c.Message}
			}
		}
	}
}

// resize takes over what the pod asks for, if the node has that, and tells whether it did. w.mu must be held.
func (w *worker) resize(obs *lifecycle.Observed) bool {
	m := &w.mem.Resize
	if w.granted == nil || !w.admitted || w.mem.Failure != nil || w.pod.DeletionTimestamp != nil || w.mem.Gone {
		return false
	}
	if sameResources(w.granted, grantOf(w.pod)) { // it was taken back
		w.granted, m.Pending = nil, lifecycle.Waiting{}
		return true
	}
	pending := tellsResources(obs)
	if pending.Reason == "" {
		var known bool
		if pending, known = w.a.ledger.Resize(w.pod, w.notify); !known {
			return false
		}
	}
	if pending.Reason != "" {
		if pending.Reason != m.Pending.Reason {
			w.a.events.Warning(w.pod, "", "Resize"+pending.Reason, pending.Message)
			w.a.log.Info("resize not granted", "pod", w.key, "reason", pending.Reason, "message", pending.Message)
		}
		m.Pending = pending
		return false
	}
	w.granted, *m = nil, lifecycle.Resize{Active: true}
	w.a.events.Normal(w.pod, "", "ResizeStarted", fmt.Sprintf("Pod resize started: generation %d", w.pod.Generation))
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
func (w *worker) resizeAll(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed) {
	done, err := w.resizeNow(ctx, pod, obs)
	w.mu.Lock()
	defer w.mu.Unlock()
	m := &w.mem.Resize
	switch {
	case ctx.Err() != nil:
	case err != nil:
		if m.Error.Message != err.Error() {
			w.a.events.Warning(w.pod, "", "ResizeError", err.Error())
			w.a.log.Warn("resizing a pod failed, trying again", "pod", w.key, "err", err)
		}
		m.Error = lifecycle.Waiting{Reason: corev1.PodReasonError, Message: err.Error()}
		m.RetryAt = metav1.NewTime(time.Now().Add(resizeRetry))
	case done:
		*m = lifecycle.Resize{Pending: m.Pending}
		w.a.events.Normal(w.pod, "", "ResizeCompleted", fmt.Sprintf("Pod resize completed: generation %d", pod.Generation))
	default:
		// Containers that are restarted for it come back with it; until then there is nothing to do.
		m.Error, m.RetryAt = lifecycle.Waiting{}, metav1.NewTime(time.Now().Add(time.Second))
	}
}

func (w *worker) resizeNow(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed) (done bool, err error) {
	group := podspec.ForPod(pod)
	if err := w.a.cgroups.Raise(string(pod.UID), group); err != nil {
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
	_, err = w.a.cgroups.Setup(string(pod.UID), group)
	return err == nil, err
}

func (w *worker) resizeContainer(ctx context.Context, pod *corev1.Pod, c *corev1.Container, run *lifecycle.Container) error {
	r := podspec.ContainerResources(pod, c, w.a.capacity)
	if limit, had := r.MemoryLimitInBytes, run.Resources.MemoryLimitInBytes; limit > 0 && (had <= 0 || limit < had) {
		// The kernel would kill the container, or refuse. The kubelet waits likewise until it holds less.
		st, err := w.a.rt.ContainerStats(ctx, run.ID)
		if err != nil {
			return err
		}
		if held := st.GetMemory().GetWorkingSetBytes().GetValue(); held >= uint64(limit) {
			return fmt.Errorf("the memory limit of %d bytes would be below what it holds now, %d bytes", limit, held)
		}
	}
	return w.a.rt.UpdateContainerResources(ctx, run.ID, r)
}
