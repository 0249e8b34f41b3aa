package lifecycle

import (
	corev1 "k8s.io/api/core/v1"
)

// keepEnd keeps the end of a container in its status that the API has as ended for good, while the container runs again all the same:
// init containers do after the pod has lost its sandbox, as after a power failure, whatever the restart policy. The API refuses a status
// in which such a container is back to waiting or running (ValidateInitContainerStateTransition), and with it all else that the status
// says. So the end stays until there is a newer one; that the container is not ready shows in the conditions.
func (in *Input) keepEnd(s *corev1.ContainerStatus, c *corev1.Container) {
	old := apiStatus(in.Pod, c.Name)
	if old == nil || old.State.Terminated == nil || s.State.Terminated != nil || mayRunAgain(in.Pod, c, old.State.Terminated.ExitCode) {
		return
	}
	*s = *old
	s.Ready = false
}

// mayRunAgain reports whether the API lets a container that ended with code run again (KEP-5307, KEP-5532).
func mayRunAgain(pod *corev1.Pod, c *corev1.Container, code int32) bool {
	if isEphemeral(pod, c.Name) {
		return false
	}
	return mayRestartAll(pod) || restarts(pod, c, false, code)
}

func isEphemeral(pod *corev1.Pod, name string) bool {
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return true
		}
	}
	return false
}
