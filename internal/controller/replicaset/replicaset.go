// Package replicaset keeps as many pods of a template running as a ReplicaSet asks for.
//
// What flows through it: a ReplicaSet and the pods it controls or could adopt are read; [plan] says which pods to adopt,
// release, create and delete; the changes are written in bulk and the status counted again. What must stay true:
// planning is a pure function of what was read; never more than [burstReplicas] pods are created or deleted in one step; pods that
// nodes refused are replaced with back-off (internal/controller/refusal). Tests: TestPlannersArePure (internal/laws),
// TestScalesUpAndDown, TestPodsThatNodesRefuseAreReplacedWithBackOff.
package replicaset

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/pace"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

const (
	component = "replicaset-controller"
	// burstReplicas is how many pods one step creates or deletes at most, as in Kubernetes.
	burstReplicas = 500
	// A ReplicaSet with at least largeReplicas pods is looked at every largePace at most: each look counts all its pods, and while
	// it grows there is a change for each of them.
	largeReplicas = 100
	largePace     = 20 * time.Millisecond
)

type reconciler struct {
	client client.Client
	pods   *workload.Pods
	pace   *pace.Pace
}

// New declares the ReplicaSet controller.
func New(c client.Client) controller.Controller {
	kind := appsv1.SchemeGroupVersion.WithKind("ReplicaSet")
	owners := workload.NewOwners(kind.GroupKind(), func(o api.Object) *metav1.LabelSelector { return o.(*appsv1.ReplicaSet).Spec.Selector })
	return controller.Controller{
		Name:    "replicaset",
		Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.ReplicaSets, Keys: owners.OwnerKeys},
			{Resource: api.Pods, Keys: owners.OwnedKeys},
		},
		Writes: []controller.Write{
			controller.Sets(api.ReplicaSets, "status"),
			controller.Creates(api.Pods).Of("of ReplicaSets"),
			controller.Deletes(api.Pods).Of("of ReplicaSets"),
			controller.Sets(api.Pods, "metadata", "ownerReferences").Of("of ReplicaSets"),
		},
		Reconciler: &reconciler{
			client: c, pace: pace.New(largePace),
			pods: &workload.Pods{Client: c, Kind: kind, Component: component, Owners: owners},
		},
	}
}

// Reconcile takes the next step for one ReplicaSet.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	rs, err := client.Get[*appsv1.ReplicaSet](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.pods.Owners.Again(key)
		r.pace.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if wait := r.pace.Wait(key, time.Now()); wait > 0 && rs.Status.Replicas >= largeReplicas && rs.Status.ObservedGeneration == rs.Generation {
		return wait, nil
	}
	obs, err := r.observe(ctx, rs)
	if err != nil {
		return 0, err
	}
	act := plan(rs, obs, time.Now())

	adopted, err := r.pods.Claim(ctx, rs, act.Adopt, act.Release)
	if err != nil {
		return 0, err
	}
	act.Active = append(act.Active, adopted...)
	after, manageErr := r.manage(ctx, rs, act)
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
	r.tellRefused(ctx, rs, failed)
	r.pace.Wrote(key, time.Now())
	if err := r.writeStatus(ctx, rs, status); err != nil {
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

// tellRefused writes an event for every try that nodes refused, once: the condition has what was told last.
func (r *reconciler) tellRefused(ctx context.Context, rs *appsv1.ReplicaSet, failed *failure) {
	if failed == nil || failed.reason != reasonRefused {
		return
	}
	for _, c := range rs.Status.Conditions {
		if c.Reason == reasonRefused && c.Message == failed.message {
			return
		}
	}
	event.Write(ctx, r.client, component, time.Now(), event.Warning(rs, reasonRefused, "%s", failed.message))
}

// observe reads the pods that matter to rs.
func (r *reconciler) observe(ctx context.Context, rs *appsv1.ReplicaSet) (observed, error) {
	var obs observed
	var err error
	if obs.selector, err = metav1.LabelSelectorAsSelector(rs.Spec.Selector); err != nil {
		return obs, fmt.Errorf("selector of ReplicaSet %s: %w", api.KeyOf(rs), err)
	}
	if obs.pods, err = r.pods.Of(ctx, rs, obs.selector); err != nil {
		return obs, err
	}
	if len(obs.pods) > int(*rs.Spec.Replicas) && surplus(rs, obs) > 0 {
		obs.related = r.related(ctx, rs)
	}
	return obs, nil
}

// related returns the pods of all ReplicaSets of rs's own controller (the Deployment), rs included: scaling down prefers nodes that run
// several of them.
func (r *reconciler) related(ctx context.Context, rs *appsv1.ReplicaSet) []*corev1.Pod {
	owners := []*appsv1.ReplicaSet{rs}
	if ref := metav1.GetControllerOfNoCopy(rs); ref != nil {
		if siblings, err := client.List[*appsv1.ReplicaSet](ctx, r.client, client.ListOptions{
			Namespace: rs.Namespace, Index: client.IndexOwner, Value: string(ref.UID)}); err == nil {
			owners = siblings
		}
	}
	var out []*corev1.Pod
	for _, o := range owners {
		pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{
			Namespace: rs.Namespace, Index: client.IndexOwner, Value: string(o.UID)})
		if err == nil {
			out = append(out, pods...)
		}
	}
	return out
}

// manage creates or deletes the pods of act. after > 0 asks to come back for the rest.
func (r *reconciler) manage(ctx context.Context, rs *appsv1.ReplicaSet, act actions) (after time.Duration, err error) {
	pods := make([]*corev1.Pod, act.Create)
	for i := range pods {
		pods[i] = workload.NewPod(rs, r.pods.Kind, &rs.Spec.Template)
	}
	if err := cmp.Or(r.pods.Create(ctx, rs, pods), r.pods.Delete(ctx, rs, act.Delete)); err != nil {
		return 0, err
	}
	if act.More {
		after = time.Millisecond
	}
	return after, nil
}

// writeStatus stores status unless it is there already.
func (r *reconciler) writeStatus(ctx context.Context, rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) error {
	if apiequality.Semantic.DeepEqual(rs.Status, status) {
		return nil
	}
	return workload.WriteStatus(ctx, r.client, rs, func(o *appsv1.ReplicaSet) bool {
		changed := !apiequality.Semantic.DeepEqual(o.Status, status)
		o.Status = status
		return changed
	})
}
