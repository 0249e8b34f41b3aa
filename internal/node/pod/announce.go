package pod

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// announce notes why containers wait and records the back-off events when a wait begins.
func (w *Worker) announce(waiting map[string]lifecycle.Waiting) {
	for name, n := range waiting {
		if w.waiting[name] == n {
			continue
		}
		switch n.Reason {
		case lifecycle.ReasonCrashLoop:
			w.host.Events.Warning(w.pod, name, "BackOff", "Back-off restarting failed container "+name+" in pod "+podTitle(w.pod))
		case lifecycle.ReasonImagePullBackOff:
			if c := w.container(name); c != nil {
				w.host.Events.Normal(w.pod, name, "BackOff", `Back-off pulling image "`+c.Image+`"`)
			}
		}
	}
	w.waiting = waiting
}

func podTitle(pod *corev1.Pod) string {
	return pod.Name + "_" + pod.Namespace + "(" + string(pod.UID) + ")"
}
