package registry

import (
	"context"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/patch"
	"github.com/knarr-io/knarr/internal/server/request"
)

// unnamed manages what a writer without a name writes.
const unnamed = "knarr"

// Managers keeps the managed fields; the appliers of configurations merge with it.
func (r *Registry) Managers() *patch.Managers { return r.managers }

// record notes in obj's managedFields what it changes of current (nil on create) through subresource sub, for objects whose fields are
// tracked (docs/adr/0002-managed-fields.md). It goes after mutating admission: what that has set is the writer's, too.
func (r *Registry) record(ctx context.Context, res *api.Resource, sub string, current, obj api.Object, manager string) error {
	if !patch.Tracked(current, obj) && !r.recordAll {
		return nil
	}
	if manager == "" {
		manager = request.From(ctx).Manager
	}
	if manager == "" {
		manager = unnamed
	}
	was, now := current, obj // what is packed is one value for those who manage it
	var err error
	if res.Packing != nil {
		if was, err = res.Outline(current); err != nil {
			return err
		}
		if now, err = res.Outline(obj); err != nil {
			return err
		}
	}
	out, err := r.managers.Update(res, res.GroupVersion(), sub, was, now, manager, r.recordAll)
	if err != nil {
		return err
	}
	obj.SetManagedFields(out.GetManagedFields())
	return nil
}
