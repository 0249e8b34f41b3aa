// Package replicaset keeps as many pods of a template running as a ReplicaSet asks for.
//
// What flows through it: a ReplicaSet and the pods it controls or could adopt are read; [plan] says which pods to adopt,
// release, create and delete; the changes are written in bulk and the status counted again. What must stay true:
// planning is a pure function of what was read; never more than [burstReplicas] pods are created or deleted in one step, and
// creation begins with one pod and doubles, so that a quota or a webhook that refuses every pod is asked once and not five
// hundred times; pods that nodes refused are replaced with back-off (internal/controller/refusal).
package replicaset

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/pace"
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
	client  client.Client
	orphans *orphans
	pace    *pace.Pace
}

// New declares the ReplicaSet controller.
func New(c client.Client) controller.Controller {
	r := &reconciler{client: c, orphans: newOrphans(), pace: pace.New(largePace)}
	return controller.Controller{
		Name:    "replicaset",
		Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.ReplicaSets},
			{Resource: api.Pods, Keys: r.podKeys},
		},
		Writes:     []string{"apps/ReplicaSet:status", "/Pod:created by ReplicaSets", "/Pod:metadata.ownerReferences of ReplicaSets"},
		Reconciler: r,
	}
}

// podKeys maps a pod to its ReplicaSet, an orphan to those that might want it.
func (r *reconciler) podKeys(e client.Event) []api.Key {
	return ownership.EventKeys(e, appsv1.SchemeGroupVersion.WithKind("ReplicaSet").GroupKind(), func(pod api.Object) []api.Key {
		all, err := client.List[*appsv1.ReplicaSet](context.Background(), r.client, client.ListOptions{Namespace: pod.GetNamespace()})
		if err != nil {
			return nil
		}
		var keys []api.Key
		for _, rs := range all {
			if sel, err := metav1.LabelSelectorAsSelector(rs.Spec.Selector); err == nil && !sel.Empty() && sel.Matches(labels.Set(pod.GetLabels())) {
				r.orphans.seen(api.KeyOf(rs))
				keys = append(keys, api.KeyOf(rs))
			}
		}
		return keys
	})
}

// Reconcile takes the next step for one ReplicaSet.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	rs, err := client.Get[*appsv1.ReplicaSet](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.orphans.seen(key)
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

	adopted, err := r.claim(ctx, rs, act)
	if err != nil {
		r.orphans.seen(key) // not all of them are adopted
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
	if obs.pods, err = client.List[*corev1.Pod](ctx, r.client, client.ListOptions{
		Namespace: rs.Namespace, Index: client.IndexOwner, Value: string(rs.UID)}); err != nil {
		return obs, err
	}
	if r.orphans.expected(api.KeyOf(rs), rs.UID) {
		all, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Namespace: rs.Namespace, Labels: obs.selector})
		if err != nil {
			r.orphans.seen(api.KeyOf(rs))
			return obs, err
		}
		for _, p := range all {
			if metav1.GetControllerOfNoCopy(p) == nil {
				obs.pods = append(obs.pods, p)
			}
		}
	}
	obs.related = func() []*corev1.Pod { return r.related(ctx, rs) }
	return obs, nil
}

// related returns the pods of all ReplicaSets of rs's own controller (the Deployment): scaling down prefers nodes that run
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

// claim writes the adoptions and releases of act.
func (r *reconciler) claim(ctx context.Context, rs *appsv1.ReplicaSet, act actions) (adopted []*corev1.Pod, err error) {
	for _, p := range act.Release {
		if err := ownership.Release(ctx, r.client, rs, p); err != nil {
			return nil, err
		}
	}
	for _, p := range act.Adopt {
		got, err := ownership.Adopt(ctx, r.client, rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"), p)
		if err != nil {
			return nil, err
		}
		if got != nil {
			adopted = append(adopted, got)
		}
	}
	return adopted, nil
}

// manage creates or deletes the pods of act and tells about it in events. after > 0 asks to come back for the rest.
func (r *reconciler) manage(ctx context.Context, rs *appsv1.ReplicaSet, act actions) (after time.Duration, err error) {
	var events []event.Event
	var errs []error
	if act.Create > 0 {
		events, errs = r.create(ctx, rs, act.Create)
	}
	doomed := make([]api.Object, len(act.Delete))
	for i, p := range act.Delete {
		doomed[i] = p
	}
	for i, res := range r.client.DeleteMany(ctx, doomed, metav1.DeleteOptions{}) {
		switch err := res.Err; {
		case err == nil:
			events = append(events, event.Normal(rs, "SuccessfulDelete", "Deleted pod: %s", doomed[i].GetName()))
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err): // gone already, perhaps with a successor of the same name
		default:
			events = append(events, event.Warning(rs, "FailedDelete", "Error deleting: %v", err))
			errs = append(errs, err)
		}
	}
	event.Write(ctx, r.client, component, time.Now(), events...)
	if len(errs) > 0 {
		return 0, errs[0] // they are mostly alike
	}
	if act.More {
		after = time.Millisecond
	}
	return after, nil
}

// create makes n pods in batches of 1, 2, 4, ... and stops after the first batch in which one fails.
func (r *reconciler) create(ctx context.Context, rs *appsv1.ReplicaSet, n int) (events []event.Event, errs []error) {
	for size := 1; n > 0 && len(errs) == 0; size *= 2 {
		size = min(size, n)
		n -= size
		pods := make([]api.Object, size)
		for i := range pods {
			pods[i] = newPod(rs)
		}
		for _, res := range r.client.CreateMany(ctx, pods) {
			switch {
			case res.Err == nil:
				events = append(events, event.Normal(rs, "SuccessfulCreate", "Created pod: %s", res.Object.GetName()))
			case apierrors.HasStatusCause(res.Err, corev1.NamespaceTerminatingCause):
				return events, errs // nothing can be created here any more, and nothing needs to be
			default:
				events = append(events, event.Warning(rs, "FailedCreate", "Error creating: %v", res.Err))
				errs = append(errs, res.Err)
			}
		}
	}
	return events, errs
}

// writeStatus stores status unless it is there already.
func (r *reconciler) writeStatus(ctx context.Context, rs *appsv1.ReplicaSet, status appsv1.ReplicaSetStatus) error {
	if apiequality.Semantic.DeepEqual(rs.Status, status) {
		return nil
	}
	_, err := client.Mutate(ctx, r.client, api.KeyOf(rs), "status", func(o *appsv1.ReplicaSet) bool {
		if o.UID != rs.UID || apiequality.Semantic.DeepEqual(o.Status, status) {
			return false
		}
		o.Status = status
		return true
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
