package replicaset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/podstate"
	"github.com/knarr-io/knarr/internal/controller/refusal"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

// observed is what a plan is made from.
type observed struct {
	selector labels.Selector
	pods     []*corev1.Pod // those the ReplicaSet controls and those nobody controls
	related  []*corev1.Pod // those of the ReplicaSet and its siblings; read where there is a surplus
}

// actions is what to do about a ReplicaSet.
type actions struct {
	Adopt, Release []*corev1.Pod
	Create         int
	Pause          refusal.Pause // before pods that nodes refused are replaced
	Delete         []*corev1.Pod
	More           bool // the burst limit cut the step short

	Active, Terminating []*corev1.Pod // controlled already, without Adopt
}

// surplus returns how many pods there are too many, or a negative number.
func surplus(rs *appsv1.ReplicaSet, obs observed) int {
	active := slices.DeleteFunc(slices.Clone(obs.pods), func(p *corev1.Pod) bool { return !podstate.Active(p) })
	mine, adopt, _ := ownership.Sort(rs, obs.selector, active)
	return len(mine) + len(adopt) - int(*rs.Spec.Replicas)
}

// plan compares the pods that rs has with those it asks for.
func plan(rs *appsv1.ReplicaSet, obs observed, now time.Time) actions {
	var act actions
	var terminating []*corev1.Pod
	var active []*corev1.Pod
	for _, p := range obs.pods {
		switch {
		case podstate.Active(p):
			active = append(active, p)
		case podstate.Terminating(p):
			terminating = append(terminating, p)
		}
	}
	act.Active, act.Adopt, act.Release = ownership.Sort(rs, obs.selector, active)
	act.Terminating, _, _ = ownership.Sort(rs, obs.selector, terminating)
	if rs.DeletionTimestamp != nil {
		return act
	}
	have := slices.Concat(act.Active, act.Adopt)
	diff := len(have) - int(*rs.Spec.Replicas)
	step := min(max(diff, -diff), burstReplicas)
	act.More = step < max(diff, -diff)
	switch {
	case diff < 0:
		act.Create = step
		if act.Pause = refusal.Judge(controlled(rs, obs.pods), now); act.Pause.Tries > 0 {
			act.Create, act.More = 1, false // by this one it is seen how the others would fare
		}
		if act.Pause.Holds(now) {
			act.Create = 0
		}
	case diff > 0:
		if step < len(have) {
			workload.Rank(have, obs.related, now)
		}
		act.Delete = have[:step]
	}
	return act
}

// controlled returns the pods that rs controls.
func controlled(rs *appsv1.ReplicaSet, pods []*corev1.Pod) []*corev1.Pod {
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !metav1.IsControlledBy(p, rs) })
}

// reasonRefused is the reason of the condition ReplicaFailure, and of the events, where nodes refuse the pods.
const reasonRefused = "PodsRefused"

// failure is why pods could not be made or removed.
type failure struct {
	reason, message string
}

// failureOf names the failure of the step act after which diff pods are too many or too few.
func failureOf(err error, act actions, diff int) *failure {
	switch {
	case err == nil && act.Pause.Tries > 0:
		return &failure{reasonRefused, act.Pause.Message()}
	case err == nil:
		return nil
	case act.Create > 0 || diff < 0:
		return &failure{"FailedCreate", err.Error()}
	default:
		return &failure{"FailedDelete", err.Error()}
	}
}

// newStatus counts the pods of rs at now. after is how long until a ready pod becomes available, or 0.
func newStatus(rs *appsv1.ReplicaSet, active, terminating []*corev1.Pod, failed *failure, now time.Time) (status appsv1.ReplicaSetStatus, after time.Duration) {
	gone := int32(len(terminating))
	status = appsv1.ReplicaSetStatus{
		Replicas: int32(len(active)), TerminatingReplicas: &gone, ObservedGeneration: rs.Generation,
	}
	template := labels.SelectorFromSet(rs.Spec.Template.Labels)
	for _, p := range active {
		if template.Matches(labels.Set(p.Labels)) {
			status.FullyLabeledReplicas++
		}
		if !podstate.Ready(p) {
			continue
		}
		status.ReadyReplicas++
		ok, wait := podstate.Available(p, rs.Spec.MinReadySeconds, now)
		if ok {
			status.AvailableReplicas++
		} else if wait > 0 && (after == 0 || wait < after) {
			after = wait
		}
	}
	for _, c := range rs.Status.Conditions {
		if c.Type != appsv1.ReplicaSetReplicaFailure || failed != nil {
			status.Conditions = append(status.Conditions, c)
		}
	}
	at := slices.IndexFunc(status.Conditions, func(c appsv1.ReplicaSetCondition) bool { return c.Type == appsv1.ReplicaSetReplicaFailure })
	switch {
	case failed == nil:
	case at >= 0 && status.Conditions[at].Reason == failed.reason && failed.reason != reasonRefused:
		// What was said first stands: a message that names the pod is another one with each try, and each status that is written wakes
		// the owner of the pods for the next.
	case at >= 0:
		c := status.Conditions[at]
		c.Reason, c.Message = failed.reason, failed.message
		status.Conditions[at] = c
	default:
		status.Conditions = append(status.Conditions, appsv1.ReplicaSetCondition{
			Type: appsv1.ReplicaSetReplicaFailure, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(now),
			Reason: failed.reason, Message: failed.message,
		})
	}
	return status, after
}
