package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/store"
)

// Delete starts graceful deletion of an object, or removes it where nothing has to be waited for (gone). It returns the object
// as it is now, or was last.
func (r *Registry) Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) (_ api.Object, gone bool, _ error) {
	return r.delete(ctx, res, key, opts, r.admission)
}

// delete is Delete as far as a chain of plugins lets it.
func (r *Registry) delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions, chain admission.Chain) (_ api.Object, gone bool, _ error) {
	t := r.Table(res)
	inTurn := false
	for {
		d, err := r.deletion(ctx, res, t, key, opts, chain)
		if err != nil || d.group == nil {
			return d.object, d.gone, err
		}
		_, err = r.store.Commit(ctx, d.group...)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) && ctx.Err() == nil {
			if !inTurn { // many are changing it
				leave, err := r.turns.wait(ctx, res, key)
				if err != nil {
					return nil, false, err
				}
				defer leave()
				inTurn = true
			}
			continue
		}
		if err != nil {
			return nil, false, r.storeError(err, res, "delete", key.Name)
		}
		return d.object, d.gone, nil
	}
}

// deletion is what a Delete does.
type deletion struct {
	group  []store.Mutation // nil: nothing is to be written
	object api.Object       // as it is afterwards, or was last
	gone   bool
}

// deletion checks and admits the deletion of the object at key, and decides how it goes.
func (r *Registry) deletion(
	ctx context.Context, res *api.Resource, t *store.Table, key api.Key, opts metav1.DeleteOptions, chain admission.Chain,
) (d deletion, _ error) {
	if opts.OrphanDependents != nil && opts.PropagationPolicy != nil {
		return d, apierrors.NewBadRequest("orphanDependents and propagationPolicy cannot both be set")
	}
	current, ok := t.Get(res.Key(key))
	if !ok {
		return d, apierrors.NewNotFound(res.GroupResource(), key.Name)
	}
	obj := current.Object
	if err := preconditions(res, obj, opts.Preconditions); err != nil {
		return d, err
	}
	attrs := &admission.Attributes{
		Operation: admission.Delete, Resource: res, Key: key, Old: obj,
		Options: &opts, User: request.From(ctx).User, DryRun: len(opts.DryRun) > 0,
	}
	if err := chain.Admit(ctx, attrs); err != nil {
		return d, err
	}
	if err := chain.Validate(ctx, attrs); err != nil {
		return d, err
	}
	if len(opts.DryRun) == 0 {
		if err := r.roomFor(true); err != nil { // deleting is how room is made
			return d, err
		}
	}
	marked := marked(res, obj, opts)
	switch {
	case marked == nil && len(opts.DryRun) > 0:
		return deletion{object: obj, gone: true}, nil
	case marked == nil:
		return deletion{r.removeGroup(res, t, current), obj, true}, nil
	case marked == obj || len(opts.DryRun) > 0: // already being deleted, and nothing changes
		return deletion{object: marked}, nil
	}
	return deletion{[]store.Mutation{{Table: t, Key: current.Key, Object: marked, If: current.Rev}}, marked, false}, nil
}

// DeleteMany deletes objects in as few transactions as possible; each deletion succeeds or fails on its own. An object that has
// another UID by now is not deleted: that is a conflict. Preconditions of opts, which speak of one object, are not looked at.
func (r *Registry) DeleteMany(ctx context.Context, res *api.Resource, objs []api.Object, opts metav1.DeleteOptions) []Result {
	results := make([]Result, len(objs))
	one := func(obj api.Object) metav1.DeleteOptions {
		mine, uid := opts, obj.GetUID()
		mine.Preconditions = &metav1.Preconditions{UID: &uid}
		return mine
	}
	t := r.Table(res)
	r.rounds(ctx, res, results, func(i int) api.Key { return api.KeyOf(objs[i]) }, func(_ int, todo []int) (again []int) {
		var groups [][]store.Mutation
		var index []int
		deletions := make([]deletion, len(todo))
		r.each(len(todo), func(n int) {
			i := todo[n]
			d, err := r.deletion(ctx, res, t, api.KeyOf(objs[i]), one(objs[i]), r.admission)
			deletions[n], results[i] = d, Result{d.object, err}
		})
		for n, i := range todo {
			if results[i].Err == nil && deletions[n].group != nil {
				groups, index = append(groups, deletions[n].group), append(index, i)
			}
		}
		for g, err := range r.store.CommitEach(ctx, groups) {
			i := index[g]
			var conflict *store.ConflictError
			switch {
			case errors.As(err, &conflict) && ctx.Err() == nil:
				again = append(again, i)
			case err != nil:
				results[i] = Result{nil, r.storeError(err, res, "delete", objs[i].GetName())}
			}
		}
		return again
	})
	return results
}

// DeleteCollection deletes every object that sel chooses and returns them, with the first error if some could not be deleted.
func (r *Registry) DeleteCollection(ctx context.Context, res *api.Resource, sel Selection, opts metav1.DeleteOptions) ([]api.Object, error) {
	list, err := r.List(ctx, res, ListOptions{Selection: sel})
	if err != nil {
		return nil, err
	}
	objs := make([]api.Object, len(list.Items))
	for i, rev := range list.Items {
		objs[i] = rev.Object
	}
	var out []api.Object
	for i, result := range r.DeleteMany(ctx, res, objs, opts) {
		switch {
		case result.Err == nil:
			out = append(out, result.Object)
		case apierrors.IsNotFound(result.Err):
		case apierrors.IsConflict(result.Err): // there is another one of that name, which was not there when this began
			r.log.Debug("not deleted with its collection", "resource", res.Plural, "object", api.KeyOf(objs[i]), "err", result.Err)
		case err == nil:
			err = result.Err
		}
	}
	return out, err
}

func preconditions(res *api.Resource, obj api.Object, p *metav1.Preconditions) error {
	if p == nil {
		return nil
	}
	if p.UID != nil && *p.UID != obj.GetUID() {
		return apierrors.NewConflict(res.GroupResource(), obj.GetName(), fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", *p.UID, obj.GetUID()))
	}
	if p.ResourceVersion != nil && *p.ResourceVersion != obj.GetResourceVersion() {
		return apierrors.NewConflict(res.GroupResource(), obj.GetName(), fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", *p.ResourceVersion, obj.GetResourceVersion()))
	}
	return nil
}

// marked returns obj marked for deletion where something has to be waited for - a grace period, finalizers, a namespace's
// content - obj itself where it is so marked already, and nil where it can go at once.
func marked(res *api.Resource, obj api.Object, opts metav1.DeleteOptions) api.Object {
	deadline, grace := graceOf(res, obj, opts.GracePeriodSeconds)
	out, stays := store.Shallow(obj).(api.Object), false
	if res.BeginDeletion != nil {
		stays = res.BeginDeletion(out)
	}
	finalizers := withPropagation(res, out.GetFinalizers(), opts)
	had := obj.GetDeletionTimestamp()
	if grace == 0 && len(finalizers) == 0 && !stays {
		return nil
	}
	if before := obj.GetDeletionGracePeriodSeconds(); had != nil && before != nil && *before == grace && slices.Equal(finalizers, obj.GetFinalizers()) {
		return obj
	}
	out.SetFinalizers(finalizers)
	out.SetDeletionTimestamp(&deadline)
	out.SetDeletionGracePeriodSeconds(&grace)
	if obj.GetGeneration() > 0 && had == nil && res.BeginDeletion == nil { // Kubernetes' own beginnings of deletions leave it
		out.SetGeneration(obj.GetGeneration() + 1)
	}
	return out
}

// graceOf returns when an object that is being deleted may go, and its grace period in seconds. Once a deletion has begun the grace
// period only gets shorter, and only on request: what runs is still to be ended by its node.
func graceOf(res *api.Resource, obj api.Object, requested *int64) (metav1.Time, int64) {
	had, before := obj.GetDeletionTimestamp(), obj.GetDeletionGracePeriodSeconds()
	if had == nil || before == nil {
		var grace int64
		if res.GracePeriod != nil {
			grace = max(0, res.GracePeriod(obj, requested))
		}
		return metav1.Time{Time: now().Add(amount.Seconds(grace))}, grace
	}
	if requested == nil {
		return *had, *before
	}
	grace := *requested
	if grace < 0 {
		grace = 1 // "now", as negative values have always meant
	}
	if grace >= *before {
		return *had, *before
	}
	return metav1.Time{Time: had.Add(amount.Seconds(grace - *before))}, grace
}

// withPropagation adds or removes the garbage collector's finalizers as the deletion's propagation policy asks.
func withPropagation(res *api.Resource, have []string, opts metav1.DeleteOptions) []string {
	orphan := slices.Contains(have, metav1.FinalizerOrphanDependents)
	foreground := slices.Contains(have, metav1.FinalizerDeleteDependents)
	switch {
	case opts.OrphanDependents != nil:
		orphan = *opts.OrphanDependents
	case opts.PropagationPolicy != nil:
		orphan = *opts.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *opts.PropagationPolicy == metav1.DeletePropagationForeground
	case !foreground:
		orphan = orphan || res.LeavesDependents
	}
	var out []string
	for _, f := range have {
		if f != metav1.FinalizerOrphanDependents && f != metav1.FinalizerDeleteDependents {
			out = append(out, f)
		}
	}
	if orphan {
		out = append(out, metav1.FinalizerOrphanDependents)
	}
	if foreground {
		out = append(out, metav1.FinalizerDeleteDependents)
	}
	if len(out) == len(have) && slices.Equal(out, have) {
		return have
	}
	return out
}
