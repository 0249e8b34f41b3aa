package disruption

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// deletionTimeout is how long an eviction that was granted may take to become a deletion. After that the pod counts again.
const deletionTimeout = 2 * time.Minute

// scale is how many pods one controller is to have.
type scale struct {
	controller types.UID
	replicas   int32
}

// scales has the scales that count for pods, by the UID of what controls these.
type scales map[types.UID]scale

// outcome is what a budget's status ought to be, and what else was found out.
type outcome struct {
	status policyv1.PodDisruptionBudgetStatus
	// overdue are pods whose eviction was granted deletionTimeout ago and that nobody has deleted.
	overdue []*corev1.Pod
	// recheck is how long until the next pod may become overdue; 0 if none can.
	recheck time.Duration
}

// planStatus counts pods, which are all that pdb selects, against what pdb asks for.
func planStatus(pdb *policyv1.PodDisruptionBudget, pods []*corev1.Pod, known scales, now time.Time) (outcome, error) {
	expected, desired, err := planHealthy(pdb, pods, known)
	if err != nil {
		return outcome{}, err
	}
	out := outcome{}
	disrupted := map[string]metav1.Time{}
	healthy := int32(0)
	for _, pod := range pods {
		if pod.DeletionTimestamp != nil {
			continue
		}
		if granted, ok := pdb.Status.DisruptedPods[pod.Name]; ok {
			left := granted.Add(deletionTimeout).Sub(now)
			if left > 0 {
				disrupted[pod.Name] = granted
				if out.recheck == 0 || left < out.recheck {
					out.recheck = left
				}
				continue
			}
			out.overdue = append(out.overdue, pod)
		}
		if podstate.Ready(pod) {
			healthy++
		}
	}
	// A budget that expects no pods allows nothing, so that its first pods are safe until they have been counted.
	allowed := int32(0)
	if expected > 0 {
		allowed = max(healthy-desired, 0)
	}
	out.status = policyv1.PodDisruptionBudgetStatus{
		ObservedGeneration: pdb.Generation,
		DisruptedPods:      disrupted,
		DisruptionsAllowed: allowed,
		CurrentHealthy:     healthy,
		DesiredHealthy:     desired,
		ExpectedPods:       expected,
		Conditions:         pdb.DeepCopy().Status.Conditions,
	}
	condition := metav1.Condition{Status: metav1.ConditionFalse, Reason: policyv1.InsufficientPodsReason}
	if allowed > 0 {
		condition = metav1.Condition{Status: metav1.ConditionTrue, Reason: policyv1.SufficientPodsReason}
	}
	setCondition(&out.status, condition, now)
	return out, nil
}

// planFailed is the status of a budget that cannot be calculated because of why: nothing is allowed.
func planFailed(pdb *policyv1.PodDisruptionBudget, why error, now time.Time) policyv1.PodDisruptionBudgetStatus {
	status := pdb.DeepCopy().Status
	status.DisruptionsAllowed = 0
	setCondition(&status, metav1.Condition{Status: metav1.ConditionFalse, Reason: policyv1.SyncFailedReason, Message: why.Error()}, now)
	return status
}

func setCondition(status *policyv1.PodDisruptionBudgetStatus, c metav1.Condition, now time.Time) {
	c.Type, c.ObservedGeneration, c.LastTransitionTime = policyv1.DisruptionAllowedCondition, status.ObservedGeneration, metav1.NewTime(now)
	apimeta.SetStatusCondition(&status.Conditions, c)
}

// planHealthy returns how many pods there ought to be, and how many of them have to be healthy. Only an absolute minAvailable
// needs no knowledge of the pods' controllers; everything else is a part of their scale.
func planHealthy(pdb *policyv1.PodDisruptionBudget, pods []*corev1.Pod, known scales) (expected, desired int32, err error) {
	spec := &pdb.Spec
	switch {
	case spec.MaxUnavailable != nil:
		expected = expectedPods(pods, known)
		n, err := intstr.GetScaledValueFromIntOrPercent(spec.MaxUnavailable, int(expected), true)
		if err != nil {
			return 0, 0, fmt.Errorf("spec.maxUnavailable: %w", err)
		}
		return expected, max(expected-int32(n), 0), nil
	case spec.MinAvailable == nil:
		return 0, 0, nil
	case spec.MinAvailable.Type == intstr.Int:
		return int32(len(pods)), spec.MinAvailable.IntVal, nil
	}
	expected = expectedPods(pods, known)
	n, err := intstr.GetScaledValueFromIntOrPercent(spec.MinAvailable, int(expected), true)
	if err != nil {
		return 0, 0, fmt.Errorf("spec.minAvailable: %w", err)
	}
	return expected, int32(n), nil
}

// expectedPods adds up the scales of the pods' controllers. A pod without a controller has no scale and adds nothing, though it
// counts as healthy: such pods want an absolute minAvailable
// (https://kubernetes.io/docs/tasks/run-application/configure-pdb/#arbitrary-controllers-and-selectors).
func expectedPods(pods []*corev1.Pod, known scales) int32 {
	sum := map[types.UID]int32{} // by the controllers that have the scale: those of several ReplicaSets have one
	for _, pod := range pods {
		if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
			s := known[ref.UID]
			sum[s.controller] = s.replicas
		}
	}
	total := int32(0)
	for _, n := range sum {
		total += n
	}
	return total
}

// relative reports whether what pdb asks for is a part of the pods' scales, which then have to be known.
func relative(pdb *policyv1.PodDisruptionBudget) bool {
	return pdb.Spec.MaxUnavailable != nil || pdb.Spec.MinAvailable != nil && pdb.Spec.MinAvailable.Type == intstr.String
}
