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
	return r.create(ctx, res, obj, creation{CreateOptions: opts})
}

// creation says how a create goes.
type creation struct {
	metav1.CreateOptions
	applied bool // the object comes of an applied configuration, and says who manages what
}

func (r *Registry) create(ctx context.Context, res *api.Resource, obj api.Object, opts creation) (api.Object, error) {
	generated := obj.GetGenerateName() != "" && obj.GetName() == ""
	for try := 0; ; try++ {
		draft := obj
		if generated || r.allocators[res] != nil {
			draft = obj.DeepCopyObject().(api.Object) // as it came, should a name or an address have to be drawn again
		}
		if err := r.prepareCreate(ctx, res, draft, opts); err != nil {
			if generated && apierrors.IsAlreadyExists(err) && try < generateNameTries {
				continue
			}
			return nil, err
		}
		if len(opts.DryRun) > 0 {
			return draft, nil
		}
		kept, err := stored(ctx, res, draft)
		if err != nil {
			return nil, err
		}
		_, err = r.store.Commit(ctx, r.createGroup(res, kept)...)
		var conflict *store.ConflictError
		switch {
		case err == nil:
			return written(draft, kept), nil
		case !errors.As(err, &conflict):
			return nil, r.storeError(err, res, "create", draft.GetName())
		case conflict.Ops[0] != 0 && try < allocationTries: // somebody else took the address or the port
		case conflict.Ops[0] == 0 && generated && try < generateNameTries:
		case conflict.Ops[0] != 0:
			return nil, apierrors.NewServerTimeout(res.GroupResource(), "create", 1)
		default:
			return nil, apierrors.NewAlreadyExists(res.GroupResource(), draft.GetName())
		}
	}
}

// stored returns obj, of the version of res, in the version in which objects of res are stored: obj itself but for further versions of custom
// resources.
func stored(ctx context.Context, res *api.Resource, obj api.Object) (api.Object, error) {
	if res.Stored == nil {
		return obj, nil
	}
	out, err := res.Stored.Own(ctx, obj)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// written gives obj, which was stored as kept, the revision of that.
func written(obj, kept api.Object) api.Object {
	if obj != kept {
		obj.SetResourceVersion(kept.GetResourceVersion())
	}
	return obj
}

// own returns an object of the table of res in the version of res.
func own(ctx context.Context, res *api.Resource, obj api.Object) (api.Object, error) {
	if res.Convert == nil {
		return obj, nil
	}
	out, err := res.Own(ctx, obj)
	if err != nil {
		return nil, err
	}
	return out[0], nil
}

// createGroup returns the mutations that store obj, which has been prepared.
func (r *Registry) createGroup(res *api.Resource, obj api.Object) []store.Mutation {
	group := []store.Mutation{{Table: r.Table(res), Key: res.Key(api.KeyOf(obj)), Object: obj, If: 0}}
	return append(group, r.exchange(res, nil, obj)...)
}

// maxNameLength leaves room for the five random letters (k8s.io/apiserver names.SimpleNameGenerator's rule).
const maxNameLength = 63

func generateName(base string) string {
	if len(base) > maxNameLength-5 {
		base = base[:maxNameLength-5]
	}
	return base + rand.String(5)
}

// freeName draws a name that no object has at the moment, as far as a few tries find one.
func (r *Registry) freeName(res *api.Resource, namespace, base string) string {
	t := r.Table(res)
	name := generateName(base)
	for range generateNameTries {
		if _, taken := t.Get(res.Key(api.Key{Namespace: namespace, Name: name})); !taken {
			break
		}
		name = generateName(base)
	}
	return name
}

// prepareCreate defaults, admits, prepares and validates obj in place; a Service gets its addresses and ports, which have still to
// be taken.
func (r *Registry) prepareCreate(ctx context.Context, res *api.Resource, obj api.Object, opts creation) error {
	if err := creatable(res, obj); err != nil {
		return err
	}
	obj.GetObjectKind().SetGroupVersionKind(res.GroupVersionKind) // so that stored objects encode as they are
	wipe(obj)
	res.Default(obj)
	attrs := &admission.Attributes{
		Operation: admission.Create, Resource: res, Key: api.KeyOf(obj), Object: obj,
		Options: &opts.CreateOptions, User: request.From(ctx).User, DryRun: len(opts.DryRun) > 0,
	}
	if err := r.admit(ctx, attrs); err != nil {
		return err
	}
	if obj.GetName() == "" && obj.GetGenerateName() != "" { // admission may have set one
		obj.SetName(r.freeName(res, obj.GetNamespace(), obj.GetGenerateName()))
		attrs.Key = api.KeyOf(obj)
	}
	if !opts.applied {
		if err := r.record(ctx, res, "", nil, obj, opts.FieldManager); err != nil {
			return err
		}
	}
	if a := r.allocators[res]; a != nil {
		// Else it would seem that an object created twice with its address wants that of another.
		if _, exists := r.Table(res).Get(res.Key(api.KeyOf(obj))); exists {
			return apierrors.NewAlreadyExists(res.GroupResource(), obj.GetName())
		}
		if err := a.fill(obj, nil); err != nil {
			return err
		}
	}
	wipe(obj) // of what admission may have set
	obj.SetUID(uuid.NewUUID())
	obj.SetCreationTimestamp(metav1.Time{Time: now()})
	if res.PrepareForCreate != nil {
		res.PrepareForCreate(obj)
	}
	r.times.Cut(obj)
	if obj.GetName() == "" {
		return invalid(res, obj, field.ErrorList{field.Required(field.NewPath("metadata", "name"), "name or generateName is required")})
	}
	if errs := res.Validate(obj); len(errs) > 0 {
		return invalid(res, obj, errs)
	}
	refusal := r.refusal(res, obj)
	if len(opts.DryRun) == 0 && refusal == nil {
		if err := r.roomFor(essential(ctx, res, "", nil)); err != nil { // before admission charges quotas
			return err
		}
	}
	warn(ctx, res, obj, nil, "")
	attrs.Refused = refusal != nil
	if err := r.admission.Validate(ctx, attrs); err != nil {
		return err
	}
	return refusal
}

// refusal returns why a new object is refused for its name or its version, or nil. It is found out before admission validates, which charges nothing
// then, and said afterwards, as in Kubernetes: who is refused by a policy does not learn which names are taken.
func (r *Registry) refusal(res *api.Resource, obj api.Object) error {
	if obj.GetResourceVersion() != "" {
		return apierrors.NewBadRequest("resourceVersion should not be set on objects to be created")
	}
	if _, exists := r.Table(res).Get(res.Key(api.KeyOf(obj))); exists {
		return apierrors.NewAlreadyExists(res.GroupResource(), obj.GetName())
	}
	return nil
}

// wipe removes what only the server sets.
func wipe(obj api.Object) {
	obj.SetUID("")
	obj.SetCreationTimestamp(metav1.Time{})
	obj.SetDeletionTimestamp(nil)
	obj.SetDeletionGracePeriodSeconds(nil)
	obj.SetSelfLink("")
}

// creatable refuses an object in a namespace, or outside of one, where its kind does not allow that.
func creatable(res *api.Resource, obj api.Object) error {
	if res.Namespaced && obj.GetNamespace() == "" {
		return apierrors.NewBadRequest(fmt.Sprintf("a namespace must be given: %s %q is namespaced", res.GroupResource(), obj.GetName()))
	}
	if !res.Namespaced && obj.GetNamespace() != "" {
		return apierrors.NewBadRequest(fmt.Sprintf("%s are not namespaced, but %q names namespace %q", res.GroupResource(), obj.GetName(), obj.GetNamespace()))
	}
	return nil
}

func invalid(res *api.Resource, obj api.Object, errs field.ErrorList) error {
	return apierrors.NewInvalid(res.GroupKind(), obj.GetName(), errs)
}
