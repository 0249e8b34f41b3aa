package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// maxDisruptedPods bounds status.disruptedPods: a controller that does not run must not let it grow for ever.
const maxDisruptedPods = 2000

// Evict deletes a pod if its disruption budget lets it go (kubectl drain).
func (r *Registry) Evict(ctx context.Context, eviction *policyv1.Eviction, opts metav1.CreateOptions) error {
	key := api.KeyOf(eviction)
	err := r.Admit(ctx, &admission.Attributes{
		Operation: admission.Create, Resource: api.Pods, Subresource: "eviction", Key: key, Object: eviction, Options: &opts, DryRun: len(opts.DryRun) > 0,
	})
	if err != nil {
		return err
	}
	del := metav1.DeleteOptions{}
	if eviction.DeleteOptions != nil {
		del = *eviction.DeleteOptions
	}
	if len(del.DryRun) == 0 {
		del.DryRun = opts.DryRun
	}
	rev, err := r.Get(ctx, api.Pods, key)
	if err != nil {
		return err
	}
	pod := rev.Object.(*corev1.Pod)
	if !alwaysEvictable(pod) {
		if err := r.spendBudget(ctx, pod, len(del.DryRun) > 0); err != nil {
			return err
		}
		if del.Preconditions == nil {
			del.Preconditions = &metav1.Preconditions{UID: &pod.UID} // the budget was spent for this pod, not for its successor
		}
	}
	if len(del.DryRun) == 0 {
		if err := r.markEvicted(ctx, key, &del); err != nil {
			return err
		}
	}
	_, _, err = r.delete(ctx, api.Pods, key, del, nil) // the eviction has been admitted
	return err
}

// markEvicted notes on a pod that it does not end by itself, by which Jobs tell this end from a failure (KEP-3329). What del asks of the pod
// is asked of it as it was before.
func (r *Registry) markEvicted(ctx context.Context, key api.Key, del *metav1.DeleteOptions) error {
	want := corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "EvictionByEvictionAPI", Message: "Eviction API: evicting"}
	out, _, err := r.Update(ctx, api.Pods, key, "status", func(current api.Object) (api.Object, error) {
		if err := preconditions(api.Pods, current, del.Preconditions); err != nil {
			return nil, err
		}
		pod := current.(*corev1.Pod).DeepCopy()
		want.ObservedGeneration = pod.Generation
		want.LastTransitionTime = metav1.NewTime(time.Now())
		for i, c := range pod.Status.Conditions {
			if c.Type == want.Type {
				if c.Status == want.Status {
					want.LastTransitionTime = c.LastTransitionTime
				}
				pod.Status.Conditions[i] = want
				return pod, nil
			}
		}
		pod.Status.Conditions = append(pod.Status.Conditions, want)
		return pod, nil
	}, UpdateOptions{unasked: true})
	if err != nil {
		return err
	}
	if p := del.Preconditions; p != nil && p.ResourceVersion != nil {
		next := *p
		next.ResourceVersion = ptr.To(out.GetResourceVersion())
		del.Preconditions = &next
	}
	return nil
}

// alwaysEvictable reports whether a pod does not count as available: its deletion disrupts nothing.
func alwaysEvictable(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed ||
		pod.Status.Phase == corev1.PodPending || pod.DeletionTimestamp != nil
}

// spendBudget takes one disruption from the budget that covers pod, if there is one.
func (r *Registry) spendBudget(ctx context.Context, pod *corev1.Pod, dryRun bool) error {
	budget, err := r.budgetOf(ctx, pod)
	if err != nil || budget == nil {
		return err
	}
	transform := func(current api.Object) (api.Object, error) {
		pdb := current.(*policyv1.PodDisruptionBudget)
		free, err := mayDisrupt(pdb, pod)
		if err != nil {
			return nil, err
		}
		out := pdb.DeepCopy()
		if !free {
			out.Status.DisruptionsAllowed--
			if out.Status.DisruptedPods == nil {
				out.Status.DisruptedPods = map[string]metav1.Time{}
			}
			out.Status.DisruptedPods[pod.Name] = metav1.Time{Time: time.Now()}
		}
		return out, nil
	}
	opts := UpdateOptions{unasked: true}
	if dryRun {
		opts.DryRun = []string{metav1.DryRunAll}
	}
	_, _, err = r.Update(ctx, api.PodDisruptionBudgets, api.KeyOf(budget), "status", transform, opts)
	return err
}

// budgetOf returns the one budget that covers pod.
func (r *Registry) budgetOf(ctx context.Context, pod *corev1.Pod) (*policyv1.PodDisruptionBudget, error) {
	list, err := r.List(ctx, api.PodDisruptionBudgets, ListOptions{Selection: Selection{Namespace: pod.Namespace}})
	if err != nil {
		return nil, err
	}
	var found *policyv1.PodDisruptionBudget
	for _, rev := range list.Items {
		pdb := rev.Object.(*policyv1.PodDisruptionBudget)
		sel, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
		if err != nil || !sel.Matches(labels.Set(pod.Labels)) {
			continue // an empty selector matches every pod in policy/v1, a missing one none
		}
		if found != nil {
			return nil, apierrors.NewInternalError(errors.New("this pod has more than one PodDisruptionBudget, which the eviction subresource does not support"))
		}
		found = pdb
	}
	return found, nil
}

// mayDisrupt decides whether pod may go. free says that it does not count against the budget, as it is not ready.
func mayDisrupt(pdb *policyv1.PodDisruptionBudget, pod *corev1.Pod) (free bool, err error) {
	healthyEnough := pdb.Status.CurrentHealthy >= pdb.Status.DesiredHealthy && pdb.Status.DesiredHealthy > 0
	if !podReady(pod) {
		always := pdb.Spec.UnhealthyPodEvictionPolicy != nil && *pdb.Spec.UnhealthyPodEvictionPolicy == policyv1.AlwaysAllow
		if always || healthyEnough { // KEP-3017
			return true, nil
		}
	}
	refuse := func(retry int, format string, args ...any) error {
		e := apierrors.NewTooManyRequests("Cannot evict pod as it would violate the pod's disruption budget.", retry)
		e.ErrStatus.Details.Causes = append(e.ErrStatus.Details.Causes, metav1.StatusCause{Type: policyv1.DisruptionBudgetCause, Message: fmt.Sprintf(format, args...)})
		return e
	}
	switch {
	case pdb.Status.ObservedGeneration < pdb.Generation:
		return false, refuse(10, "The disruption budget %s is still being processed by the server.", pdb.Name)
	case pdb.Status.DisruptionsAllowed < 0:
		return false, apierrors.NewForbidden(api.PodDisruptionBudgets.GroupResource(), pdb.Name, fmt.Errorf("pdb disruptions allowed is negative"))
	case len(pdb.Status.DisruptedPods) > maxDisruptedPods:
		return false, apierrors.NewForbidden(api.PodDisruptionBudgets.GroupResource(), pdb.Name, fmt.Errorf("DisruptedPods map too big - too many evictions not confirmed by PDB controller"))
	case pdb.Status.DisruptionsAllowed == 0:
		return false, refuse(0, "The disruption budget %s needs %d healthy pods and has %d currently", pdb.Name, pdb.Status.DesiredHealthy, pdb.Status.CurrentHealthy)
	}
	return false, nil
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
