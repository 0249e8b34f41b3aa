// Package statefulset keeps the pods of a StatefulSet: each with a name of its own, made, updated and removed in order.
//
// What flows through it: a StatefulSet, its pods, claims and revisions are read; [plan] says which pods and claims to make, mend and
// delete, and what the status is; the reconciler writes that. What must stay true: planning is a pure function of what was read and the
// time (TestPlannersArePure in internal/laws); there are never two pods of one ordinal (TestRestartBetweenAnyTwoWrites); with ordered
// management no pod is made or deleted before its predecessors are available (TestOrderedLife); a revision that cannot become ready does
// not stand in the way of the next one (TestABrokenRevisionIsReplaced); pods that end again and again are replaced with back-off
// (TestPodsThatFailAreReplacedWithBackOff).
package statefulset

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/pace"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

const (
	component = "statefulset-controller"
	// A StatefulSet with at least largeReplicas pods is looked at every largePace at most: each look counts all its pods.
	largeReplicas = 100
	largePace     = 20 * time.Millisecond
	// soon asks for another look after something that was read turned out to have changed.
	soon = time.Millisecond
)

type reconciler struct {
	client  client.Client
	pods    *workload.Pods
	history *workload.History
	holds   *workload.Holds
	pace    *pace.Pace
}

// New declares the StatefulSet controller.
func New(c client.Client) controller.Controller {
	kind := setKind()
	selector := func(o api.Object) *metav1.LabelSelector { return o.(*appsv1.StatefulSet).Spec.Selector }
	owners, archive := workload.NewOwners(kind.GroupKind(), selector), workload.NewOwners(kind.GroupKind(), selector)
	history := &workload.History{Client: c, Kind: kind, Owners: archive}
	users := podconfig.NewUsers(func(o api.Object) *corev1.PodTemplateSpec { return &o.(*appsv1.StatefulSet).Spec.Template })
	const mine = "of StatefulSets"
	return controller.Controller{
		Name:    "statefulset",
		Workers: 5,
		Watches: append([]controller.Watch{
			{Resource: api.StatefulSets, Keys: func(e client.Event) []api.Key {
				users.Note(e)
				archive.OwnerKeys(e)
				return owners.OwnerKeys(e)
			}},
			{Resource: api.Pods, Keys: owners.OwnedKeys},
			{Resource: api.ControllerRevisions, Keys: archive.OwnedKeys},
			{Resource: api.PersistentVolumeClaims, Keys: claimKeys},
		}, users.Watches()...),
		Writes: append([]controller.Write{
			controller.Sets(api.StatefulSets, "status"),
			controller.Creates(api.Pods).Of(mine),
			controller.Deletes(api.Pods).Of(mine),
			controller.Sets(api.Pods, "metadata", "ownerReferences").Of(mine),
			controller.Sets(api.Pods, "metadata", "labels").Of(mine),
			controller.Creates(api.PersistentVolumeClaims).Of(mine),
			controller.Sets(api.PersistentVolumeClaims, "metadata", "ownerReferences").Of(mine),
		}, history.Writes(mine)...),
		Reconciler: &reconciler{
			client: c, history: history, holds: workload.NewHolds(), pace: pace.New(largePace),
			pods: &workload.Pods{Client: c, Kind: kind, Component: component, Owners: owners},
		},
	}
}

// claimKeys maps the end of a claim to the sets that may have it: its name is TEMPLATE-SET-ORDINAL, and both may have dashes.
func claimKeys(e client.Event) []api.Key {
	if e.Type != client.Deleted {
		return nil
	}
	rest, ordinal := parse(e.Object.GetName())
	if ordinal < 0 {
		return nil
	}
	var keys []api.Key
	for {
		_, set, ok := strings.Cut(rest, "-")
		if !ok {
			return keys
		}
		keys = append(keys, api.Key{Namespace: e.Object.GetNamespace(), Name: set})
		rest = set
	}
}

// Reconcile takes the next step for one StatefulSet.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	set, err := client.Get[*appsv1.StatefulSet](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.pods.Owners.Again(key)
		r.history.Owners.Again(key)
		r.holds.Forget(key)
		r.pace.Forget(key)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if wait := r.pace.Wait(key, time.Now()); wait > 0 && set.Status.Replicas >= largeReplicas && set.Status.ObservedGeneration == set.Generation {
		return wait, nil
	}
	obs, revisions, err := r.observe(ctx, set)
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, nil // nothing can be created there any longer
		}
		return 0, err
	}
	act := plan(set, obs, time.Now())
	applyErr := r.apply(ctx, set, act)
	after := act.after
	if act.wrote() {
		// Count what is there now rather than wait to be told of our own writes.
		if err := r.look(ctx, set, &obs); err != nil {
			return 0, errors.Join(applyErr, err)
		}
		again := plan(set, obs, time.Now())
		act.status, after = again.status, again.after
	}
	r.pace.Wrote(key, time.Now())
	if err := r.writeStatus(ctx, set, act.status); err != nil {
		return 0, errors.Join(applyErr, err)
	}
	if act.more && applyErr == nil {
		after = soon
	}
	if set.DeletionTimestamp != nil {
		return after, applyErr
	}
	return after, errors.Join(applyErr, r.history.Remove(ctx, excess(set, act.status, revisions, obs.pods)))
}

// observe reads what matters to set, and brings its revisions up to date.
func (r *reconciler) observe(ctx context.Context, set *appsv1.StatefulSet) (observed, []*appsv1.ControllerRevision, error) {
	var obs observed
	var err error
	if obs.selector, err = metav1.LabelSelectorAsSelector(set.Spec.Selector); err != nil {
		return obs, nil, controller.Terminal(fmt.Errorf("selector of StatefulSet %s: %w", api.KeyOf(set), err))
	}
	revisions, err := r.history.Of(ctx, set, obs.selector)
	if err != nil {
		return obs, nil, err
	}
	if set.Status.CollisionCount != nil {
		obs.collisions = *set.Status.CollisionCount
	}
	if set.DeletionTimestamp == nil {
		if err := r.revise(ctx, set, revisions, &obs); err != nil {
			return obs, nil, err
		}
	} else {
		obs.current.name, obs.update.name = set.Status.CurrentRevision, set.Status.UpdateRevision
	}
	return obs, revisions, r.look(ctx, set, &obs)
}

// revise finds or stores the revision of the present template, and reads that before the update.
func (r *reconciler) revise(ctx context.Context, set *appsv1.StatefulSet, revisions []*appsv1.ControllerRevision, obs *observed) error {
	data, err := workload.TemplateData(&set.Spec.Template)
	if err != nil {
		return controller.Terminal(err)
	}
	config, err := podconfig.Of(ctx, r.client, set, &set.Spec.Template)
	if err != nil {
		return err
	}
	place := workload.PlaceIn(revisions, data, config)
	latest := place.Current()
	if n := len(revisions); latest == nil && n > 0 && madeFor(revisions[n-1], config) && means(set, revisions[n-1], data) {
		latest, place.Number = revisions[n-1], revisions[n-1].Revision
	}
	if latest != nil {
		latest, err = r.history.Renumber(ctx, latest, place.Number, config)
	} else {
		latest, obs.collisions, err = r.history.Create(ctx, set, obs.collisions, func(collisions int32) *appsv1.ControllerRevision {
			return newRevision(set, data, config, place.Number, collisions)
		})
	}
	if err != nil {
		return err
	}
	if obs.update, err = revisionFrom(latest); err != nil {
		return controller.Terminal(err)
	}
	obs.current = obs.update
	for _, rev := range revisions {
		if rev.Name == set.Status.CurrentRevision && rev.Name != obs.update.name {
			if obs.current, err = revisionFrom(rev); err != nil {
				return controller.Terminal(err)
			}
		}
	}
	return nil
}

// look reads the pods of set, and the claims that they have or are to have.
func (r *reconciler) look(ctx context.Context, set *appsv1.StatefulSet, obs *observed) error {
	var err error
	if obs.pods, err = r.pods.Of(ctx, set, obs.selector); err != nil {
		return err
	}
	obs.holds = r.holds.Until(api.KeyOf(set), obs.pods, time.Now())
	obs.claims = map[string]*corev1.PersistentVolumeClaim{}
	if len(set.Spec.VolumeClaimTemplates) == 0 {
		return nil
	}
	for _, n := range ordinals(set, obs.pods) {
		for i := range set.Spec.VolumeClaimTemplates {
			name := claimName(set, &set.Spec.VolumeClaimTemplates[i], n)
			claim, err := client.Get[*corev1.PersistentVolumeClaim](ctx, r.client, api.Key{Namespace: set.Namespace, Name: name})
			switch {
			case err == nil:
				obs.claims[name] = claim
			case !apierrors.IsNotFound(err):
				return err
			}
		}
	}
	return nil
}

// writeStatus stores status unless it is there already.
func (r *reconciler) writeStatus(ctx context.Context, set *appsv1.StatefulSet, status appsv1.StatefulSetStatus) error {
	if apiequality.Semantic.DeepEqual(set.Status, status) {
		return nil
	}
	return workload.WriteStatus(ctx, r.client, set, func(o *appsv1.StatefulSet) bool {
		changed := !apiequality.Semantic.DeepEqual(o.Status, status)
		o.Status = status
		return changed
	})
}
