// Package deployment rolls a Deployment's pod template out over its ReplicaSets.
//
// What flows through it: a Deployment, the ReplicaSets it controls or could adopt, and for the Recreate strategy whether old
// pods still run, are read; [plan] says which ReplicaSet to create, resize, annotate or delete and what the status
// is; the reconciler writes that. What must stay true: planning is a pure function of what was read and the time; a
// ReplicaSet is resized only if nobody resized it since it was read; revisions only grow; kubectl rollout
// (status, history, undo, pause, resume, restart) finds the annotations and conditions that it looks for. Tests:
// TestPlannersArePure (internal/laws), TestRolloutAndUndo, TestScaleInTheMiddle, TestRestartsInTheMiddle,
// TestHistory.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
	"github.com/knarr-io/knarr/internal/controller/podstate"
	"github.com/knarr-io/knarr/internal/controller/rollout"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

const component = "deployment-controller"

// soon asks for another look after something that was read turned out to have changed.
const soon = time.Millisecond

type reconciler struct {
	client client.Client
	ask    rollout.Ask
}

// New declares the Deployment controller. ask reads metrics, for roll-outs that depend on them; nil where there are none.
func New(c client.Client, ask rollout.Ask) controller.Controller {
	kind := appsv1.SchemeGroupVersion.WithKind("Deployment")
	owners := workload.NewOwners(kind.GroupKind(), func(o api.Object) *metav1.LabelSelector { return o.(*appsv1.Deployment).Spec.Selector })
	users := podconfig.NewUsers(func(o api.Object) *corev1.PodTemplateSpec { return &o.(*appsv1.Deployment).Spec.Template })
	return controller.Controller{
		Name:    "deployment",
		Workers: 5,
		Watches: append([]controller.Watch{
			{Resource: api.Deployments, Keys: func(e client.Event) []api.Key {
				users.Note(e)
				return owners.OwnerKeys(e)
			}},
			// A pod that ends shows in its ReplicaSet's status.terminatingReplicas, so pods need not be watched.
			{Resource: api.ReplicaSets, Keys: owners.OwnedKeys},
			{Resource: api.Jobs, Keys: rollout.JobKeys},
		}, users.Watches()...),
		Writes: []controller.Write{
			controller.Sets(api.Deployments, "status"),
			controller.Sets(api.Deployments, "metadata", "annotations", revisionAnnotation),
			controller.Sets(api.Deployments, "metadata", "annotations", spec.Action),
			controller.Sets(api.Deployments, "metadata", "annotations", spec.State),
			controller.Sets(api.Deployments, "metadata", "annotations", spec.Traffic),
			controller.Creates(api.Jobs).Of("of roll-outs"),
			controller.Creates(api.ReplicaSets).Of("of Deployments"),
			controller.Deletes(api.ReplicaSets).Of("of Deployments"),
			controller.Sets(api.ReplicaSets, "spec").Of("of Deployments"),
			controller.Sets(api.ReplicaSets, "metadata", "annotations").Of("of Deployments"),
			controller.Sets(api.ReplicaSets, "metadata", "labels", spec.ConfigHash).Of("of Deployments"),
			controller.Sets(api.ReplicaSets, "metadata", "ownerReferences").Of("of Deployments"),
		},
		Reconciler: &reconciler{client: c, ask: ask},
	}
}

// Reconcile takes the next step for one Deployment.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	d, err := client.Get[*appsv1.Deployment](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	sets, err := r.replicaSets(ctx, d)
	if err != nil {
		return 0, err
	}
	obs := observed{replicaSets: sets, running: r.running(ctx, d, sets)}
	if obs.config, err = podconfig.Of(ctx, r.client, d, &d.Spec.Template); err != nil {
		return 0, err
	}
	act := plan(d, obs, time.Now())
	if n := act.needs; n != nil {
		if obs.job, err = rollout.LookAtJob(ctx, r.client, d, n.set, n.strategy, n.state); err != nil {
			return 0, err
		}
		obs.readings = rollout.Read(ctx, r.client, r.ask, n.set, n.strategy.Checks)
		act = plan(d, obs, time.Now())
	}
	stale, err := r.apply(ctx, d, act)
	if err != nil {
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, nil // nothing can be created there any more
		}
		return 0, err
	}
	if stale {
		return soon, nil
	}
	if n := act.needs; n != nil && n.runJob && n.set.UID != "" {
		return act.after, rollout.RunJob(ctx, r.client, d, n.set, n.strategy, n.state)
	}
	return act.after, nil
}

// replicaSets returns the ReplicaSets of d after adopting and releasing.
func (r *reconciler) replicaSets(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("selector of Deployment %s: %w", api.KeyOf(d), err)
	}
	all, err := client.List[*appsv1.ReplicaSet](ctx, r.client, client.ListOptions{Namespace: d.Namespace})
	if err != nil {
		return nil, err
	}
	mine, adopt, release := ownership.Sort(d, selector, all)
	for _, rs := range release {
		if err := ownership.Release(ctx, r.client, d, rs); err != nil {
			return nil, err
		}
	}
	for _, rs := range adopt {
		got, err := ownership.Adopt(ctx, r.client, d, appsv1.SchemeGroupVersion.WithKind("Deployment"), rs)
		if err != nil {
			return nil, err
		}
		if got != nil {
			mine = append(mine, got)
		}
	}
	return mine, nil
}

// running returns the UIDs of the sets whose pods still have containers to run or stop, for a Deployment that waits for their end.
func (r *reconciler) running(ctx context.Context, d *appsv1.Deployment, sets []*appsv1.ReplicaSet) map[types.UID]bool {
	out := map[types.UID]bool{}
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType {
		return out
	}
	for _, rs := range sets {
		pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{
			Namespace: rs.Namespace, Index: client.IndexOwner, Value: string(rs.UID)})
		out[rs.UID] = err != nil || // not known to have ended
			slices.ContainsFunc(pods, func(p *corev1.Pod) bool { return metav1.IsControlledBy(p, rs) && !podstate.Finished(p) })
	}
	return out
}

// apply writes what act asks for. stale means that something had changed since it was read.
func (r *reconciler) apply(ctx context.Context, d *appsv1.Deployment, act actions) (stale bool, err error) {
	var events []event.Event
	defer func() { event.Write(ctx, r.client, component, time.Now(), events...) }()

	if act.create != nil {
		created, err := r.client.Create(ctx, act.create)
		switch {
		case apierrors.IsAlreadyExists(err):
			return r.exists(ctx, d, act.create)
		case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
			return false, err
		case err != nil:
			msg := fmt.Sprintf("Failed to create new replica set %q: %v", act.create.Name, err)
			events = append(events, event.Warning(d, reasonCreateError, "%s", msg))
			failed := failedCreate(d, msg, time.Now())
			return false, errors.Join(err, r.writeStatus(ctx, d, failed, "", false))
		}
		if n := *act.create.Spec.Replicas; n > 0 {
			events = append(events, event.Normal(d, "ScalingReplicaSet", "Scaled up replica set %s from 0 to %d", created.GetName(), n))
		}
	}
	for _, u := range act.update {
		ok, err := r.update(ctx, u)
		if err != nil {
			return false, err
		}
		if !ok {
			return true, nil
		}
		if from, to := *u.old.Spec.Replicas, *u.new.Spec.Replicas; from != to {
			how := "up"
			if to < from {
				how = "down"
			}
			events = append(events, event.Normal(d, "ScalingReplicaSet", "Scaled %s replica set %s from %d to %d", how, u.old.Name, from, to))
		}
	}
	for _, rs := range act.remove {
		uid, rv := rs.UID, rs.ResourceVersion
		err := client.Delete[*appsv1.ReplicaSet](ctx, r.client, api.KeyOf(rs), metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &rv}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return false, err
		}
	}
	events = append(events, act.events...)
	return false, r.writeStatus(ctx, d, act.status, act.revision, act.seen)
}

// exists handles a new ReplicaSet whose name is taken: by itself, because it was made a moment ago, or by another template with
// the same hash, which the collision count tells apart next time.
func (r *reconciler) exists(ctx context.Context, d *appsv1.Deployment, want *appsv1.ReplicaSet) (stale bool, err error) {
	rs, err := client.Get[*appsv1.ReplicaSet](ctx, r.client, api.KeyOf(want))
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	if metav1.IsControlledBy(rs, d) && sameTemplate(&d.Spec.Template, &rs.Spec.Template) && rs.Labels[spec.ConfigHash] == want.Labels[spec.ConfigHash] {
		return true, nil
	}
	status := *d.Status.DeepCopy()
	n := int32(1)
	if status.CollisionCount != nil {
		n = *status.CollisionCount + 1
	}
	status.CollisionCount = &n
	return true, r.writeStatus(ctx, d, status, "", false)
}

// update stores u.new unless the spec of the ReplicaSet changed since u.old was read.
func (r *reconciler) update(ctx context.Context, u update) (ok bool, err error) {
	_, err = client.Mutate(ctx, r.client, api.KeyOf(u.old), "", func(o *appsv1.ReplicaSet) bool {
		if ok = o.UID == u.old.UID && o.Generation == u.old.Generation && o.DeletionTimestamp == nil; ok {
			o.Annotations = u.new.Annotations
			if hash := u.new.Labels[spec.ConfigHash]; hash != "" {
				o.Labels = clone(o.Labels)
				o.Labels[spec.ConfigHash] = hash
			}
			o.Spec.Replicas = u.new.Spec.Replicas
			o.Spec.MinReadySeconds = u.new.Spec.MinReadySeconds
		}
		return ok
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return ok, err
}

// writeStatus stores status and, unless empty, the revision annotation; if seen, it takes the action that was asked for away. Like Kubernetes
// it writes annotations together with the status, because a write to the Deployment itself would begin a new generation.
func (r *reconciler) writeStatus(ctx context.Context, d *appsv1.Deployment, status appsv1.DeploymentStatus, revision string, seen bool) error {
	annotations := func(o *appsv1.Deployment) map[string]string {
		// What is asked for meanwhile is not what has been seen to.
		out := keptOff(o.Annotations, seen && o.Annotations[spec.Action] == d.Annotations[spec.Action])
		if revision != "" && out[revisionAnnotation] != revision {
			out = clone(out)
			out[revisionAnnotation] = revision
		}
		return out
	}
	current := func(o *appsv1.Deployment) bool {
		return apiequality.Semantic.DeepEqual(o.Status, status) && apiequality.Semantic.DeepEqual(o.Annotations, annotations(o))
	}
	if current(d) {
		return nil
	}
	return workload.WriteStatus(ctx, r.client, d, func(o *appsv1.Deployment) bool {
		if current(o) {
			return false
		}
		o.Status, o.Annotations = status, annotations(o)
		return true
	})
}
