// Package disruption keeps the status of PodDisruptionBudgets: how many pods each budget expects, how many have to be healthy, how
// many are, and so how many evictions it can grant at the moment.
//
// What flows through it: a budget, the pods that it selects and the scale of what controls them are read; [planStatus] counts; the
// status is written if it differs. The eviction subresource (internal/server) spends what the status allows, and notes in
// status.disruptedPods whom it let go; the preemption of the scheduler reads it. What must stay true: planning is a pure function
// of what was read; a status is only ever written over the one that it was calculated from, so that an eviction granted meanwhile
// is never forgotten; a budget that cannot be calculated allows nothing. Tests: TestPlannersArePure (internal/laws),
// TestNeverOverwritesAGrant, TestUnknownControllerAllowsNothing.
package disruption

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/pace"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

const (
	component = "disruption-controller"
	// statusPace is the least time between two writes of one budget: a roll-out makes hundreds of pods ready one by one.
	statusPace = 50 * time.Millisecond
)

type reconciler struct {
	client client.Client
	pace   *pace.Pace
}

// New declares the disruption controller.
func New(c client.Client) controller.Controller {
	r := &reconciler{client: c, pace: pace.New(statusPace)}
	return controller.Controller{
		Name:    "disruption",
		Workers: 2,
		Watches: []controller.Watch{
			{Resource: api.PodDisruptionBudgets},
			{Resource: api.Pods, Keys: r.podKeys},
			{Resource: api.ReplicaSets, Keys: r.scaleKeys},
			{Resource: api.Deployments, Keys: r.scaleKeys},
		},
		Writes: []controller.Write{
			controller.Sets(api.PodDisruptionBudgets, "status"),
		},
		Reconciler: r,
	}
}

// podKeys maps a pod to the budgets that select it or did. A change that no budget counts maps to none.
func (r *reconciler) podKeys(e client.Event) []api.Key {
	pod := e.Object.(*corev1.Pod)
	old, _ := e.Old.(*corev1.Pod)
	switch {
	case old == nil:
		return r.budgets(pod.Namespace, pod.Labels)
	case e.Type == client.Modified && !counted(old, pod):
		return nil
	case labels.Equals(old.Labels, pod.Labels):
		return r.budgets(pod.Namespace, pod.Labels)
	}
	return r.budgets(pod.Namespace, pod.Labels, old.Labels)
}

// counted reports whether a budget could count two states of a pod differently.
func counted(a, b *corev1.Pod) bool {
	return a.UID != b.UID || podstate.Ready(a) != podstate.Ready(b) || (a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) ||
		controllerUID(a) != controllerUID(b) || !labels.Equals(a.Labels, b.Labels)
}

func controllerUID(o metav1.Object) string {
	if ref := metav1.GetControllerOfNoCopy(o); ref != nil {
		return string(ref.UID)
	}
	return ""
}

// scaleKeys maps a ReplicaSet or Deployment that came, went, or has another scale or controller, to the budgets of its pods. The
// number of its pods need not change with its scale: a quota may be in the way.
func (r *reconciler) scaleKeys(e client.Event) []api.Key {
	replicas, template := shape(e.Object)
	if e.Type == client.Modified && e.Old != nil {
		if before, _ := shape(e.Old); before == replicas && controllerUID(e.Old) == controllerUID(e.Object) {
			return nil
		}
	}
	return r.budgets(e.Object.GetNamespace(), template)
}

// shape returns how many pods o makes, and with which labels.
func shape(o api.Object) (replicas int32, template labels.Set) {
	switch o := o.(type) {
	case *appsv1.ReplicaSet:
		return ptr.Deref(o.Spec.Replicas, 1), o.Spec.Template.Labels
	case *appsv1.Deployment:
		return ptr.Deref(o.Spec.Replicas, 1), o.Spec.Template.Labels
	}
	return 0, nil
}

// budgets returns the budgets of a namespace that select one of the label sets.
func (r *reconciler) budgets(namespace string, sets ...map[string]string) []api.Key {
	all, err := client.List[*policyv1.PodDisruptionBudget](context.Background(), r.client, client.ListOptions{Namespace: namespace})
	if err != nil {
		return nil
	}
	var keys []api.Key
	for _, pdb := range all {
		selector, err := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
		if err == nil && slices.ContainsFunc(sets, func(s map[string]string) bool { return selector.Matches(labels.Set(s)) }) {
			keys = append(keys, api.KeyOf(pdb))
		}
	}
	return keys
}

// Reconcile brings the status of one budget up to date.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	pdb, err := client.Get[*policyv1.PodDisruptionBudget](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.pace.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	if wait := r.pace.Wait(key, now); wait > 0 {
		return wait, nil
	}
	var pods []*corev1.Pod
	selector, failed := metav1.LabelSelectorAsSelector(pdb.Spec.Selector)
	if failed == nil {
		if pods, err = client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Namespace: pdb.Namespace, Labels: selector}); err != nil {
			return 0, err
		}
	}
	var out outcome
	var known scales
	if failed == nil && relative(pdb) {
		known, failed = r.scales(ctx, pods)
	}
	if failed == nil {
		out, failed = planStatus(pdb, pods, known, now)
	}
	if failed != nil {
		// Trying again mends nothing: it takes another pod, controller or budget, each of which is an event.
		out = outcome{status: planFailed(pdb, failed, now)}
	}
	if equality.Semantic.DeepEqual(pdb.Status, out.status) {
		return out.recheck, nil
	}
	next := pdb.DeepCopy()
	next.Status = out.status
	if _, err := r.client.Update(ctx, next, "status"); err != nil {
		if apierrors.IsNotFound(err) {
			return 0, nil
		}
		return 0, fmt.Errorf("writing the status of budget %s: %w", key, err)
	}
	r.pace.Wrote(key, now)
	event.Write(ctx, r.client, component, now, events(pdb, pods, out, failed)...)
	return out.recheck, nil
}

// events tells of what an operator should know.
func events(pdb *policyv1.PodDisruptionBudget, pods []*corev1.Pod, out outcome, failed error) []event.Event {
	var list []event.Event
	switch {
	case failed != nil:
		list = append(list, event.Warning(pdb, "CalculateExpectedPodCountFailed", "Failed to calculate the number of expected pods: %v", failed))
	case len(pods) == 0:
		list = append(list, event.Normal(pdb, "NoPods", "No matching pods found"))
	}
	for _, pod := range out.overdue {
		list = append(list, event.Warning(pod, "NotDeleted", "Pod was expected by PDB %s to be deleted but it wasn't", api.KeyOf(pdb)))
	}
	return list
}

// scales looks up the scales of what controls pods.
func (r *reconciler) scales(ctx context.Context, pods []*corev1.Pod) (scales, error) {
	out := scales{}
	for _, pod := range pods {
		ref := metav1.GetControllerOfNoCopy(pod)
		if ref == nil {
			continue
		}
		if _, ok := out[ref.UID]; ok {
			continue
		}
		s, err := r.scaleOf(ctx, pod, ref)
		if err != nil {
			return nil, err
		}
		out[ref.UID] = s
	}
	return out, nil
}

// scaleOf looks up the scale that counts for pod: a Deployment's for pods of its ReplicaSets, else that of its controller.
func (r *reconciler) scaleOf(ctx context.Context, pod *corev1.Pod, ref *metav1.OwnerReference) (scale, error) {
	owner, s, err := r.scaled(ctx, pod.Namespace, ref)
	if err != nil {
		return scale{}, err
	}
	if owner == nil {
		return scale{}, fmt.Errorf("found no controllers for pod %q", pod.Name)
	}
	above := metav1.GetControllerOfNoCopy(owner)
	if _, ok := ownership.ControllerKey(owner, api.Deployments.GroupVersionKind.GroupKind()); ok {
		// A Deployment that is gone leaves the ReplicaSet's own scale.
		if d, ds, err := r.scaled(ctx, pod.Namespace, above); err == nil && d != nil {
			return ds, nil
		}
	}
	return s, nil
}

// scaled returns the object that ref names and its scale, or a nil object if there is none.
func (r *reconciler) scaled(ctx context.Context, namespace string, ref *metav1.OwnerReference) (api.Object, scale, error) {
	res := r.client.Served().Now().Kind(schema.FromAPIVersionAndKind(ref.APIVersion, ref.Kind))
	switch {
	case res == nil:
		return nil, scale{}, fmt.Errorf("no matches for kind %q in version %q", ref.Kind, ref.APIVersion)
	case res.Scale == nil:
		return nil, scale{}, fmt.Errorf("%s does not implement the scale subresource", res.GroupResource())
	}
	obj, err := r.client.Get(ctx, res, api.Key{Namespace: namespace, Name: ref.Name})
	if apierrors.IsNotFound(err) || err == nil && obj.GetUID() != ref.UID {
		return nil, scale{}, nil
	}
	if err != nil {
		return nil, scale{}, errors.Join(fmt.Errorf("reading %s %s/%s", res.GroupResource(), namespace, ref.Name), err)
	}
	replicas, _, _, err := res.Scale.Get(obj)
	if err != nil {
		return nil, scale{}, err
	}
	return obj, scale{obj.GetUID(), replicas}, nil
}
