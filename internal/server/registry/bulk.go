package registry

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// Result is the outcome of one item of a bulk write.
type Result struct {
	Object api.Object
	Err    error
}

// CreateMany creates objects in as few transactions as possible; each succeeds or fails on its own.
func (r *Registry) CreateMany(ctx context.Context, res *api.Resource, objs []api.Object) []Result {
	results := make([]Result, len(objs))
	groups := make([][]store.Mutation, 0, len(objs))
	index := make([]int, 0, len(objs))
	alone := r.allocators[res] != nil // what is allocated is allocated one by one
	r.each(len(objs), func(i int) {
		obj := objs[i]
		if alone {
			results[i].Object, results[i].Err = r.Create(ctx, res, obj, metav1.CreateOptions{})
			return
		}
		results[i].Err = r.prepareCreate(ctx, res, obj, creation{})
	})
	for i, obj := range objs {
		if alone || results[i].Err != nil {
			continue
		}
		kept, err := stored(ctx, res, obj)
		if err != nil {
			results[i].Err = err
			continue
		}
		groups, index = append(groups, r.createGroup(res, kept)), append(index, i)
	}
	for g, err := range r.store.CommitEach(ctx, groups) {
		i := index[g]
		var conflict *store.ConflictError
		switch {
		case errors.As(err, &conflict):
			results[i].Err = apierrors.NewAlreadyExists(res.GroupResource(), objs[i].GetName())
		case err != nil:
			results[i].Err = r.storeError(err, res, "create", objs[i].GetName())
		default:
			results[i].Object = written(objs[i], groups[g][0].Object.(api.Object))
		}
	}
	return results
}

// UpdateMany replaces objects (or what subresource sub writes of them) in as few transactions as possible; each succeeds or
// fails on its own. An object without a resourceVersion is written whatever has happened since it was read; a status then leaves
// the metadata that others may have changed alone.
func (r *Registry) UpdateMany(ctx context.Context, res *api.Resource, objs []api.Object, sub string) []Result {
	results := make([]Result, len(objs))
	pinned := make([]bool, len(objs))
	for i, obj := range objs {
		pinned[i] = obj.GetResourceVersion() != ""
	}
	t := r.Table(res)
	r.rounds(ctx, res, results, func(i int) api.Key { return api.KeyOf(objs[i]) }, func(try int, todo []int) (again []int) {
		var groups [][]store.Mutation
		var index []int
		var written []api.Object
		drafts := make([]draft, len(todo))
		r.each(len(todo), func(n int) {
			i, obj := todo[n], objs[todo[n]]
			if try > 0 || r.allocators[res] != nil { // what the store refused may be shared; what a Service was given is drawn anew
				obj = obj.DeepCopyObject().(api.Object)
			}
			if !pinned[i] {
				obj.SetResourceVersion("")
			}
			drafts[n].obj = obj
			drafts[n].group, drafts[n].kept, drafts[n].err = r.replace(ctx, res, t, obj, sub, pinned[i])
		})
		for n, i := range todo {
			d := &drafts[n]
			if d.err != nil || d.group == nil {
				results[i] = Result{d.kept, d.err}
				continue
			}
			groups, index, written = append(groups, d.group), append(index, i), append(written, d.obj)
		}
		for g, err := range r.store.CommitEach(ctx, groups) {
			i, obj := index[g], written[g]
			var conflict *store.ConflictError
			switch {
			case errors.As(err, &conflict) && conflict.Ops[0] == 0 && pinned[i]:
				results[i].Err = apierrors.NewConflict(res.GroupResource(), obj.GetName(), errors.New(conflictMessage))
			case errors.As(err, &conflict) && ctx.Err() == nil:
				again = append(again, i)
			case err != nil:
				results[i].Err = r.storeError(err, res, "update", obj.GetName())
			default:
				results[i].Object = obj
				if kept := groups[g][0].Object; kept != nil && kept != store.Object(obj) {
					obj.SetResourceVersion(kept.GetResourceVersion())
				}
			}
		}
		return again
	})
	return results
}

// draft is an object of a bulk update that is ready to be stored.
type draft struct {
	obj, kept api.Object
	group     []store.Mutation
	err       error
}

// replace prepares obj and returns the mutations that store it; none, and what is there, where nothing changes.
func (r *Registry) replace(ctx context.Context, res *api.Resource, t *store.Table, obj api.Object, sub string, pinned bool) ([]store.Mutation, api.Object, error) {
	current, ok := t.Get(res.Key(api.KeyOf(obj)))
	if !ok {
		return nil, nil, apierrors.NewNotFound(res.GroupResource(), obj.GetName())
	}
	present, err := own(ctx, res, current.Object)
	if err != nil {
		return nil, nil, err
	}
	if !pinned && sub == "status" {
		keepMetadata(obj, present)
	}
	if err := r.prepareUpdate(ctx, res, obj, present, sub, UpdateOptions{}); err != nil {
		return nil, nil, err
	}
	if !stale(res, current.Object) && unchanged(obj, present) {
		return nil, present, nil
	}
	if err := r.roomFor(essential(ctx, res, sub, current.Object)); err != nil {
		return nil, nil, err
	}
	kept, err := stored(ctx, res, obj)
	if err != nil {
		return nil, nil, err
	}
	return r.updateGroup(res, t, kept, current), nil, nil
}

// keepMetadata gives obj the present labels, annotations, finalizers and owners: the status subresource would write them.
func keepMetadata(obj, current api.Object) {
	obj.SetLabels(current.GetLabels())
	obj.SetAnnotations(current.GetAnnotations())
	obj.SetFinalizers(current.GetFinalizers())
	obj.SetOwnerReferences(current.GetOwnerReferences())
	obj.SetManagedFields(current.GetManagedFields())
}
