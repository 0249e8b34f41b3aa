package patch

import (
	"fmt"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/knarr-io/knarr/internal/api"
)

// BeforeFirstApply manages the fields that an object had before anyone applied to it.
const BeforeFirstApply = "before-first-apply"

// Managers keeps metadata.managedFields (KEP-555). Fields are tracked from the first apply to an object on: until then a
// write pays nothing for it (docs/adr/0002-managed-fields.md).
type Managers struct {
	scheme    *runtime.Scheme
	converter func() managedfields.TypeConverter

	mu   sync.Mutex
	made map[managerKey]*managedfields.FieldManager
}

type managerKey struct {
	gvk schema.GroupVersionKind
	sub string
}

// NewManagers returns a Managers for the types of scheme. converter is called at the first apply: it is expensive.
func NewManagers(scheme *runtime.Scheme, converter func() managedfields.TypeConverter) *Managers {
	return &Managers{scheme: scheme, converter: converter, made: map[managerKey]*managedfields.FieldManager{}}
}

func (m *Managers) manager(gvk schema.GroupVersionKind, sub string) (*managedfields.FieldManager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := managerKey{gvk, sub}
	if f := m.made[k]; f != nil {
		return f, nil
	}
	var resets map[fieldpath.APIVersion]fieldpath.Filter
	if res := api.ByKind(gvk); res != nil {
		resets = res.Resets(sub)
	}
	hub := schema.GroupVersion{Group: gvk.Group, Version: runtime.APIVersionInternal}
	f, err := managedfields.NewDefaultFieldManager(m.converter(), m.scheme, m.scheme, m.scheme, gvk, hub, sub, resets)
	if err != nil {
		return nil, err
	}
	m.made[k] = f
	return f, nil
}

// Tracked says whether a write of wanted over current (nil on create) has to be recorded.
func Tracked(current, wanted api.Object) bool {
	return current != nil && len(current.GetManagedFields()) > 0 || wanted.GetManagedFields() != nil
}

// Update records that manager wrote wanted, of kind gvk, over current, and returns wanted with its managedFields set. always records
// objects, too, that are not tracked yet.
func (m *Managers) Update(gvk schema.GroupVersionKind, sub string, current, wanted api.Object, manager string, always bool) (api.Object, error) {
	if !always && !Tracked(current, wanted) {
		return wanted, nil
	}
	if mf := wanted.GetManagedFields(); mf != nil && (len(mf) == 0 || len(mf) == 1 && mf[0].Operation == "" && mf[0].Manager == "") {
		wanted.SetManagedFields(nil) // an empty list forgets all managers: the object is as if nobody had applied to it
		return wanted, nil
	}
	f, err := m.manager(gvk, sub)
	if err != nil {
		return nil, err
	}
	live, err := m.scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	if current != nil {
		live = current.DeepCopyObject()
	}
	live.GetObjectKind().SetGroupVersionKind(gvk)
	wanted.GetObjectKind().SetGroupVersionKind(gvk)
	return f.UpdateNoErrors(live, wanted, manager).(api.Object), nil
}

// Apply merges an applied configuration of kind gvk into current (nil where there is no object yet) and returns the result in
// the version of gvk. Fields of other managers that it would change are conflicts (409) unless force is set.
func (m *Managers) Apply(gvk schema.GroupVersionKind, sub string, current api.Object, applied *unstructured.Unstructured, manager string, force bool) (api.Object, error) {
	f, err := m.manager(gvk, sub)
	if err != nil {
		return nil, err
	}
	empty, err := m.scheme.New(gvk)
	if err != nil {
		return nil, err
	}
	empty.GetObjectKind().SetGroupVersionKind(gvk)
	live := empty
	if current != nil {
		live = current.DeepCopyObject()
		live.GetObjectKind().SetGroupVersionKind(gvk)
		if len(current.GetManagedFields()) == 0 {
			if live, err = f.Update(empty.DeepCopyObject(), live, BeforeFirstApply); err != nil {
				return nil, fmt.Errorf("recording the fields that %s has: %w", gvk.Kind, err)
			}
		}
	}
	merged, err := f.Apply(live, applied, manager, force)
	if err != nil {
		return nil, applyError(err)
	}
	out, err := api.Convert(merged, gvk.GroupVersion())
	if err != nil {
		return nil, err
	}
	return out.(api.Object), nil
}

// applyError makes a status of what the merge refuses. Conflicts are statuses already; whatever else it finds wrong - a field
// that the schema does not have, two elements of one key - is in the configuration.
func applyError(err error) error {
	if _, ok := err.(apierrors.APIStatus); ok {
		return err
	}
	return apierrors.NewBadRequest(err.Error())
}
