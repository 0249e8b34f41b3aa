package placement

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/scheduler/devices"
)

// dynamicResources gives a pod the devices that its ResourceClaims ask for (KEP-4381). Of the pod alone it asks whether its claims are there and
// can be used; which devices a node has for them is found out for nodes that suit the pod otherwise, in bestWith: what is left of
// them is no matter of classes, as two pods of one class have different claims.
var dynamicResources = Filter{
	Name:  "DynamicResources",
	Helps: DevicesChanged | NodeChanged,
	Next:  "look at the pod's ResourceClaims, and at the ResourceSlices and DeviceClasses that drivers and administrators offer (kubectl describe resourceclaim)",
	pod:   claimProblem,
}

// Devices is what is known of devices and claims.
func (st *State) Devices() *devices.State { return st.devices }

// claimProblem returns why pod cannot be placed anywhere because of the devices that it wants, or "".
func claimProblem(st *State, pod *corev1.Pod) string {
	_, reason := st.devices.Wants(pod)
	return reason
}
