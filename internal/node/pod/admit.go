package pod

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// admit decides once whether the node can run the pod: the scheduler may have been wrong or left out (spec.nodeName). A pod that is there
// already stays. w.mu must be held.
func (w *Worker) admit(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed) {
	if w.share.admitted {
		return
	}
	w.share.admitted = true
	if len(obs.Containers) > 0 {
		w.resumeEnd()
	}
	if w.mem.Gone || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	present := len(obs.Sandboxes) > 0 || len(obs.Containers) > 0 || pod.Status.StartTime != nil
	if present {
		w.takeOver(pod)
		pod = w.share.granted.apply(pod)
	}
	if !present && choosesNode(pod) {
		w.host.Self.ReadNode(ctx)
	}
	f := w.pressed(pod, present)
	if f == nil && !present {
		f = unfit(pod, w.features())
	}
	switch {
	case f != nil:
	case present:
		w.host.Ledger.Hold(pod)
	default:
		f = w.host.Ledger.Admit(pod, w.host.Self.Node())
	}
	if f == nil {
		return
	}
	w.mem.Failure = f
	w.host.Log.Info("pod refused", "pod", w.key, "reason", f.Reason, "message", f.Message)
	w.host.Events.Warning(w.pod, "", f.Reason, f.Message)
}

// features returns what the node says of itself; a hollow one, which runs nothing, has all that a pod may ask for.
func (w *Worker) features() *corev1.NodeFeatures {
	if w.host.Node.Hollow {
		all := true
		return &corev1.NodeFeatures{SupplementalGroupsPolicy: &all}
	}
	if n := w.host.Self.Node(); n != nil {
		return n.Status.Features
	}
	return nil
}

// pressed refuses new pods while something runs short: those that asked for no memory, and all while the disk is full. Critical ones are
// let in (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-conditions).
func (w *Worker) pressed(pod *corev1.Pod, present bool) *lifecycle.Failure {
	short := w.host.Self.Shortage()
	var why corev1.NodeConditionType
	switch {
	case present || lifecycle.Critical(pod):
	case short.Disk != "":
		why = corev1.NodeDiskPressure
	case short.Memory != "" && lifecycle.QOS(pod) == corev1.PodQOSBestEffort:
		why = corev1.NodeMemoryPressure
	}
	if why == "" {
		return nil
	}
	return &lifecycle.Failure{Reason: lifecycle.ReasonEvicted, Message: fmt.Sprintf("Pod was rejected: The node had condition: [%s]. ", why)}
}

// choosesNode reports whether the pod has a node selector or node affinity.
func choosesNode(pod *corev1.Pod) bool {
	return len(pod.Spec.NodeSelector) > 0 || pod.Spec.Affinity != nil && pod.Spec.Affinity.NodeAffinity != nil
}
