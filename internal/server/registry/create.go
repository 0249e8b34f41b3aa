package registry

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/store"
)

// generateNameTries is how often a generated name that is taken is drawn anew (KEP-4420).
const generateNameTries = 8

// Create stores a new object and returns it. The object is the registry's from now on. In a dry run everything but the storing
// happens.
func (r *Registry) Create(ctx context.Context, res *api.Resource, obj api.Object, opts metav1.CreateOptions) (api.Object, error) {
	generate := obj.GetGenerateName()
	generated := generate != "" && obj.GetName() == ""
	for try := 0; ; try++ {
		draft := obj
		if generated {
			draft = obj.DeepCopyObject().(api.Object) // as it came, should the name have to be drawn again
			draft.SetName(generateName(generate))
		}
		if err := r.prepareCreate(ctx, res, draft, opts); err != nil {
			return nil, err
		}
		out, err := r.commitCreate(ctx, res, draft, len(opts.DryRun) > 0)
		if generated && apierrors.IsAlreadyExists(err) && try < generateNameTries {
			continue
		}
		return out, err
	}
}

// maxNameLength leaves room for the five random letters (k8s.io/apiserver names.SimpleNameGenerator's rule).
const maxNameLength = 63

func generateName(base string) string {
	if len(base) > maxNameLength-5 {
		base = base[:maxNameLength-5]
	}
	return base + rand.String(5)
}

// prepareCreate defaults, admits, prepares and validates obj in place.
func (r *Registry) prepareCreate(ctx context.Context, res *api.Resource, obj api.Object, opts metav1.CreateOptions) error {
	if res.Namespaced && obj.GetNamespace() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("a namespace must be given: %s %q is namespaced", res.GroupResource(), obj.GetName()))
	}
	if !res.Namespaced && obj.GetNamespace() != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s are not namespaced, but %q names namespace %q", res.GroupResource(), obj.GetName(), obj.GetNamespace()))
	}
	if obj.GetResourceVersion() != "" {
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	obj.GetObjectKind().SetGroupVersionKind(res.GroupVersionKind) // so that stored objects encode as they are
	res.Default(obj)
	attrs := &admission.Attributes{
		Operation: admission.Create, Resource: res, Key: api.KeyOf(obj), Object: obj,
		Options: &opts, User: request.From(ctx).User, DryRun: len(opts.DryRun) > 0,
	}
	if err := r.admission.Admit(ctx, attrs); err != nil {
		return err
	}
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.Time{Time: now()})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
	if res.PrepareForCreate != nil {
		res.PrepareForCreate(obj)
	}
	if obj.GetName() == "" {
		return invalid(res, obj, field.ErrorList{field.Required(field.NewPath("metadata", "name"), "name or generateName is required")})
	}
	if errs := res.Validate(obj); len(errs) > 0 {
		return invalid(res, obj, errs)
	}
	warn(ctx, res, obj, nil)
	return r.admission.Validate(ctx, attrs)
}

func (r *Registry) commitCreate(ctx context.Context, res *api.Resource, obj api.Object, dryRun bool) (api.Object, error) {
	name := obj.GetName()
	t := r.table(res)
	group := []store.Mutation{{Table: t, Key: tableKey(res, api.KeyOf(obj)), Object: obj, If: 0}}
	if _, exists := t.Get(group[0].Key); exists {
		return nil, apierrors.NewAlreadyExists(res.GroupResource(), name)
	}
	for try := 0; ; try++ {
		extra, undo, err := r.services.allocate(res, obj, nil, dryRun)
		if err != nil {
			return nil, err
		}
		if dryRun {
			return obj, nil
		}
		_, err = r.store.Commit(ctx, append(group, extra...)...)
		var conflict *store.ConflictError
		if errors.As(err, &conflict) {
			undo()
			if conflict.Ops[0] == 0 {
				return nil, apierrors.NewAlreadyExists(res.GroupResource(), name)
			}
			if try < allocationTries {
				continue // another server took the address or port
			}
		}
		if err != nil {
			return nil, r.storeError(err, res, "create", name)
		}
		return obj, nil
	}
}

func invalid(res *api.Resource, obj api.Object, errs field.ErrorList) error {
	return apierrors.NewInvalid(res.GroupKind(), obj.GetName(), errs)
}
