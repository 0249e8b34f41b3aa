package verbs

import (
	"mime"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
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
func (v *Verbs) patch(c *call.Call) error {
	kind, err := patchType(c)
	if err != nil {
		return err
	}
	opts := metav1.PatchOptions{}
	if err := c.Parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidatePatchOptions(&opts, kind); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("PatchOptions"), "", errs)
	}
	body := c.Body()
	update := registry.UpdateOptions{UpdateOptions: metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}}
	var transform registry.Transform
	if kind == types.ApplyYAMLPatchType || kind == types.ApplyCBORPatchType {
		if transform, err = v.applier(c, kind, body, opts); err != nil {
			return err
		}
		update.Create, update.Applied = c.Target.Subresource == "", true
	} else {
		transform = v.patcher(c, kind, body, call.FieldValidation(opts.FieldValidation))
	}
	out, created, err := v.cfg.Registry.Update(c.R.Context(), c.Target.Res, c.Target.Key(), c.Target.Subresource, transform, update)
	if err != nil {
		return err
	}
	if created {
		return v.written(c, http.StatusCreated, out)
	}
	return v.written(c, http.StatusOK, out)
}

func patchType(c *call.Call) (types.PatchType, error) {
	offered := patchTypes
	if c.Target.Res.Unstructured {
		offered = slices.DeleteFunc(slices.Clone(offered), func(t string) bool { return t == string(types.StrategicMergePatchType) })
	}
	media, _, err := mime.ParseMediaType(c.R.Header.Get("Content-Type"))
	if err == nil {
		for _, t := range offered {
			if t == media {
				return types.PatchType(t), nil
			}
		}
	}
	return "", call.ErrUnsupportedMedia(offered...)
}

// patcher returns the function that applies a JSON, merge or strategic merge patch in the client's version.
func (v *Verbs) patcher(c *call.Call, kind types.PatchType, body []byte, validation string) registry.Transform {
	gvk := c.Target.Kind()
	warned := false
	return func(current api.Object) (api.Object, error) {
		versioned, err := shown(c, current)
		if err != nil {
			return nil, err
		}
		original, err := wire.Item(versioned, gvk, wire.JSON)
		if err != nil {
			return nil, err
		}
		typ, err := c.Target.Res.NewIn(gvk.GroupVersion())
		if err != nil {
			return nil, err
		}
		patched, duplicates, err := patch.Apply(kind, original, body, typ)
		if err != nil {
			return nil, err
		}
		obj, warnings, err := c.Decoder.Decode(patched, wire.JSON, gvk, typ, validation)
		if err != nil {
			return nil, patchedError(c, err)
		}
		if validation != metav1.FieldValidationIgnore {
			if len(duplicates) > 0 && validation == metav1.FieldValidationStrict {
				return nil, apierrors.NewBadRequest("strict decoding error: " + strings.Join(wire.Messages(duplicates), ", "))
			}
			if !warned { // once, however often somebody gets in between
				c.Warn(append(wire.Messages(duplicates), warnings...))
			}
		}
		wanted, unknown, err := stored(c, obj)
		if err != nil {
			return nil, err
		}
		if !warned || validation == metav1.FieldValidationStrict {
			err = judge(c, unknown, validation)
		}
		warned = true
		return wanted, err
	}
}

// patchedError names the patch as the origin of a field that the kind does not have.
func patchedError(c *call.Call, err error) error {
	st := call.StatusOf(err)
	if _, after, ok := strings.Cut(st.ErrStatus.Message, "strict decoding error:"); ok {
		return apierrors.NewBadRequest("strict decoding error:" + after)
	}
	return apierrors.NewGenericServerResponse(http.StatusUnprocessableEntity, "patch", c.Target.GroupResource(), c.Target.Name, st.ErrStatus.Message, 0, false)
}

// applier returns the function that merges an applied configuration (server-side apply, KEP-555).
func (v *Verbs) applier(c *call.Call, kind types.PatchType, body []byte, opts metav1.PatchOptions) (registry.Transform, error) {
	gvk := c.Target.Kind()
	applied, err := readConfiguration(kind, body)
	if err != nil {
		return nil, err
	}
	if opts.FieldValidation != metav1.FieldValidationIgnore {
		if dup := applied.duplicates; len(dup) > 0 {
			if opts.FieldValidation == metav1.FieldValidationStrict {
				return nil, apierrors.NewBadRequest(strings.Join(wire.Messages(dup), ", "))
			}
			c.Warn(wire.Messages(dup))
		}
	}
	if err := checkConfiguration(c, applied.Unstructured, gvk); err != nil {
		return nil, err
	}
	force := opts.Force != nil && *opts.Force
	return func(current api.Object) (api.Object, error) {
		var live api.Object
		if current != nil {
			var err error
			if live, err = shown(c, current); err != nil {
				return nil, err
			}
		} else if applied.GetUID() != "" {
			return nil, apierrors.NewConflict(c.Target.GroupResource(), c.Target.Name, errUIDOfNothing(string(applied.GetUID())))
		} else if err := v.mayCreate(c); err != nil {
			return nil, err
		}
		merged, err := v.cfg.Registry.Managers().Apply(c.Target.Res, gvk.GroupVersion(), c.Target.Subresource, live, applied.DeepCopy(), opts.FieldManager, force)
		if err != nil {
			return nil, err
		}
		wanted, unknown, err := stored(c, merged)
		if err != nil {
			return nil, err
		}
		if err := judge(c, unknown, call.FieldValidation(opts.FieldValidation)); err != nil {
			return nil, err
		}
		if current == nil {
			wanted.SetName(c.Target.Name)
			if c.Target.Res.Namespaced {
				wanted.SetNamespace(c.Target.Namespace)
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
func checkConfiguration(c *call.Call, u *unstructured.Unstructured, gvk schema.GroupVersionKind) error {
	if have := u.GroupVersionKind(); have != gvk {
		return apierrors.NewBadRequest("the applied configuration is a " + have.String() + ", the URL names a " + gvk.String())
	}
	if len(u.GetManagedFields()) > 0 {
		return apierrors.NewBadRequest("metadata.managedFields must be nil")
	}
	if name := u.GetName(); name != "" && name != c.Target.Name {
		return apierrors.NewBadRequest("the name of the object (" + name + ") does not match the name on the URL (" + c.Target.Name + ")")
	}
	if ns := u.GetNamespace(); ns != "" && c.Target.Res.Namespaced && ns != c.Target.Namespace {
		return apierrors.NewBadRequest("the namespace of the provided object does not match the namespace sent on the request (" + ns + " vs " + c.Target.Namespace + ")")
	}
	return nil
}
