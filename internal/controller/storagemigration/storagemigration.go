// Package storagemigration carries out StorageVersionMigrations: each object of a resource that was written before the migration began is
// written once more, unchanged, and so in the version in which the resource is stored now (KEP-4192).
//
// What flows through it: a migration goes through the phases of [phaseOf], each of which ends with a write of its status; the definition of
// a custom resource is marked meanwhile, and its stored versions are cut down at the end. What must stay true: an object that somebody else
// changes or deletes meanwhile is left alone - every write has the resourceVersion as its precondition; stored versions go only if the definition
// did not change since the migration began; of those of one resource one runs at a time. Tests: TestPhases, TestObjectsAreWrittenAnew,
// TestMigrationsThatCannotBe, TestDefinitionsAreMarked, TestStorageVersionMigration (internal/controlplane).
package storagemigration

import (
	"context"
	"errors"
	"fmt"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// Times of a migration: how often one that has to wait looks again, and how long a resource may take to be served.
const (
	lookAgain = time.Second
	patience  = time.Minute
)

// batch is how many objects are written together.
const batch = 200

type reconciler struct{ client client.Client }

// New declares the controller.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name: "storagemigration", Workers: 2,
		Watches: []controller.Watch{{Resource: api.StorageVersionMigrations}},
		Writes: []controller.Write{
			controller.Sets(api.StorageVersionMigrations, "status"),
			controller.Sets(api.CustomResourceDefinitions, "status", "conditions", string(apiextensionsv1.StorageMigrating)),
			controller.Sets(api.CustomResourceDefinitions, "status", "storedVersions"),
			controller.Sets(nil, "apiVersion"),
		},
		Reconciler: &reconciler{client: c},
	}
}

// Reconcile takes the next step with the migration named key.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	m, err := client.Get[*storagemigrationv1.StorageVersionMigration](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	all, err := client.List[*storagemigrationv1.StorageVersionMigration](ctx, r.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	m = m.DeepCopy()
	switch phaseOf(m, all) {
	case queued:
		return lookAgain, nil
	case ready:
		return 0, r.begin(ctx, m)
	case begun:
		return r.locate(ctx, m)
	case position:
		return r.migrate(ctx, m)
	case closing:
		return 0, r.finish(ctx, m)
	}
	return 0, nil
}

// begin marks the definition, if there is one, and the migration as running.
func (r *reconciler) begin(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) error {
	err := r.definition(ctx, m, func(crd *apiextensionsv1.CustomResourceDefinition) bool { return mark(crd, m.Name, time.Now()) })
	if err != nil {
		return err
	}
	return r.status(ctx, m, storagemigrationv1.MigrationRunning, metav1.ConditionTrue, "MigrationRunning", runningMessage(0, 0, nil))
}

// locate records up to which revision objects are written anew: that of the migration itself, which was written after the definition was
// marked.
func (r *reconciler) locate(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) (time.Duration, error) {
	res := find(r.client.Served().Now().Stored(), m.Spec.Resource)
	switch {
	case res == nil && time.Since(m.CreationTimestamp.Time) < patience:
		return lookAgain, nil
	case res == nil:
		return 0, r.fail(ctx, m, "resource does not exist in discovery")
	case lacks(res) != "":
		return 0, r.fail(ctx, m, fmt.Sprintf("resource %q does not support discovery operations: [update patch list]", res.GroupVersionResource().String()))
	}
	m.Status.ResourceVersion = m.ResourceVersion
	_, err := r.client.Update(ctx, m, "status")
	return 0, err
}

// migrate writes the objects anew.
func (r *reconciler) migrate(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) (time.Duration, error) {
	res := find(r.client.Served().Now().Stored(), m.Spec.Resource)
	if res == nil {
		return 0, r.fail(ctx, m, "unable to obtain GVR from discovery")
	}
	all, err := r.client.List(ctx, res, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	left, err := outdated(all, m.Status.ResourceVersion)
	if err != nil {
		return 0, r.fail(ctx, m, err.Error())
	}
	for len(left) > 0 {
		objs := make([]api.Object, 0, batch)
		for _, obj := range left[:min(batch, len(left))] {
			objs = append(objs, obj.DeepCopyObject().(api.Object))
		}
		var failure error
		for _, result := range r.client.UpdateMany(ctx, objs, "") {
			// Who changed an object wrote it anew; an object that is gone needs nothing.
			if result.Err != nil && !apierrors.IsConflict(result.Err) && !apierrors.IsNotFound(result.Err) {
				failure = errors.Join(failure, result.Err)
			}
		}
		switch {
		case failure != nil && transient(failure):
			return 0, errors.Join(failure, r.status(ctx, m, storagemigrationv1.MigrationRunning, metav1.ConditionTrue, "MigrationRunning", runningMessage(len(left), len(all), failure)))
		case failure != nil:
			return 0, r.fail(ctx, m, fmt.Sprintf("%d/%d not yet migrated. migration encountered unhandled error: %s", len(left), len(all), failure))
		}
		left = left[len(objs):]
	}
	set(m, storagemigrationv1.MigrationRunning, metav1.ConditionTrue, "MigrationRunning", runningMessage(0, len(all), nil))
	return 0, r.status(ctx, m, storagemigrationv1.MigrationSucceeded, metav1.ConditionTrue, "StorageVersionMigrationSucceeded", "Migration completed")
}

// finish takes back what begin said.
func (r *reconciler) finish(ctx context.Context, m *storagemigrationv1.StorageVersionMigration) error {
	err := r.definition(ctx, m, func(crd *apiextensionsv1.CustomResourceDefinition) bool { return unmark(crd, succeeded(m), time.Now()) })
	if err != nil {
		return err
	}
	return r.status(ctx, m, storagemigrationv1.MigrationRunning, metav1.ConditionFalse, "MigrationCompleted", "Migration completed")
}

// definition changes the status of the definition of the migration's resource, if that is a custom one.
func (r *reconciler) definition(ctx context.Context, m *storagemigrationv1.StorageVersionMigration, change func(*apiextensionsv1.CustomResourceDefinition) bool) error {
	name := m.Spec.Resource.Resource + "." + m.Spec.Resource.Group
	_, err := client.Mutate(ctx, r.client, api.Key{Name: name}, "status", change)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("marking the definition %s: %w", name, err)
	}
	return nil
}

func (r *reconciler) fail(ctx context.Context, m *storagemigrationv1.StorageVersionMigration, why string) error {
	return r.status(ctx, m, storagemigrationv1.MigrationFailed, metav1.ConditionTrue, "StorageVersionMigrationFailed", why)
}

// status sets a condition of m, which is the caller's, and writes it.
func (r *reconciler) status(ctx context.Context, m *storagemigrationv1.StorageVersionMigration, t storagemigrationv1.MigrationConditionType, status metav1.ConditionStatus, reason, message string) error {
	set(m, t, status, reason, message)
	_, err := r.client.Update(ctx, m, "status")
	return err
}

func set(m *storagemigrationv1.StorageVersionMigration, t storagemigrationv1.MigrationConditionType, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(&m.Status.Conditions, metav1.Condition{Type: string(t), Status: status, Reason: reason, Message: message, ObservedGeneration: m.Generation})
}

// transient reports whether an error goes by itself.
func transient(err error) bool {
	return apierrors.IsServerTimeout(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) || apierrors.IsInternalError(err) || apierrors.IsTimeout(err)
}
