package crd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// lookAgain is when a definition is looked at again whose objects have finalizers of their own.
const lookAgain = time.Second

type cleaner struct {
	client client.Client
	cfg    Config
}

// NewCleanup declares the controller that deletes the objects of definitions that are being deleted. Its keys are definitions.
func NewCleanup(c client.Client, cfg Config) controller.Controller {
	return controller.Controller{
		Name:    "crd-cleanup",
		Workers: 5,
		Watches: []controller.Watch{{Resource: api.CustomResourceDefinitions, Keys: deletedKeys}},
		Writes: []controller.Write{
			controller.Sets(api.CustomResourceDefinitions, "status", "conditions", string(apiextensionsv1.Terminating)),
			controller.Sets(api.CustomResourceDefinitions, "metadata", "finalizers", apiextensionsv1.CustomResourceCleanupFinalizer),
			controller.Deletes(nil).Of("of definitions that are being deleted"),
		},
		Reconciler: &cleaner{client: c, cfg: cfg},
	}
}

// deletedKeys maps definitions that are being deleted to themselves.
func deletedKeys(e client.Event) []api.Key {
	if e.Object.GetDeletionTimestamp() == nil || e.Type == client.Deleted {
		return nil
	}
	return []api.Key{api.KeyOf(e.Object)}
}

// Reconcile deletes the objects of the definition named key, if that is being deleted, and lets it go once they have gone.
func (r *cleaner) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	def, err := client.Get[*definition](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if def.DeletionTimestamp == nil || !slices.Contains(def.Finalizers, apiextensionsv1.CustomResourceCleanupFinalizer) {
		return 0, nil
	}
	c := condition{Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionFalse}
	res := stored(r.cfg.Catalog(), def)
	switch {
	case !conditionTrue(&def.Status, apiextensionsv1.Established):
		c.Reason, c.Message = "NeverEstablished", "resource was never established"
	case res != nil && !res.Unstructured:
		c.Reason, c.Message = "OverlappingBuiltInResource", "instances overlap with built-in resources in storage"
	case res == nil:
		return servedSoon, nil // the objects are not read yet
	default:
		left, err := r.deleteObjects(ctx, res)
		if left || err != nil {
			return lookAgain, errors.Join(err, r.say(ctx, def, inProgress(err), false))
		}
		c.Reason, c.Message = "InstanceDeletionCompleted", "removed all instances"
	}
	return 0, r.say(ctx, def, c, true)
}

// inProgress returns the condition of a definition some of whose objects are still there.
func inProgress(err error) condition {
	c := condition{Type: apiextensionsv1.Terminating, Status: apiextensionsv1.ConditionTrue, Reason: "InstanceDeletionInProgress", Message: "CustomResource deletion is in progress"}
	if err != nil {
		c.Reason, c.Message = "InstanceDeletionFailed", fmt.Sprintf("could not issue all deletes: %v", err)
	}
	return c
}

// deleteObjects deletes all objects of a resource that are not being deleted yet, and reports whether some are left: those wait for
// finalizers of theirs.
func (r *cleaner) deleteObjects(ctx context.Context, res *api.Resource) (left bool, _ error) {
	objs, err := r.client.List(ctx, res, client.ListOptions{})
	if err != nil {
		return true, err
	}
	todo := slices.DeleteFunc(objs, func(o api.Object) bool {
		if o.GetDeletionTimestamp() != nil && len(o.GetFinalizers()) > 0 {
			left = true
			return true
		}
		return false
	})
	var failed error
	for i, result := range r.client.DeleteMany(ctx, todo, metav1.DeleteOptions{}) {
		if result.Err != nil && !apierrors.IsNotFound(result.Err) && !apierrors.IsConflict(result.Err) {
			failed = errors.Join(failed, fmt.Errorf("deleting %s: %w", api.KeyOf(todo[i]), result.Err))
		}
	}
	if failed != nil {
		return true, failed
	}
	if objs, err = r.client.List(ctx, res, client.ListOptions{}); err != nil {
		return true, err
	}
	return left || len(objs) > 0, nil
}

// say writes a condition of a definition, where it says something new, and takes the finalizer off where its objects are gone.
func (r *cleaner) say(ctx context.Context, def *definition, c condition, done bool) error {
	out := def.DeepCopy()
	setCondition(&out.Status, c, metav1.NewTime(time.Now().Truncate(time.Second)))
	if done {
		out.Finalizers = slices.DeleteFunc(out.Finalizers, func(f string) bool { return f == apiextensionsv1.CustomResourceCleanupFinalizer })
	} else if have := conditionOf(&def.Status, c.Type); have != nil && *have == *conditionOf(&out.Status, c.Type) {
		return nil
	}
	_, err := r.client.Update(ctx, out, "status")
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
