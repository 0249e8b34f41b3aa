package pod

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/podspec"
)

// Key returns the pod's namespace and name.
func (w *Worker) Key() api.Key { return w.key }

// node returns what the pod's status says about its node.
func (w *Worker) node() lifecycle.Node {
	l := w.set.listed()
	return lifecycle.Node{IPs: w.host.Node.IPs, Runtime: l.Runtime, RecursiveReadOnly: l.RecursiveReadOnly}
}

// Reported returns the status last handed to the status writer; nil before the first.
func (w *Worker) Reported() *corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.reported
}

// Seen returns what was last seen of the pod in the runtime; never nil.
func (w *Worker) Seen() *lifecycle.Observed {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.latest == nil {
		return &lifecycle.Observed{}
	}
	return w.seen.latest
}

// Pick returns the container that is meant: the one named, or the only one, or the default of the annotation.
func (w *Worker) Pick(name string) (string, error) {
	pod := w.Pod()
	if name == "" {
		if d := pod.Annotations["kubectl.kubernetes.io/default-container"]; d != "" && podspec.FindContainer(pod, d) != nil {
			return d, nil
		}
		if len(pod.Spec.Containers) != 1 {
			var names []string
			for i := range pod.Spec.Containers {
				names = append(names, pod.Spec.Containers[i].Name)
			}
			return "", apierrors.NewBadRequest(fmt.Sprintf("a container name must be specified for pod %s, choose one of: %s", pod.Name, names))
		}
		return pod.Spec.Containers[0].Name, nil
	}
	if podspec.FindContainer(pod, name) == nil {
		return "", apierrors.NewBadRequest(fmt.Sprintf("container %s is not valid for pod %s", name, pod.Name))
	}
	return name, nil
}

// WhyWaiting returns the reason why a container waits.
func (w *Worker) WhyWaiting(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reported != nil {
		for _, list := range [][]corev1.ContainerStatus{w.reported.InitContainerStatuses, w.reported.ContainerStatuses, w.reported.EphemeralContainerStatuses} {
			for i := range list {
				if s := list[i].State.Waiting; list[i].Name == name && s != nil {
					return s.Reason
				}
			}
		}
	}
	return lifecycle.ReasonContainerCreating
}

// Running returns the pod's running containers.
func (w *Worker) Running() []lifecycle.Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.seen.now == nil {
		return nil
	}
	var out []lifecycle.Container
	for i := range w.seen.now.Containers {
		if w.seen.now.Containers[i].State == lifecycle.Running {
			out = append(out, w.seen.now.Containers[i])
		}
	}
	return out
}

// Evictable reports whether the pod has something to lose.
func (w *Worker) Evictable() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.share.admitted && w.mem.Failure == nil && w.mem.Terminating.IsZero() && !w.mem.Gone && w.seen.now != nil && len(w.seen.now.Sandboxes) > 0
}

// Evict ends the pod, at once.
func (w *Worker) Evict(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem.Failure != nil || w.mem.Gone || !w.mem.Terminating.IsZero() {
		return
	}
	w.mem.Failure, w.mem.Hurry = &lifecycle.Failure{Reason: lifecycle.ReasonEvicted, Message: why}, true
	w.host.Log.Warn("pod evicted", "pod", w.key, "why", why)
	w.host.Events.Warning(w.pod, "", lifecycle.ReasonEvicted, why)
	w.notifyLocked()
}

// linkLost says that somebody deleted the pod's network link.
func (w *Worker) linkLost(failure error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if failure == nil {
		w.host.Events.Warning(w.pod, "", "NetworkLinkLost", "The pod's network link was deleted from outside; it was made anew, with the same address.")
		return
	}
	w.host.Events.Warning(w.pod, "", "NetworkLinkLost", "The pod's network link was deleted from outside and could not be made anew; the pod gets a new sandbox: "+failure.Error())
}

// Evicting reports whether the pod was evicted and has not ended yet: what it holds will be free soon.
func (w *Worker) Evicting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mem.Failure != nil && w.mem.Failure.Reason == lifecycle.ReasonEvicted && !w.mem.TornDown
}
