package storagemigration

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	storagemigrationv1 "k8s.io/api/storagemigration/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// phase is what a migration waits for.
type phase int

const (
	over     phase = iota // nothing
	queued                // another one of the same resource
	ready                 // to begin
	begun                 // the revision up to which objects are written anew
	position              // the objects
	closing               // that it is no longer shown as running
)

// phaseOf decides what comes next with m, one of all. Those of the same resource go one after the other, in the order in which they were made.
func phaseOf(m *storagemigrationv1.StorageVersionMigration, all []*storagemigrationv1.StorageVersionMigration) phase {
	switch {
	case finished(m) && running(m):
		return closing
	case finished(m):
		return over
	case running(m) && m.Status.ResourceVersion == "":
		return begun
	case running(m):
		return position
	}
	for _, other := range all {
		if other.Name == m.Name || other.Spec.Resource != m.Spec.Resource || finished(other) {
			continue
		}
		if running(other) || before(other, m) {
			return queued
		}
	}
	return ready
}

func before(a, b *storagemigrationv1.StorageVersionMigration) bool {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c < 0
	}
	return strings.Compare(a.Name, b.Name) < 0
}

func running(m *storagemigrationv1.StorageVersionMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationRunning))
}

func succeeded(m *storagemigrationv1.StorageVersionMigration) bool {
	return meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationSucceeded))
}

func finished(m *storagemigrationv1.StorageVersionMigration) bool {
	return succeeded(m) || meta.IsStatusConditionTrue(m.Status.Conditions, string(storagemigrationv1.MigrationFailed))
}

// find returns the resource of a migration, in the version in which it is stored now; nil where there is none.
func find(resources []*api.Resource, gr metav1.GroupResource) *api.Resource {
	for _, r := range resources {
		if r.Group == gr.Group && r.Plural == gr.Resource {
			return r
		}
	}
	return nil
}

// lacks returns a verb that a migration needs and the resource does not have, or "".
func lacks(res *api.Resource) string {
	for _, verb := range []string{"update", "patch", "list"} {
		if res.Verbs != nil && !slices.Contains(res.Verbs, verb) {
			return verb
		}
	}
	return ""
}

// outdated returns the objects that were written up to a revision: later ones are in the new version already.
func outdated(all []api.Object, revision string) ([]api.Object, error) {
	limit, err := strconv.ParseUint(revision, 10, 64)
	if err != nil {
		return nil, fmt.Errorf("status.resourceVersion: %w", err)
	}
	var out []api.Object
	for _, obj := range all {
		rv, err := strconv.ParseUint(obj.GetResourceVersion(), 10, 64)
		if err != nil {
			return nil, fmt.Errorf("resourceVersion of %s: %w", api.KeyOf(obj), err)
		}
		if rv <= limit {
			out = append(out, obj)
		}
	}
	return out, nil
}

// runningMessage says how far a migration is, in the words of kube-controller-manager.
func runningMessage(left, total int, failure error) string {
	msg := "The migration is running"
	switch {
	case left > 0:
		msg += fmt.Sprintf(", %d/%d objects not yet migrated", left, total)
	case total > 0:
		msg += fmt.Sprintf(", %d objects verified migrated", total)
	}
	if failure != nil {
		msg += "; transient error: " + failure.Error()
	}
	return msg
}

// mark says in a definition's conditions that its objects are being written anew. It reports whether that changed anything.
func mark(crd *apiextensionsv1.CustomResourceDefinition, migration string, now time.Time) bool {
	return setCondition(crd, apiextensionsv1.ConditionTrue, "MigrationRunning", fmt.Sprintf("Migration %s is running", migration), now)
}

// unmark says that they have been. If the definition is as it was when the migration began, no object is stored in another version than
// the present one.
func unmark(crd *apiextensionsv1.CustomResourceDefinition, success bool, now time.Time) bool {
	same := false
	for _, c := range crd.Status.Conditions {
		same = same || c.Type == apiextensionsv1.StorageMigrating && c.ObservedGeneration == crd.Generation
	}
	switch {
	case !success:
		return setCondition(crd, apiextensionsv1.ConditionFalse, "MigrationFailed", "The migration has failed", now)
	case !same:
		return setCondition(crd, apiextensionsv1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded but the stored versions have not been updated due to a generation mismatch", now)
	}
	for _, v := range crd.Spec.Versions {
		if v.Storage {
			crd.Status.StoredVersions = []string{v.Name}
		}
	}
	return setCondition(crd, apiextensionsv1.ConditionFalse, "MigrationSucceeded", "The migration has succeeded and the stored versions have been updated", now)
}

// setCondition sets StorageMigrating. It replaces the conditions, which others share.
func setCondition(crd *apiextensionsv1.CustomResourceDefinition, status apiextensionsv1.ConditionStatus, reason, message string, now time.Time) bool {
	want := apiextensionsv1.CustomResourceDefinitionCondition{Type: apiextensionsv1.StorageMigrating, Status: status, Reason: reason, Message: message,
		LastTransitionTime: metav1.NewTime(now.Truncate(time.Second)), ObservedGeneration: crd.Generation}
	var out []apiextensionsv1.CustomResourceDefinitionCondition
	for _, c := range crd.Status.Conditions {
		if c.Type != want.Type {
			out = append(out, c)
			continue
		}
		if c.Status == want.Status {
			want.LastTransitionTime = c.LastTransitionTime
		}
		if c == want {
			return false
		}
	}
	crd.Status.Conditions = append(out, want)
	return true
}
