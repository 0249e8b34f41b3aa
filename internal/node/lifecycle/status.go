package lifecycle

import (
	"sort"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Status returns the pod's status as the node sees it: phase, conditions, container statuses, addresses. Conditions that
// others own (PodScheduled, readiness gates, DisruptionTarget) are kept from the pod. waiting comes from the [Plan].
func Status(in Input, waiting map[string]Waiting) corev1.PodStatus {
	old := &in.Pod.Status
	s := corev1.PodStatus{
		ObservedGeneration: in.Pod.Generation, Phase: old.Phase, Reason: old.Reason, Message: old.Message,
		NominatedNodeName: old.NominatedNodeName, QOSClass: QOS(in.Pod), StartTime: old.StartTime, Resize: old.Resize,
		ResourceClaimStatuses: old.ResourceClaimStatuses, Resources: old.Resources, AllocatedResources: old.AllocatedResources,
	}
	if s.StartTime == nil && !in.Memory.StartTime.IsZero() {
		s.StartTime = &metav1.Time{Time: in.Memory.StartTime.Truncate(1e9)}
	}
	addresses(&in, &s)
	initDone := initDone(&in)
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		s.InitContainerStatuses = append(s.InitContainerStatuses, containerStatus(&in, c, true, waiting, ReasonPodInitializing))
	}
	reason := ReasonContainerCreating
	if !initDone && len(in.Pod.Spec.InitContainers) > 0 {
		reason = ReasonPodInitializing
	}
	for i := range in.Pod.Spec.Containers {
		s.ContainerStatuses = append(s.ContainerStatuses, containerStatus(&in, &in.Pod.Spec.Containers[i], false, waiting, reason))
	}
	sort.Slice(s.ContainerStatuses, func(i, j int) bool { return s.ContainerStatuses[i].Name < s.ContainerStatuses[j].Name })
	for i := range in.Pod.Spec.EphemeralContainers {
		c := (*corev1.Container)(&in.Pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		s.EphemeralContainerStatuses = append(s.EphemeralContainerStatuses, containerStatus(&in, c, false, waiting, reason))
	}
	s.Phase = phase(&in, &s)
	if f := in.Memory.Failure; f != nil {
		s.Reason, s.Message = f.Reason, f.Message
		if neverBegun(&in) {
			// A container that is said to wait would hide the reason from whoever lists pods.
			s.InitContainerStatuses, s.ContainerStatuses = nil, nil
		}
	}
	s.Conditions = conditions(&in, &s)
	return s
}

// neverBegun reports whether the node refused the pod before it did anything for it.
func neverBegun(in *Input) bool {
	return len(in.Observed.Sandboxes) == 0 && len(in.Observed.Containers) == 0 && len(in.Pod.Status.ContainerStatuses) == 0
}

func addresses(in *Input, s *corev1.PodStatus) {
	old := &in.Pod.Status
	for _, ip := range in.Node.IPs {
		s.HostIPs = append(s.HostIPs, corev1.HostIP{IP: ip})
	}
	if len(in.Node.IPs) > 0 {
		s.HostIP = in.Node.IPs[0]
	}
	var ips []string
	if in.Pod.Spec.HostNetwork {
		ips = in.Node.IPs
	} else if sb := in.Observed.Sandbox(); sb != nil && len(sb.IPs) > 0 {
		ips = sb.IPs
	}
	if len(ips) == 0 {
		s.PodIP, s.PodIPs = old.PodIP, old.PodIPs // a stopped sandbox has none; what it had stays visible
		return
	}
	s.PodIP = ips[0]
	for _, ip := range ips {
		s.PodIPs = append(s.PodIPs, corev1.PodIP{IP: ip})
	}
}

// initDone reports whether every init container has succeeded and every sidecar has started.
func initDone(in *Input) bool {
	if len(in.Pod.Spec.InitContainers) == 0 {
		return true
	}
	sb := in.Observed.Sandbox()
	if sb != nil && in.initialised(sb) {
		return true
	}
	for i := range in.Pod.Spec.InitContainers {
		c := &in.Pod.Spec.InitContainers[i]
		run := in.Observed.Newest(c.Name)
		switch {
		case run == nil:
			return false
		case IsSidecar(c):
			if !(run.State == Running && in.health(run).Started) && in.Memory.Terminating.IsZero() {
				return false
			}
		case run.State != Exited || run.ExitCode != 0 || in.outdated(run):
			return false
		}
	}
	return true
}

// phase follows https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase.
func phase(in *Input, s *corev1.PodStatus) corev1.PodPhase {
	p := rawPhase(in, s)
	// A phase that ended is final: Kubernetes never leaves it.
	if apiTerminal(in.Pod) {
		return in.Pod.Status.Phase
	}
	// The end is reported only when nothing runs any more, so that what the pod held can be given to others.
	if (p == corev1.PodFailed || p == corev1.PodSucceeded) && (in.Observed.AnyRunning() || in.Busy.Start) {
		if in.Pod.Status.Phase == "" {
			return corev1.PodPending
		}
		return in.Pod.Status.Phase
	}
	return p
}

func rawPhase(in *Input, s *corev1.PodStatus) corev1.PodPhase {
	if in.Memory.Failure != nil || initFailed(in) {
		return corev1.PodFailed
	}
	if !in.Memory.Terminating.IsZero() && in.Memory.TornDown && !finished(in) {
		// Ended from outside. Once all is stopped the phase tells how (KEP-3329): failed unless all succeeded.
		if in.Pod.DeletionTimestamp != nil || in.Memory.Gone {
			return endedPhase(s)
		}
	}
	if !initDone(in) {
		if in.round() > 0 && in.Pod.Status.Phase == corev1.PodRunning {
			return corev1.PodRunning // initialized once is initialized, also while init containers run again
		}
		return corev1.PodPending
	}
	var running, waiting, stopped, succeeded int
	for i := range in.Pod.Spec.Containers {
		st := statusOf(s.ContainerStatuses, in.Pod.Spec.Containers[i].Name)
		switch {
		case st.State.Running != nil:
			running++
		case st.State.Terminated != nil:
			stopped++
			if st.State.Terminated.ExitCode == 0 {
				succeeded++
			}
		case st.LastTerminationState.Terminated != nil:
			stopped++
		default:
			waiting++
		}
	}
	switch {
	case waiting > 0:
		return corev1.PodPending
	case running > 0:
		return corev1.PodRunning
	case !finished(in):
		return corev1.PodRunning
	case stopped == succeeded:
		return corev1.PodSucceeded
	default:
		return corev1.PodFailed
	}
}

// endedPhase is the phase of a pod that was deleted: Succeeded only if every container succeeded.
func endedPhase(s *corev1.PodStatus) corev1.PodPhase {
	for i := range s.ContainerStatuses {
		if t := s.ContainerStatuses[i].State.Terminated; t == nil || t.ExitCode != 0 {
			return corev1.PodFailed
		}
	}
	return corev1.PodSucceeded
}

func statusOf(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return &corev1.ContainerStatus{}
}
