package registry

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/store"
)

// Delete starts graceful deletion of an object, or removes it where nothing has to be waited for (gone). It returns the object
// as it is now, or was last.
func (r *Registry) Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) (_ api.Object, gone bool, _ error) {
	if opts.OrphanDependents != nil && opts.PropagationPolicy != nil {
		return nil, false, apierrors.NewBadRequest("orphanDependents and propagationPolicy cannot both be set")
	}
	t := r.table(res)
	for {
		current, ok := t.Get(tableKey(res, key))
		if !ok {
			return nil, false, apierrors.NewNotFound(res.GroupResource(), key.Name)
		}
		obj := current.Object
		if err := preconditions(res, obj, opts.Preconditions); err != nil {
			return nil, false, err
		}
		attrs := &admission.Attributes{
			Operation: admission.Delete, Resource: res, Key: key, Old: obj,
			Options: &opts, User: request.From(ctx).User, DryRun: len(opts.DryRun) > 0,
		}
		if err := r.admission.Admit(ctx, attrs); err != nil {
			return nil, false, err
		}
		if err := r.admission.Validate(ctx, attrs); err != nil {
			return nil, false, err
		}
		marked := marked(res, obj, opts)
		if len(opts.DryRun) > 0 {
			return obj, marked == nil, nil
		}
		var group []store.Mutation
		switch {
		case marked == obj: // already being deleted, nothing changes
			return obj, false, nil
		case marked != nil:
			group = []store.Mutation{{Table: t, Key: current.Key, Object: marked, If: current.Rev}}
		default:
			group = append([]store.Mutation{{Table: t, Key: current.Key, If: current.Rev}}, r.services.release(res, obj)...)
		}
		_, err := r.store.Commit(ctx, group...)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return nil, false, r.storeError(err, res, "delete", key.Name)
		}
		if marked != nil {
			return marked, false, nil
		}
		return obj, true, nil
	}
}

// DeleteCollection deletes every object that sel chooses and returns them.
func (r *Registry) DeleteCollection(ctx context.Context, res *api.Resource, sel Selection, opts metav1.DeleteOptions) ([]api.Object, error) {
	list, err := r.List(ctx, res, ListOptions{Selection: sel})
	if err != nil {
		return nil, err
	}
	var out []api.Object
	for _, rev := range list.Items {
		obj, _, err := r.Delete(ctx, res, api.KeyOf(rev.Object), opts)
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return out, err
		}
		out = append(out, obj)
	}
	return out, nil
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
	var grace int64
	if res.GracePeriod != nil {
		grace = max(0, res.GracePeriod(obj, opts.GracePeriodSeconds))
	}
	finalizers := withPropagation(obj.GetFinalizers(), opts)
	waits := grace > 0 || len(finalizers) > 0
	ns, isNamespace := obj.(*corev1.Namespace)
	if isNamespace && len(ns.Spec.Finalizers) > 0 {
		waits = true
	}
	if !waits {
		return nil
	}
	if had := obj.GetDeletionTimestamp(); had != nil {
		before := obj.GetDeletionGracePeriodSeconds()
		shorter := before != nil && grace < *before && (res.GracePeriod != nil && opts.GracePeriodSeconds != nil)
		if !shorter && slices.Equal(finalizers, obj.GetFinalizers()) {
			return obj
		}
		if !shorter && before != nil {
			grace = *before
		}
	}
	out := store.Shallow(obj).(api.Object)
	out.SetResourceVersion("")
	out.SetFinalizers(finalizers)
	deadline := metav1.Time{Time: now().Add(time.Duration(grace) * time.Second)}
	if had := obj.GetDeletionTimestamp(); had != nil && had.Before(&deadline) {
		deadline = *had
	}
	out.SetDeletionTimestamp(&deadline)
	out.SetDeletionGracePeriodSeconds(&grace)
	if obj.GetGeneration() > 0 && obj.GetDeletionTimestamp() == nil {
		out.SetGeneration(obj.GetGeneration() + 1)
	}
	if isNamespace {
		out.(*corev1.Namespace).Status.Phase = corev1.NamespaceTerminating
	}
	return out
}

// withPropagation adds or removes the garbage collector's finalizers as the deletion's propagation policy asks.
func withPropagation(have []string, opts metav1.DeleteOptions) []string {
	orphan := slices.Contains(have, metav1.FinalizerOrphanDependents)
	foreground := slices.Contains(have, metav1.FinalizerDeleteDependents)
	switch {
	case opts.OrphanDependents != nil:
		orphan = *opts.OrphanDependents
	case opts.PropagationPolicy != nil:
		orphan = *opts.PropagationPolicy == metav1.DeletePropagationOrphan
		foreground = *opts.PropagationPolicy == metav1.DeletePropagationForeground
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
