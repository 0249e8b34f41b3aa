package replicaset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// kind is what sets the owners of one type apart. Everything else is decided about a ReplicaSet, which a ReplicationController is seen as.
type kind[T api.Object] struct {
	name      string // of the controller
	component string // in whose name events are written
	resource  *api.Resource

	view func(owner T) *appsv1.ReplicaSet                   // shares what it can with owner
	has  func(owner T, status appsv1.ReplicaSetStatus) bool // whether nothing needs to be written
	set  func(owner T, status appsv1.ReplicaSetStatus)
}

func replicaSets() kind[*appsv1.ReplicaSet] {
	return kind[*appsv1.ReplicaSet]{
		name: "replicaset", component: "replicaset-controller", resource: api.ReplicaSets,
		view: func(rs *appsv1.ReplicaSet) *appsv1.ReplicaSet { return rs },
		has: func(rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) bool {
			return apiequality.Semantic.DeepEqual(rs.Status, status)
		},
		set: func(rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) { rs.Status = status },
	}
}

func replicationControllers() kind[*corev1.ReplicationController] {
	return kind[*corev1.ReplicationController]{
		name: "replicationcontroller", component: "replication-controller", resource: api.ReplicationControllers,
		view: asReplicaSet,
		has: func(rc *corev1.ReplicationController, status appsv1.ReplicaSetStatus) bool {
			return apiequality.Semantic.DeepEqual(rc.Status, controllerStatus(status))
		},
		set: func(rc *corev1.ReplicationController, status appsv1.ReplicaSetStatus) {
			rc.Status = controllerStatus(status)
		},
	}
}

// asReplicaSet returns the ReplicaSet that means the same as rc.
func asReplicaSet(rc *corev1.ReplicationController) *appsv1.ReplicaSet {
	rs := &appsv1.ReplicaSet{
		ObjectMeta: rc.ObjectMeta,
		Spec: appsv1.ReplicaSetSpec{
			Replicas: rc.Spec.Replicas, MinReadySeconds: rc.Spec.MinReadySeconds, Selector: &metav1.LabelSelector{MatchLabels: rc.Spec.Selector},
		},
		Status: appsv1.ReplicaSetStatus{
			Replicas: rc.Status.Replicas, FullyLabeledReplicas: rc.Status.FullyLabeledReplicas, ReadyReplicas: rc.Status.ReadyReplicas,
			AvailableReplicas: rc.Status.AvailableReplicas, ObservedGeneration: rc.Status.ObservedGeneration,
		},
	}
	if rc.Spec.Template != nil {
		rs.Spec.Template = *rc.Spec.Template
	}
	for _, c := range rc.Status.Conditions {
		rs.Status.Conditions = append(rs.Status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return rs
}

// controllerStatus is s as a ReplicationController has it: it does not count the pods that are being deleted.
func controllerStatus(s appsv1.ReplicaSetStatus) corev1.ReplicationControllerStatus {
	out := corev1.ReplicationControllerStatus{
		Replicas: s.Replicas, FullyLabeledReplicas: s.FullyLabeledReplicas, ReadyReplicas: s.ReadyReplicas,
		AvailableReplicas: s.AvailableReplicas, ObservedGeneration: s.ObservedGeneration,
	}
	for _, c := range s.Conditions {
		out.Conditions = append(out.Conditions, corev1.ReplicationControllerCondition{
			Type: corev1.ReplicationControllerConditionType(c.Type), Status: c.Status, LastTransitionTime: c.LastTransitionTime, Reason: c.Reason, Message: c.Message})
	}
	return out
}
