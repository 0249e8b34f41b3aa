package placement

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/scheduler/volumes"
)

// What package volumes finds out, by kube-scheduler's plugins. Of the pod alone it is asked whether its claims can be used; the rest is found out
// for nodes that suit the pod otherwise, as for devices (needs).
var (
	volumeBinding = Filter{
		Name:  volumes.Binding,
		Helps: ClaimChanged | NodeChanged,
		Next:  "look at the PersistentVolumeClaims of the pod (kubectl describe pvc)",
		pod:   volumeProblem,
	}
	volumeRestrictions = Filter{
		Name:  volumes.Restrictions,
		Helps: ClaimChanged | PodGone,
		Next:  "wait for the other pod to end, or give the claim another access mode than ReadWriteOncePod",
	}
	nodeVolumeLimits = Filter{
		Name:  volumes.Limits,
		Helps: ClaimChanged | PodGone,
		Next:  "add nodes, or spread the pods with volumes (kubectl get csinode)",
	}
	volumeZone = Filter{
		Name:  volumes.Zone,
		Helps: ClaimChanged | NodeChanged,
		Next:  "add nodes in the zone of the volume (kubectl get pv --show-labels)",
	}
)

// Volumes is what is known of volumes and claims.
func (st *State) Volumes() *volumes.State { return st.volumes }

// volumeProblem returns why pod cannot be placed anywhere because of its claims, or "".
func volumeProblem(st *State, pod *corev1.Pod) string {
	_, reason := st.volumes.Wants(pod)
	return reason
}
