package patch

import (
	"fmt"
	"maps"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"

	"github.com/knarr-io/knarr/internal/api"
)

// BeforeFirstApply manages the fields that an object had before anyone applied to it.
const BeforeFirstApply = "before-first-apply"

// Managers keeps metadata.managedFields (KEP-555). Fields are tracked from the first apply to an object on: until then a
// write pays nothing for it (docs/adr/0002-managed-fields.md).
type Managers struct {
	served func() *api.Catalog

	mu   sync.Mutex
	made map[managerKey]*managedfields.FieldManager
}

type managerKey struct {
	res *api.Resource
	gv  schema.GroupVersion
	sub string
}

// NewManagers returns a Managers for the resources of a catalogue that may change.
func NewManagers(served func() *api.Catalog) *Managers {
	return &Managers{served: served, made: map[managerKey]*managedfields.FieldManager{}}
}

// Forget frees what is kept for resources that are no longer served.
func (m *Managers) Forget(less ...*api.Resource) {
	m.mu.Lock()
	defer m.mu.Unlock()
	maps.DeleteFunc(m.made, func(k managerKey, _ *managedfields.FieldManager) bool { return slices.Contains(less, k.res) })
}

// manager returns what merges objects of res in group-version gv. It is made at the first use, which is expensive.
func (m *Managers) manager(res *api.Resource, gv schema.GroupVersion, sub string) (*managedfields.FieldManager, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := managerKey{res, gv, sub}
	if f := m.made[k]; f != nil {
		return f, nil
	}
	f, err := m.make(res, gv.WithKind(res.Kind), sub)
	if err != nil {
		return nil, err
	}
	m.made[k] = f
	return f, nil
}

func (m *Managers) make(res *api.Resource, gvk schema.GroupVersionKind, sub string) (*managedfields.FieldManager, error) {
	if !res.Unstructured {
		hub := schema.GroupVersion{Group: gvk.Group, Version: runtime.APIVersionInternal}
		return managedfields.NewDefaultFieldManager(api.TypeConverter(), api.Scheme, api.Scheme, api.Scheme, gvk, hub, sub, res.Resets(sub))
	}
	converter := managedfields.NewDeducedTypeConverter()
	if res.Managed != nil {
		var err error
		if converter, err = res.Managed(); err != nil {
			return nil, err
		}
	}
	kinds := customKinds{m.served, res}
	return managedfields.NewDefaultCRDFieldManager(converter, kinds, kinds, kinds, gvk, gvk.GroupVersion(), sub, res.Resets(sub))
}

// Tracked reports whether a write of wanted over current (nil on create) has to be recorded.
func Tracked(current, wanted api.Object) bool {
	return current != nil && len(current.GetManagedFields()) > 0 || wanted.GetManagedFields() != nil
}

// Update records that manager wrote wanted, an object of res in group-version gv, over current, and returns wanted with its managedFields set.
// always records objects, too, that are not tracked yet.
func (m *Managers) Update(res *api.Resource, gv schema.GroupVersion, sub string, current, wanted api.Object, manager string, always bool) (api.Object, error) {
	if !always && !Tracked(current, wanted) {
		return wanted, nil
	}
	if mf := wanted.GetManagedFields(); mf != nil && (len(mf) == 0 || len(mf) == 1 && mf[0].Operation == "" && mf[0].Manager == "") {
		wanted.SetManagedFields(nil) // an empty list forgets all managers: the object is as if nobody had applied to it
		return wanted, nil
	}
	f, err := m.manager(res, gv, sub)
	if err != nil {
		return nil, err
	}
	gvk := gv.WithKind(res.Kind)
	live, err := res.NewIn(gv)
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

// Apply merges an applied configuration for res in group-version gv into current (nil where there is no object yet) and returns the result in
// that version. Fields of other managers that it would change are conflicts (409) unless force is set.
func (m *Managers) Apply(res *api.Resource, gv schema.GroupVersion, sub string, current api.Object, applied *unstructured.Unstructured, manager string, force bool) (api.Object, error) {
	f, err := m.manager(res, gv, sub)
	if err != nil {
		return nil, err
	}
	gvk := gv.WithKind(res.Kind)
	empty, err := res.NewIn(gv)
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
	if res.Unstructured {
		return merged.(api.Object), nil
	}
	out, err := api.Convert(merged, gv)
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
