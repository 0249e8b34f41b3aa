package registry

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/store"
)

// Transform makes the wanted object from the present one, which is shared and must not be changed (nil where there is none
// and the update may create). The result is the registry's. It is called again when somebody else wrote in between.
type Transform func(current api.Object) (api.Object, error)

// UpdateOptions say how an Update goes.
type UpdateOptions struct {
	metav1.UpdateOptions
	// Create makes the object where there is none (server-side apply, and PUT of the kinds that allow it).
	Create bool
	// Force writes even where nothing changes.
	Force bool
	// Applied says that transform has merged an applied configuration and recorded who manages what.
	Applied bool

	// recordAs is the subresource under which the writer's fields are recorded, where it is not the one that is written.
	recordAs string
	// admitted are the attributes of a write of another kind that transform has made this one of, and let Admit: a Scale.
	admitted *admission.Attributes
	// unasked says that this write is a part of another one, which admission has been asked about.
	unasked bool
}

// conflictMessage is what users and clients know to look for.
const conflictMessage = "the object has been modified; please apply your changes to the latest version and try again"

// Update replaces an object, or the part of it that subresource sub writes, by what transform returns. created tells that there was
// none before. Those who update the same object take turns.
func (r *Registry) Update(ctx context.Context, res *api.Resource, key api.Key, sub string, transform Transform, opts UpdateOptions) (_ api.Object, created bool, _ error) {
	t := r.Table(res)
	if len(opts.DryRun) == 0 {
		leave, err := r.turns.wait(ctx, res, key)
		if err != nil {
			return nil, false, err
		}
		defer leave()
	}
	for {
		current, ok := t.Get(res.Key(key))
		if !ok {
			if !opts.Create {
				return nil, false, apierrors.NewNotFound(res.GroupResource(), key.Name)
			}
			obj, err := transform(nil)
			if err != nil {
				return nil, false, err
			}
			out, err := r.create(ctx, res, obj, creation{CreateOptions: metav1.CreateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager}, applied: opts.Applied})
			if apierrors.IsAlreadyExists(err) {
				continue
			}
			return out, true, err
		}
		present, err := own(ctx, res, current.Object)
		if err != nil {
			return nil, false, err
		}
		obj, err := transform(present)
		if err != nil {
			return nil, false, err
		}
		if err := r.prepareUpdate(ctx, res, obj, present, sub, opts); err != nil {
			return nil, false, err
		}
		if !opts.Force && !stale(res, current.Object) && unchanged(obj, present) {
			return present, false, nil
		}
		if len(opts.DryRun) > 0 {
			return obj, false, nil
		}
		if err := r.roomFor(essential(ctx, res, cmp.Or(opts.recordAs, sub), current.Object)); err != nil {
			return nil, false, err
		}
		err = r.commitUpdate(ctx, res, t, obj, current)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) {
			if ctx.Err() != nil {
				return nil, false, r.storeError(ctx.Err(), res, "update", key.Name)
			}
			continue
		}
		if err != nil {
			return nil, false, err
		}
		return obj, false, nil
	}
}

// stale reports whether an object is stored in a version that is no longer the one to store in: every update writes it anew.
func stale(res *api.Resource, current api.Object) bool {
	return res.Unstructured && current.GetObjectKind().GroupVersionKind() != res.StoredAs().GroupVersionKind
}

// unchanged reports whether an update would store what is there already. The stored forms are compared, as in Kubernetes; that costs a
// tenth of a comparison by reflection.
func unchanged(obj, current api.Object) bool {
	if u, ok := obj.(runtime.Unstructured); ok {
		return reflect.DeepEqual(u.UnstructuredContent(), current.(runtime.Unstructured).UnstructuredContent())
	}
	a, b := obj.(runtime.ProtobufMarshaller), current.(runtime.ProtobufMarshaller) // all else that is stored is
	size := a.Size()
	if size != b.Size() {
		return false
	}
	x, y := make([]byte, size), make([]byte, size)
	if _, err := a.MarshalTo(x); err != nil {
		return false
	}
	_, err := b.MarshalTo(y)
	return err == nil && bytes.Equal(x, y)
}

// prepareUpdate checks preconditions, then defaults, admits, prepares and validates obj in place.
func (r *Registry) prepareUpdate(ctx context.Context, res *api.Resource, obj, current api.Object, sub string, opts UpdateOptions) error {
	if obj.GetName() != current.GetName() || obj.GetNamespace() != current.GetNamespace() {
		return apierrors.NewBadRequest(fmt.Sprintf("the name of the object (%s) does not match the name on the URL (%s)", api.KeyOf(obj), api.KeyOf(current)))
	}
	if uid := obj.GetUID(); uid != "" && uid != current.GetUID() {
		return apierrors.NewConflict(res.GroupResource(), obj.GetName(), fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", uid, current.GetUID()))
	}
	if rv := obj.GetResourceVersion(); rv != "" && rv != current.GetResourceVersion() {
		return apierrors.NewConflict(res.GroupResource(), obj.GetName(), errors.New(conflictMessage))
	}
	if !res.Conditional {
		obj.SetResourceVersion(current.GetResourceVersion())
	}
	obj.GetObjectKind().SetGroupVersionKind(res.GroupVersionKind)
	res.Default(obj)
	attrs := opts.admitted
	if attrs == nil {
		attrs = &admission.Attributes{
			Operation: admission.Update, Resource: res, Subresource: sub, Key: api.KeyOf(obj), Object: obj, Old: current,
			Options: &opts.UpdateOptions, User: request.From(ctx).User, DryRun: len(opts.DryRun) > 0,
		}
		if !opts.unasked {
			if err := r.admission.Admit(ctx, attrs); err != nil {
				return err
			}
		}
	}
	if err := res.Pack(obj); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	if !opts.Applied {
		if err := r.record(ctx, res, cmp.Or(opts.recordAs, sub), current, obj, opts.FieldManager); err != nil {
			return err
		}
	}
	if a := r.allocators[res]; a != nil && sub == "" {
		if err := a.fill(obj, current); err != nil {
			return err
		}
	}
	obj.SetUID(current.GetUID())
	obj.SetCreationTimestamp(current.GetCreationTimestamp())
	obj.SetDeletionTimestamp(current.GetDeletionTimestamp())
	obj.SetDeletionGracePeriodSeconds(current.GetDeletionGracePeriodSeconds())
	obj.SetGenerateName(current.GetGenerateName())
	obj.SetGeneration(current.GetGeneration())
	obj.SetSelfLink("")
	if res.PrepareForUpdate != nil {
		res.PrepareForUpdate(obj, current, sub)
	}
	r.times.Cut(obj)
	if errs := res.ValidateUpdate(obj, current, sub); len(errs) > 0 {
		return invalid(res, obj, errs)
	}
	warn(ctx, res, obj, current, sub)
	if opts.unasked {
		return nil
	}
	return r.admission.Validate(ctx, attrs)
}

// commitUpdate stores a prepared obj in place of current, or removes it where it was only waiting for its finalizers.
func (r *Registry) commitUpdate(ctx context.Context, res *api.Resource, t *store.Table, obj api.Object, current *store.Revision) error {
	kept, err := stored(ctx, res, obj)
	if err != nil {
		return err
	}
	group := r.updateGroup(res, t, kept, current)
	rev, err := r.store.Commit(ctx, group...)
	var conflict *store.ConflictError
	if errors.As(err, &conflict) {
		return conflict
	}
	if err == nil && group[0].Object == nil {
		obj.SetResourceVersion(store.FormatRevision(rev))
	} else if err == nil {
		written(obj, kept)
	}
	return r.storeError(err, res, "update", obj.GetName())
}

// updateGroup returns the mutations that replace current by obj.
func (r *Registry) updateGroup(res *api.Resource, t *store.Table, obj api.Object, current *store.Revision) []store.Mutation {
	if finished(obj) {
		return r.removeGroup(res, t, current)
	}
	group := []store.Mutation{{Table: t, Key: current.Key, Object: obj, If: current.Rev}}
	return append(group, r.exchange(res, current.Object, obj)...)
}

// removeGroup returns the mutations that remove current.
func (r *Registry) removeGroup(res *api.Resource, t *store.Table, current *store.Revision) []store.Mutation {
	group := []store.Mutation{{Table: t, Key: current.Key, If: current.Rev}}
	return append(group, r.exchange(res, current.Object, nil)...)
}

// finished tells that an object that is being deleted has nothing left to wait for.
func finished(obj api.Object) bool {
	if obj.GetDeletionTimestamp() == nil || len(obj.GetFinalizers()) > 0 {
		return false
	}
	if ns, ok := obj.(*corev1.Namespace); ok && len(ns.Spec.Finalizers) > 0 {
		return false
	}
	grace := obj.GetDeletionGracePeriodSeconds()
	return grace == nil || *grace == 0
}
