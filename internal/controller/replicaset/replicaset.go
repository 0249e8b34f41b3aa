// Package replicaset keeps as many pods of a template running as a ReplicaSet asks for, or a ReplicationController, its older form.
//
// What flows through it: an owner, seen as a ReplicaSet whichever of the two it is ([kind]), and the pods it controls or could adopt
// are read; [plan] says which pods to adopt, release, create and delete; the changes are written in bulk and the status counted again.
// What must stay true:
// planning is a pure function of what was read; never more than [burstReplicas] pods are created or deleted in one step; pods that
// nodes refused are replaced with back-off (internal/controller/refusal). Tests: TestPlannersArePure (internal/laws),
// TestScalesUpAndDown, TestPodsThatNodesRefuseAreReplacedWithBackOff, TestReplicationControllerIsScaled.
package replicaset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/pace"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

const (
	// burstReplicas is how many pods one step creates or deletes at most, as in Kubernetes.
	burstReplicas = 500
	// A ReplicaSet with at least largeReplicas pods is looked at every largePace at most: each look counts all its pods, and while
	// it grows there is a change for each of them.
	largeReplicas = 100
	largePace     = 20 * time.Millisecond
)

// reconciler keeps the pods of owners of type T.
type reconciler[T api.Object] struct {
	client client.Client
	kind   kind[T]
	pods   *workload.Pods
	pace   *pace.Pace
}

// New declares the ReplicaSet controller.
func New(c client.Client) controller.Controller { return declare(c, replicaSets()) }

// NewReplicationControllers declares the ReplicationController controller.
func NewReplicationControllers(c client.Client) controller.Controller {
	return declare(c, replicationControllers())
}

func declare[T api.Object](c client.Client, k kind[T]) controller.Controller {
	gvk := k.resource.GroupVersionKind
	owners := workload.NewOwners(gvk.GroupKind(), func(o api.Object) *metav1.LabelSelector { return k.view(o.(T)).Spec.Selector })
	theirs := "of " + gvk.Kind + "s"
	return controller.Controller{
		Name:    k.name,
		Workers: 5,
		Watches: []controller.Watch{
			{Resource: k.resource, Keys: owners.OwnerKeys},
			{Resource: api.Pods, Keys: owners.OwnedKeys},
		},
		Writes: []controller.Write{
			controller.Sets(k.resource, "status"),
			controller.Creates(api.Pods).Of(theirs),
			controller.Deletes(api.Pods).Of(theirs),
			controller.Sets(api.Pods, "metadata", "ownerReferences").Of(theirs),
		},
		Reconciler: &reconciler[T]{
			client: c, kind: k, pace: pace.New(largePace),
			pods: &workload.Pods{Client: c, Kind: gvk, Component: k.component, Owners: owners},
		},
	}
}

// Reconcile takes the next step for one owner.
func (r *reconciler[T]) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	owner, err := client.Get[T](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.pods.Owners.Again(key)
		r.pace.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	rs := r.kind.view(owner)
	if wait := r.pace.Wait(key, time.Now()); wait > 0 && rs.Status.Replicas >= largeReplicas && rs.Status.ObservedGeneration == rs.Generation {
		return wait, nil
	}
	obs, err := r.observe(ctx, rs)
	if err != nil {
		return 0, err
	}
	act := plan(rs, obs, time.Now())

	adopted, err := r.pods.Claim(ctx, owner, act.Adopt, act.Release)
	if err != nil {
		return 0, err
	}
	act.Active = append(act.Active, adopted...)
	after, manageErr := r.manage(ctx, owner, rs, act)
	if act.Create > 0 || len(act.Delete) > 0 {
		// Count what is there now rather than wait to be told of our own writes.
		if obs, err = r.observe(ctx, rs); err != nil {
			return 0, err
		}
		again := plan(rs, obs, time.Now())
		act.Active, act.Terminating, act.Pause = again.Active, again.Terminating, again.Pause
	}
	diff := len(act.Active) - int(*rs.Spec.Replicas)
	failed := failureOf(manageErr, act, diff)
	status, next := newStatus(rs, act.Active, act.Terminating, failed, time.Now())
	r.reportRefused(ctx, owner, rs, failed)
	r.pace.Wrote(key, time.Now())
	if err := r.writeStatus(ctx, owner, status); err != nil {
		return 0, errors.Join(manageErr, err)
	}
	return soonest(after, next, act.Pause.After(time.Now())), manageErr
}

// soonest returns the shortest of waits that is not 0.
func soonest(waits ...time.Duration) (first time.Duration) {
	for _, w := range waits {
		if w > 0 && (first == 0 || w < first) {
			first = w
		}
	}
	return first
}

// reportRefused writes an event for every try that nodes refused, once: the condition has what was reported last.
func (r *reconciler[T]) reportRefused(ctx context.Context, owner T, rs *appsv1.ReplicaSet, failed *failure) {
	if failed == nil || failed.reason != reasonRefused {
		return
	}
	for _, c := range rs.Status.Conditions {
		if c.Reason == reasonRefused && c.Message == failed.message {
			return
		}
	}
	event.Write(ctx, r.client, r.kind.component, time.Now(), event.Warning(owner, reasonRefused, "%s", failed.message))
}

// observe reads the pods that matter to rs.
func (r *reconciler[T]) observe(ctx context.Context, rs *appsv1.ReplicaSet) (observed, error) {
	var obs observed
	var err error
	if obs.selector, err = metav1.LabelSelectorAsSelector(rs.Spec.Selector); err != nil {
		return obs, fmt.Errorf("reading the selector of %s %s: %w", r.kind.resource.Kind, api.KeyOf(rs), err)
	}
	if obs.pods, err = r.pods.Of(ctx, rs, obs.selector); err != nil {
		return obs, err
	}
	if len(obs.pods) > int(*rs.Spec.Replicas) && surplus(rs, obs) > 0 {
		obs.related = r.related(ctx, rs)
	}
	return obs, nil
}

// related returns the pods of all owners of this kind that rs's own controller (the Deployment) has, rs included: scaling down prefers
// nodes that run several of them.
func (r *reconciler[T]) related(ctx context.Context, rs *appsv1.ReplicaSet) []*corev1.Pod {
	uids := []types.UID{rs.UID}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		if siblings, err := client.List[T](ctx, r.client, client.ListOptions{
			Namespace: rs.Namespace, Index: client.IndexOwner, Value: string(ref.UID)}); err == nil {
			uids = nil
			for _, s := range siblings {
				uids = append(uids, s.GetUID())
			}
		}
	}
	var out []*corev1.Pod
	for _, uid := range uids {
		pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{
			Namespace: rs.Namespace, Index: client.IndexOwner, Value: string(uid)})
		if err == nil {
			out = append(out, pods...)
		}
	}
	return out
}

// manage creates or deletes the pods of act. after > 0 asks to come back for the rest.
func (r *reconciler[T]) manage(ctx context.Context, owner T, rs *appsv1.ReplicaSet, act actions) (after time.Duration, err error) {
	pods := make([]*corev1.Pod, act.Create)
	for i := range pods {
		pods[i] = workload.NewPod(rs, r.pods.Kind, &rs.Spec.Template)
	}
	if err := cmp.Or(r.pods.Create(ctx, owner, pods), r.pods.Delete(ctx, owner, act.Delete)); err != nil {
		return 0, err
	}
	if act.More {
		after = time.Millisecond
	}
	return after, nil
}

// writeStatus stores status unless it is there already.
func (r *reconciler[T]) writeStatus(ctx context.Context, owner T, status appsv1.ReplicaSetStatus) error {
	if r.kind.has(owner, status) {
		return nil
	}
	return workload.WriteStatus(ctx, r.client, owner, func(o T) bool {
		if r.kind.has(o, status) {
			return false
		}
		r.kind.set(o, status)
		return true
	})
}
