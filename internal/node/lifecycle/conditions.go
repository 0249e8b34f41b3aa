package lifecycle

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Condition types that the agent owns. PodScheduled is the scheduler's until the pod is on a node; from then on the agent carries it, so that
// its observedGeneration goes with the pod's (KEP-5067), and so that a pod that was created with its node has it.
var owned = [...]corev1.PodConditionType{
	corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.PodScheduled,
	corev1.PodResizePending, corev1.PodResizeInProgress, corev1.AllContainersRestarting,
}

// Owned reports whether the agent writes that condition.
func Owned(t corev1.PodConditionType) bool {
	for _, o := range owned {
		if o == t {
			return true
		}
	}
	return false
}

// conditions returns the agent's conditions, with the transition times of those that did not change, and everybody else's.
func conditions(in *Input, s *corev1.PodStatus) []corev1.PodCondition {
	sb := in.Observed.Sandbox()
	sandbox := corev1.PodCondition{Type: corev1.PodReadyToStartContainers, Status: status(sb != nil && sb.Ready && !in.Memory.TornDown)}
	ready := containersReady(in, s)
	out := append([]corev1.PodCondition{sandbox, initialized(in, s), podReady(in, s, ready), ready,
		{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}, resizeConditions(in)...)
	out = append(out, in.restartingAll(s)...)
	for i := range out {
		out[i].ObservedGeneration = in.Pod.Generation
		out[i].LastTransitionTime = metav1.NewTime(in.Now.Truncate(1e9))
		for j := range in.Pod.Status.Conditions {
			if old := &in.Pod.Status.Conditions[j]; old.Type == out[i].Type && old.Status == out[i].Status {
				out[i].LastTransitionTime = old.LastTransitionTime
			}
		}
	}
	for _, c := range in.Pod.Status.Conditions {
		if !Owned(c.Type) {
			out = append(out, c)
		}
	}
	return out
}

func status(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// initialized: every init container has succeeded (sidecars: started).
func initialized(in *Input, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.PodInitialized, Status: corev1.ConditionTrue}
	if s.Phase == corev1.PodSucceeded {
		c.Reason = "PodCompleted"
		return c
	}
	if initDone(in) || in.round() > 0 && wasInitialized(in.Pod) {
		return c
	}
	var names []string
	for i := range in.Pod.Spec.InitContainers {
		ic := &in.Pod.Spec.InitContainers[i]
		st := statusOf(s.InitContainerStatuses, ic.Name)
		done := st.Ready
		if IsSidecar(ic) {
			done = st.Started != nil && *st.Started
		}
		if !done {
			names = append(names, ic.Name)
		}
	}
	c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotInitialized"
	c.Message = fmt.Sprintf("containers with incomplete status: [%s]", strings.Join(names, " "))
	return c
}

// wasInitialized reports whether the API has the pod as initialized. While all its containers restart, it stays so (KEP-5532).
func wasInitialized(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		if c := &pod.Status.Conditions[i]; c.Type == corev1.PodInitialized {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func containersReady(in *Input, s *corev1.PodStatus) corev1.PodCondition {
	c := corev1.PodCondition{Type: corev1.ContainersReady, Status: corev1.ConditionTrue}
	switch s.Phase {
	case corev1.PodSucceeded:
		c.Status, c.Reason = corev1.ConditionFalse, "PodCompleted"
		return c
	case corev1.PodFailed:
		c.Status, c.Reason = corev1.ConditionFalse, "PodFailed"
		return c
	}
	var names []string
	for i := range in.Pod.Spec.InitContainers {
		if ic := &in.Pod.Spec.InitContainers[i]; IsSidecar(ic) && !statusOf(s.InitContainerStatuses, ic.Name).Ready {
			names = append(names, ic.Name)
		}
	}
	for i := range in.Pod.Spec.Containers {
		if n := in.Pod.Spec.Containers[i].Name; !statusOf(s.ContainerStatuses, n).Ready {
			names = append(names, n)
		}
	}
	if len(names) > 0 {
		c.Status, c.Reason = corev1.ConditionFalse, "ContainersNotReady"
		c.Message = fmt.Sprintf("containers with unready status: [%s]", strings.Join(names, " "))
	}
	return c
}

// podReady adds the readiness gates to the containers' readiness (KEP-580).
func podReady(in *Input, s *corev1.PodStatus, containers corev1.PodCondition) corev1.PodCondition {
	c := containers
	c.Type = corev1.PodReady
	if c.Status != corev1.ConditionTrue {
		return c
	}
	var why []string
	for _, g := range in.Pod.Spec.ReadinessGates {
		st, found := corev1.ConditionFalse, false
		for i := range in.Pod.Status.Conditions {
			if cond := &in.Pod.Status.Conditions[i]; cond.Type == g.ConditionType {
				st, found = cond.Status, true
			}
		}
		switch {
		case !found:
			why = append(why, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(g.ConditionType)))
		case st != corev1.ConditionTrue:
			why = append(why, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %s", string(g.ConditionType), st))
		}
	}
	if len(why) > 0 {
		c.Status, c.Reason, c.Message = corev1.ConditionFalse, "ReadinessGatesNotReady", strings.Join(why, ", ")
	}
	return c
}
