package server

import (
	"encoding/json"
	"mime"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/patch"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// patchTypes are what a PATCH may carry.
var patchTypes = []string{
	string(types.JSONPatchType), string(types.MergePatchType), string(types.StrategicMergePatchType),
	string(types.ApplyYAMLPatchType), string(types.ApplyCBORPatchType),
}

// patch changes the object as its body says, again from its newest state when somebody wrote in between.
func (x *exchange) patch() error {
	kind, err := x.patchType()
	if err != nil {
		return err
	}
	opts := metav1.PatchOptions{}
	if err := x.parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidatePatchOptions(&opts, kind); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("PatchOptions"), "", errs)
	}
	body, err := x.body()
	if err != nil {
		return err
	}
	update := registry.UpdateOptions{UpdateOptions: metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}}
	var transform registry.Transform
	if kind == types.ApplyYAMLPatchType || kind == types.ApplyCBORPatchType {
		if transform, err = x.applier(kind, body, opts); err != nil {
			return err
		}
		update.Create = x.t.Subresource == ""
	} else {
		transform = x.patcher(kind, body, fieldValidation(opts.FieldValidation), x.manager(opts.FieldManager))
	}
	out, created, err := x.s.cfg.Registry.Update(x.r.Context(), x.t.Res, x.t.key(), x.t.Subresource, transform, update)
	if err != nil {
		return err
	}
	if created {
		return x.written(http.StatusCreated, out)
	}
	return x.written(http.StatusOK, out)
}

func (x *exchange) patchType() (types.PatchType, error) {
	media, _, err := mime.ParseMediaType(x.r.Header.Get("Content-Type"))
	if err == nil {
		for _, t := range patchTypes {
			if t == media {
				return types.PatchType(t), nil
			}
		}
	}
	return "", errUnsupportedMedia(patchTypes...)
}

// patcher returns the function that applies a JSON, merge or strategic merge patch in the client's version.
func (x *exchange) patcher(kind types.PatchType, body []byte, validation, manager string) registry.Transform {
	gvk := x.t.kind()
	warned := false
	return func(current api.Object) (api.Object, error) {
		versioned, err := api.Convert(current, gvk.GroupVersion())
		if err != nil {
			return nil, err
		}
		original, err := json.Marshal(wire.Named(versioned, gvk))
		if err != nil {
			return nil, err
		}
		typ, err := api.Scheme.New(gvk)
		if err != nil {
			return nil, err
		}
		patched, duplicates, err := patch.Apply(kind, original, body, typ)
		if err != nil {
			return nil, err
		}
		obj, warnings, err := x.s.decoder.Decode(patched, wire.JSON, gvk, typ, validation)
		if err != nil {
			return nil, x.patchedError(err)
		}
		if validation != metav1.FieldValidationIgnore {
			if len(duplicates) > 0 && validation == metav1.FieldValidationStrict {
				return nil, apierrors.NewBadRequest("strict decoding error: " + strings.Join(wire.Messages(duplicates), ", "))
			}
			if !warned { // once, however often somebody gets in between
				x.warn(append(wire.Messages(duplicates), warnings...))
				warned = true
			}
		}
		wanted, err := x.stored(obj)
		if err != nil {
			return nil, err
		}
		return x.record(current, wanted, manager)
	}
}

// patchedError names the patch as the origin of a field that the kind does not have.
func (x *exchange) patchedError(err error) error {
	st := statusOf(err)
	if _, after, ok := strings.Cut(st.ErrStatus.Message, "strict decoding error:"); ok {
		return apierrors.NewBadRequest("strict decoding error:" + after)
	}
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "patch", x.t.groupResource(), x.t.Name, st.ErrStatus.Message, 0, false)
}

// applier returns the function that merges an applied configuration (server-side apply, KEP-555).
func (x *exchange) applier(kind types.PatchType, body []byte, opts metav1.PatchOptions) (registry.Transform, error) {
	gvk := x.t.kind()
	applied, err := readConfiguration(kind, body)
	if err != nil {
		return nil, err
	}
	if opts.FieldValidation != metav1.FieldValidationIgnore {
		if dup := applied.duplicates; len(dup) > 0 {
			if opts.FieldValidation == metav1.FieldValidationStrict {
				return nil, apierrors.NewBadRequest(strings.Join(wire.Messages(dup), ", "))
			}
			x.warn(wire.Messages(dup))
		}
	}
	if err := x.checkConfiguration(applied.Unstructured, gvk); err != nil {
		return nil, err
	}
	force := opts.Force != nil && *opts.Force
	return func(current api.Object) (api.Object, error) {
		var live api.Object
		if current != nil {
			versioned, err := api.Convert(current, gvk.GroupVersion())
			if err != nil {
				return nil, err
			}
			live = versioned.(api.Object)
		} else if applied.GetUID() != "" {
			return nil, apierrors.NewConflict(x.t.groupResource(), x.t.Name, errUIDOfNothing(string(applied.GetUID())))
		} else if err := x.mayCreate(); err != nil {
			return nil, err
		}
		merged, err := x.s.managers.Apply(gvk, x.t.Subresource, live, applied.DeepCopy(), opts.FieldManager, force)
		if err != nil {
			return nil, err
		}
		wanted, err := x.stored(merged)
		if err != nil {
			return nil, err
		}
		if current == nil {
			wanted.SetName(x.t.Name)
			if x.t.Res.Namespaced {
				wanted.SetNamespace(x.t.Namespace)
			}
			wanted.SetResourceVersion("")
		}
		return wanted, nil
	}, nil
}

type errUIDOfNothing string

func (e errUIDOfNothing) Error() string {
	return "uid mismatch: the provided object specified uid " + string(e) + ", and no existing object was found"
}

type configuration struct {
	*unstructured.Unstructured
	duplicates []error
}

func readConfiguration(kind types.PatchType, body []byte) (*configuration, error) {
	if kind == types.ApplyCBORPatchType {
		u := &unstructured.Unstructured{}
		if err := direct.Unmarshal(body, &u.Object); err != nil || u.Object == nil {
			return nil, apierrors.NewBadRequest("the applied configuration is not a CBOR map")
		}
		return &configuration{Unstructured: u}, nil
	}
	u, duplicates, err := patch.ReadConfiguration(body)
	if err != nil {
		return nil, err
	}
	return &configuration{u, duplicates}, nil
}

// checkConfiguration refuses a configuration that is for another object than the URL's, or that brings its own managedFields.
func (x *exchange) checkConfiguration(u *unstructured.Unstructured, gvk schema.GroupVersionKind) error {
	if have := u.GroupVersionKind(); have != gvk {
		return apierrors.NewBadRequest("the applied configuration is a " + have.String() + ", the URL names a " + gvk.String())
	}
	if len(u.GetManagedFields()) > 0 {
		return apierrors.NewBadRequest("metadata.managedFields must be nil")
	}
	if name := u.GetName(); name != "" && name != x.t.Name {
		return apierrors.NewBadRequest("the name of the object (" + name + ") does not match the name on the URL (" + x.t.Name + ")")
	}
	if ns := u.GetNamespace(); ns != "" && x.t.Res.Namespaced && ns != x.t.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request (" + ns + " vs " + x.t.Namespace + ")")
	}
	return nil
}
