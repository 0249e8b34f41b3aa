package statefulset

import (
	"context"
	"errors"
	"fmt"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// writing is one application of a plan.
type writing struct {
	*reconciler
	set    *appsv1.StatefulSet
	events []event.Event
}

// apply writes what act asks for. What fails does not keep other pods from what they need, but for an update, which would make more
// pods unavailable.
func (r *reconciler) apply(ctx context.Context, set *appsv1.StatefulSet, act actions) error {
	w := &writing{reconciler: r, set: set}
	defer func() { event.Write(ctx, r.client, component, time.Now(), w.events...) }()
	if _, err := r.pods.Claim(ctx, set, act.adopt, act.release); err != nil {
		return err
	}
	if act.blocked != "" {
		w.fail("Create", "Pod", fmt.Sprintf("%s-%d", set.Name, startOf(set)), fmt.Errorf("pvc %s is being deleted", act.blocked))
	}
	for _, name := range act.conflicting {
		w.events = append(w.events, event.Warning(set, "ConflictingController", "PersistentVolumeClaim %s has a conflicting OwnerReference that acts as a "+
			"managing controller, the retention policy is ignored for this claim", name))
	}
	err := w.claims(ctx, act.claims)
	if err == nil {
		err = w.create(ctx, act.create)
	}
	err = errors.Join(err, w.own(ctx, act.owned), w.mend(ctx, act.mend), w.remove(ctx, act.replace))
	if err != nil {
		return err
	}
	return errors.Join(w.remove(ctx, act.condemn), w.remove(ctx, act.outdated))
}

// done and fail note an event in the words of Kubernetes. verb is "Create", "Update" or "Delete".
func (w *writing) done(verb, what, name string) {
	w.events = append(w.events, event.Normal(w.set, "Successful"+verb, "%s %s %s in StatefulSet %s successful", verb, what, name, w.set.Name))
}

func (w *writing) fail(verb, what, name string, err error) {
	w.events = append(w.events, event.Warning(w.set, "Failed"+verb, "%s %s %s in StatefulSet %s failed error: %v", verb, what, name, w.set.Name, err))
}

// claims creates claims before the pods that need them.
func (w *writing) claims(ctx context.Context, claims []*corev1.PersistentVolumeClaim) (failed error) {
	objs := make([]api.Object, len(claims))
	for i := range claims {
		objs[i] = claims[i]
	}
	for i, res := range w.client.CreateMany(ctx, objs) {
		_, ordinal := parse(claims[i].Name)
		what := "Claim " + claims[i].Name
		switch pod := podName(w.set, ordinal); {
		case res.Err == nil:
			w.events = append(w.events, event.Normal(w.set, "SuccessfulCreate", "Create %s Pod %s in StatefulSet %s success", what, pod, w.set.Name))
		case apierrors.IsAlreadyExists(res.Err) || apierrors.HasStatusCause(res.Err, corev1.NamespaceTerminatingCause):
		default:
			w.events = append(w.events, event.Warning(w.set, "FailedCreate", "Create %s for Pod %s in StatefulSet %s failed error: %v", what, pod, w.set.Name, res.Err))
			failed = errors.Join(failed, fmt.Errorf("creating PersistentVolumeClaim %s: %w", claims[i].Name, res.Err))
		}
	}
	return failed
}

// create makes pods in batches of 1, 2, 4, ... and stops after the first batch in which one fails.
func (w *writing) create(ctx context.Context, pods []*corev1.Pod) (failed error) {
	for size := 1; len(pods) > 0 && failed == nil; size *= 2 {
		batch := make([]api.Object, min(size, len(pods)))
		for i := range batch {
			batch[i] = pods[i]
		}
		for i, res := range w.client.CreateMany(ctx, batch) {
			switch {
			case res.Err == nil:
				w.done("Create", "Pod", pods[i].Name)
			case apierrors.HasStatusCause(res.Err, corev1.NamespaceTerminatingCause):
				return failed // nothing can be made there, and nothing needs to be
			case apierrors.IsAlreadyExists(res.Err) && w.mine(ctx, pods[i]):
			default:
				w.fail("Create", "Pod", pods[i].Name, res.Err)
				if failed == nil { // they are mostly alike
					failed = res.Err
				}
			}
		}
		pods = pods[len(batch):]
	}
	return failed
}

// mine reports whether the pod with the name of p is the set's.
func (w *writing) mine(ctx context.Context, p *corev1.Pod) bool {
	there, err := client.Get[*corev1.Pod](ctx, w.client, api.KeyOf(p))
	return err == nil && metav1.IsControlledBy(there, w.set)
}

// own stores the owner references of claims.
func (w *writing) own(ctx context.Context, claims []*corev1.PersistentVolumeClaim) (failed error) {
	for _, c := range claims {
		_, err := client.Mutate(ctx, w.client, api.KeyOf(c), "", func(o *corev1.PersistentVolumeClaim) bool {
			if o.UID != c.UID {
				return false
			}
			o.OwnerReferences = c.OwnerReferences
			return true
		})
		if err != nil && !apierrors.IsNotFound(err) {
			_, ordinal := parse(c.Name)
			w.fail("Update", "Pod", podName(w.set, ordinal), err)
			failed = errors.Join(failed, fmt.Errorf("updating PersistentVolumeClaim %s: %w", c.Name, err))
		}
	}
	return failed
}

// mend stores the labels and volumes of pods.
func (w *writing) mend(ctx context.Context, pods []*corev1.Pod) (failed error) {
	for _, p := range pods {
		_, err := client.Mutate(ctx, w.client, api.KeyOf(p), "", func(o *corev1.Pod) bool {
			if o.UID != p.UID || o.DeletionTimestamp != nil {
				return false
			}
			o.Labels, o.Spec.Volumes = p.Labels, p.Spec.Volumes
			return true
		})
		switch {
		case err == nil:
			w.done("Update", "Pod", p.Name)
		case !apierrors.IsNotFound(err):
			w.fail("Update", "Pod", p.Name, err)
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// remove deletes pods. One that is gone, perhaps with a successor of the same name, is no error.
func (w *writing) remove(ctx context.Context, pods []*corev1.Pod) (failed error) {
	doomed := make([]api.Object, len(pods))
	for i := range pods {
		doomed[i] = pods[i]
	}
	for i, res := range w.client.DeleteMany(ctx, doomed, metav1.DeleteOptions{}) {
		switch {
		case res.Err == nil:
			w.done("Delete", "Pod", pods[i].Name)
		case apierrors.IsNotFound(res.Err) || apierrors.IsConflict(res.Err):
		default:
			w.fail("Delete", "Pod", pods[i].Name, res.Err)
			failed = errors.Join(failed, res.Err)
		}
	}
	return failed
}
