package garbagecollector

import (
	"context"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
)

// apply carries act out on obj.
func (r *reconciler) apply(ctx context.Context, obj object, act action) error {
	if len(act.drop) > 0 {
		return r.dropReferences(ctx, obj, act.drop...)
	}
	if act.unblock {
		err := r.edit(ctx, obj, func(o api.Object) bool {
			refs, changed := slices.Clone(o.GetOwnerReferences()), false
			for i := range refs {
				if blocks(refs[i]) {
					no := false
					refs[i].BlockOwnerDeletion, changed = &no, true
				}
			}
			o.SetOwnerReferences(refs)
			return changed
		})
		if err != nil {
			return err
		}
	}
	if act.remove == "" {
		return nil
	}
	opts := metav1.DeleteOptions{PropagationPolicy: &act.remove}
	uid := obj.GetUID()
	opts.Preconditions = &metav1.Preconditions{UID: &uid}
	if !act.unblock { // else we have just made a new revision ourselves
		rv := obj.GetResourceVersion()
		opts.Preconditions.ResourceVersion = &rv
	}
	err := r.client.Delete(ctx, obj.res, api.KeyOf(obj), opts)
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err // a conflict is tried again with what is there then
}

// dropReferences removes the references of obj to owners.
func (r *reconciler) dropReferences(ctx context.Context, obj object, owners ...types.UID) error {
	return r.edit(ctx, obj, func(o api.Object) bool {
		had := o.GetOwnerReferences()
		refs := slices.DeleteFunc(slices.Clone(had), func(ref metav1.OwnerReference) bool { return slices.Contains(owners, ref.UID) })
		o.SetOwnerReferences(refs)
		return len(refs) < len(had)
	})
}

// dropFinalizer removes a finalizer of obj.
func (r *reconciler) dropFinalizer(ctx context.Context, obj object, name string) error {
	return r.edit(ctx, obj, func(o api.Object) bool {
		had := o.GetFinalizers()
		left := slices.DeleteFunc(slices.Clone(had), func(f string) bool { return f == name })
		o.SetFinalizers(left)
		return len(left) < len(had)
	})
}

// edit is client.Mutate for an object whose type is not known: it changes a copy of the stored object and writes it, again on
// conflict. Where the object is gone, or another one has its name, nothing is left to do.
func (r *reconciler) edit(ctx context.Context, obj object, change func(o api.Object) bool) error {
	for {
		stored, err := r.client.Get(ctx, obj.res, api.KeyOf(obj))
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
		o := stored.DeepCopyObject().(api.Object)
		if o.GetUID() != obj.GetUID() || !change(o) {
			return nil
		}
		_, err = r.client.Update(ctx, o, "")
		if apierrors.IsConflict(err) && ctx.Err() == nil {
			continue
		}
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
}
