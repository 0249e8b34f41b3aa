// Package daemonset keeps a pod of a DaemonSet on every node that is eligible for it.
//
// What flows through it: a DaemonSet, the nodes, its pods and revisions are read; [plan] says which pods to make and delete, and what the
// status is; the reconciler writes that in bulk. Pods are pinned to their nodes and bound by the scheduler. A node that changes wakes
// only the sets for which it becomes another (nodeKeys). What must stay true: planning is a pure function of what was read and the time
// (TestPlannersArePure in internal/laws); an update leaves at most maxUnavailable nodes without an available pod, or makes at most
// maxSurge pods beside old ones (TestUpdatesKeepWithinTheirBounds); pods that fail again and again are replaced with back-off
// (TestPodsThatFailAreReplacedWithBackOff); what a killed controller leaves behind, the next one goes on from
// (TestRestartBetweenAnyTwoWrites).
package daemonset

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

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/pace"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

const (
	component = "daemonset-controller"
	// A DaemonSet with at least largeSet nodes is looked at every largePace at most: each look goes through all nodes and pods.
	largeSet  = 100
	largePace = 20 * time.Millisecond
	// soon asks for another look after the burst limit cut a step short.
	soon = time.Millisecond
)

type reconciler struct {
	client  client.Client
	pods    *workload.Pods
	history *workload.History
	holds   *workload.Holds
	pace    *pace.Pace
}

// New declares the DaemonSet controller.
func New(c client.Client) controller.Controller {
	kind := setKind()
	selector := func(o api.Object) *metav1.LabelSelector { return o.(*appsv1.DaemonSet).Spec.Selector }
	owners, archive := workload.NewOwners(kind.GroupKind(), selector), workload.NewOwners(kind.GroupKind(), selector)
	history := &workload.History{Client: c, Kind: kind, Owners: archive}
	users := podconfig.NewUsers(func(o api.Object) *corev1.PodTemplateSpec { return &o.(*appsv1.DaemonSet).Spec.Template })
	fits := newFits()
	const mine = "of DaemonSets"
	return controller.Controller{
		Name:    "daemonset",
		Workers: 5,
		Watches: append([]controller.Watch{
			{Resource: api.DaemonSets, Keys: func(e client.Event) []api.Key {
				users.Note(e)
				fits.note(e)
				archive.OwnerKeys(e)
				return owners.OwnerKeys(e)
			}},
			{Resource: api.Pods, Keys: owners.OwnedKeys},
			{Resource: api.ControllerRevisions, Keys: archive.OwnedKeys},
			{Resource: api.Nodes, Keys: fits.nodeKeys},
		}, users.Watches()...),
		Writes: append([]controller.Write{
			controller.Sets(api.DaemonSets, "status"),
			controller.Creates(api.Pods).Of(mine),
			controller.Deletes(api.Pods).Of(mine),
			controller.Sets(api.Pods, "metadata", "ownerReferences").Of(mine),
		}, history.Writes(mine)...),
		Reconciler: &reconciler{
			client: c, history: history, holds: workload.NewHolds(), pace: pace.New(largePace),
			pods: &workload.Pods{Client: c, Kind: kind, Component: component, Owners: owners},
		},
	}
}

// Reconcile takes the next step for one DaemonSet.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	ds, err := client.Get[*appsv1.DaemonSet](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.pods.Owners.Again(key)
		r.history.Owners.Again(key)
		r.holds.Forget(key)
		r.pace.Forget(key)
		return 0, nil
	}
	if err != nil || ds.DeletionTimestamp != nil {
		return 0, err // what the garbage collector takes away meanwhile would be counted as missing
	}
	if wait := r.pace.Wait(key, time.Now()); wait > 0 && ds.Status.DesiredNumberScheduled >= largeSet && ds.Status.ObservedGeneration == ds.Generation {
		return wait, nil
	}
	obs, others, err := r.observe(ctx, ds)
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, nil // nothing can be created there any longer
		}
		return 0, err
	}
	act := plan(ds, obs, time.Now())
	applyErr := r.apply(ctx, ds, act)
	after := act.after
	if act.wrote() {
		// Count what is there now rather than wait to be told of our own writes.
		if err := r.look(ctx, ds, &obs); err != nil {
			return 0, errors.Join(applyErr, err)
		}
		again := plan(ds, obs, time.Now())
		act.status, after = again.status, again.after
	}
	r.pace.Wrote(key, time.Now())
	if err := r.writeStatus(ctx, ds, act.status); err != nil {
		return 0, errors.Join(applyErr, err)
	}
	if act.more && applyErr == nil {
		after = soon
	}
	return after, errors.Join(applyErr, r.history.Remove(ctx, excess(ds, others, obs.pods)))
}

// apply writes what act asks for.
func (r *reconciler) apply(ctx context.Context, ds *appsv1.DaemonSet, act actions) error {
	if _, err := r.pods.Claim(ctx, ds, act.adopt, act.release); err != nil {
		return err
	}
	var events []event.Event
	for _, p := range act.failed {
		events = append(events, event.Warning(ds, "FailedDaemonPod", "Found failed daemon pod %s/%s on node %s, will try to kill it", p.Namespace, p.Name, workload.TargetNode(p)))
	}
	for _, p := range act.succeeded {
		events = append(events, event.Normal(ds, "SucceededDaemonPod", "Found succeeded daemon pod %s/%s on node %s, will try to delete it", p.Namespace, p.Name, workload.TargetNode(p)))
	}
	event.Write(ctx, r.client, component, time.Now(), events...)
	return errors.Join(r.pods.Create(ctx, ds, act.create), r.pods.Delete(ctx, ds, act.delete))
}

// observe reads what matters to ds, and brings its revisions up to date. others are the revisions that keep other templates.
func (r *reconciler) observe(ctx context.Context, ds *appsv1.DaemonSet) (obs observed, others []*appsv1.ControllerRevision, err error) {
	if obs.selector, err = metav1.LabelSelectorAsSelector(ds.Spec.Selector); err != nil {
		return obs, nil, controller.Terminal(fmt.Errorf("selector of DaemonSet %s: %w", api.KeyOf(ds), err))
	}
	obs.collisions = ds.Status.CollisionCount
	revisions, err := r.history.Of(ctx, ds, obs.selector)
	if err != nil {
		return obs, nil, err
	}
	data, err := workload.TemplateData(&ds.Spec.Template)
	if err != nil {
		return obs, nil, controller.Terminal(err)
	}
	config, err := podconfig.Of(ctx, r.client, ds, &ds.Spec.Template)
	if err != nil {
		return obs, nil, err
	}
	place := workload.PlaceIn(revisions, data, config)
	current := place.Current()
	if current != nil {
		current, err = r.history.Renumber(ctx, current, place.Number, config)
	} else {
		current, err = r.create(ctx, ds, &obs, data, config, place.Number)
	}
	if err != nil {
		return obs, nil, err
	}
	obs.hash, obs.byHash = hashOf(current), config != nil && config.Hash != ""
	for _, rev := range place.Same {
		obs.same = append(obs.same, hashOf(rev))
	}
	return obs, place.Others, r.look(ctx, ds, &obs)
}

// create stores the revision of ds's template.
func (r *reconciler) create(ctx context.Context, ds *appsv1.DaemonSet, obs *observed, data []byte, config *podconfig.Now, number int64) (*appsv1.ControllerRevision, error) {
	was := int32(0)
	if obs.collisions != nil {
		was = *obs.collisions
	}
	rev, n, err := r.history.Create(ctx, ds, was, func(collisions int32) *appsv1.ControllerRevision {
		if collisions == was {
			return newRevision(ds, data, config, number, obs.collisions)
		}
		return newRevision(ds, data, config, number, &collisions)
	})
	if n != was {
		obs.collisions = &n
	}
	return rev, err
}

// look reads the nodes and the pods of ds.
func (r *reconciler) look(ctx context.Context, ds *appsv1.DaemonSet, obs *observed) (err error) {
	if obs.nodes, err = client.List[*corev1.Node](ctx, r.client, client.ListOptions{}); err != nil {
		return err
	}
	if obs.pods, err = r.pods.Of(ctx, ds, obs.selector); err != nil {
		return err
	}
	obs.holds = r.holds.Until(api.KeyOf(ds), obs.pods, time.Now())
	return nil
}

// writeStatus stores status unless it is there already.
func (r *reconciler) writeStatus(ctx context.Context, ds *appsv1.DaemonSet, status appsv1.DaemonSetStatus) error {
	if apiequality.Semantic.DeepEqual(ds.Status, status) {
		return nil
	}
	return workload.WriteStatus(ctx, r.client, ds, func(o *appsv1.DaemonSet) bool {
		changed := !apiequality.Semantic.DeepEqual(o.Status, status)
		o.Status = status
		return changed
	})
}
