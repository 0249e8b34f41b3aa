package placement

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// dynamicResources keeps a pod that wants devices (KEP-4381) off every node: nothing allocates ResourceClaims yet, and without its devices
// the pod would run as if it had them.
var dynamicResources = Filter{
	Name: "DynamicResources",
	Next: "run the pod without spec.resourceClaims: dynamic resource allocation is not there yet",
	pod:  claimProblem,
}

// claimProblem returns why pod cannot be placed anywhere because of the devices that it wants, or "".
func claimProblem(_ *State, pod *corev1.Pod) string {
	if len(pod.Spec.ResourceClaims) == 0 {
		return ""
	}
	return fmt.Sprintf("resource claim %q is not allocated: nothing allocates devices yet", pod.Spec.ResourceClaims[0].Name)
}
