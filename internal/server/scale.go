package server

import (
	"encoding/json"
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/patch"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
)

var scaleKind = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// scale reads and writes the number of replicas, in the same terms for every kind that has one.
func (x *exchange) scale() error {
	switch x.t.Verb {
	case "get":
		rev, err := x.s.cfg.Registry.Get(x.r.Context(), x.t.Res, x.t.key())
		if err != nil {
			return err
		}
		scale := x.scaleOf(rev.Object)
		if x.accept.As == tableKind {
			return x.scaleTable(scale)
		}
		x.document(http.StatusOK, scale, scaleKind)
		return nil
	case "update":
		return x.updateScale()
	}
	return x.patchScale()
}

// scaleTable answers with the columns that Kubernetes prints for a Scale.
func (x *exchange) scaleTable(scale *autoscalingv1.Scale) error {
	table, err := api.Table(scale)
	if err != nil {
		return err
	}
	table.ResourceVersion = scale.ResourceVersion
	include := metav1.IncludeObjectPolicy(x.q.Get("includeObject"))
	for i := range table.Rows {
		switch include {
		case metav1.IncludeNone:
			table.Rows[i].Object = runtime.RawExtension{}
		case metav1.IncludeObject:
			table.Rows[i].Object.Object = wire.Named(scale, scaleKind)
		default:
			table.Rows[i].Object.Object = partial(scale)
		}
	}
	x.document(http.StatusOK, table, tableKind)
	return nil
}

// scaleOf is obj as a Scale.
func (x *exchange) scaleOf(obj api.Object) *autoscalingv1.Scale {
	spec, status, selector := x.t.Res.Scale.Get(obj)
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: obj.GetName(), Namespace: obj.GetNamespace(), UID: obj.GetUID(),
			ResourceVersion: obj.GetResourceVersion(), CreationTimestamp: obj.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: spec},
		Status: autoscalingv1.ScaleStatus{Replicas: status, Selector: selector},
	}
}

func (x *exchange) updateScale() error {
	opts := metav1.UpdateOptions{}
	if err := x.parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidateUpdateOptions(&opts); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("UpdateOptions"), "", errs)
	}
	obj, err := x.decode(scaleKind, &autoscalingv1.Scale{}, fieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	wanted := obj.(*autoscalingv1.Scale)
	if wanted.Name != x.t.Name {
		return x.named(wanted)
	}
	return x.writeScale(opts, func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error) { return wanted, nil })
}

func (x *exchange) patchScale() error {
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
	if kind == types.ApplyYAMLPatchType || kind == types.ApplyCBORPatchType {
		// A Scale has three fields; applying one is the merge of what is given.
		c, err := readConfiguration(kind, body)
		if err != nil {
			return err
		}
		if err := x.checkConfiguration(c.Unstructured, scaleKind); err != nil {
			return err
		}
		if body, err = json.Marshal(c.Object); err != nil {
			return err
		}
		kind = types.MergePatchType
	}
	update := metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}
	return x.writeScale(update, func(current *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		original, err := json.Marshal(wire.Named(current, scaleKind))
		if err != nil {
			return nil, err
		}
		patched, _, err := patch.Apply(kind, original, body, &autoscalingv1.Scale{})
		if err != nil {
			return nil, err
		}
		out, warnings, err := x.s.decoder.Decode(patched, wire.JSON, scaleKind, &autoscalingv1.Scale{}, fieldValidation(opts.FieldValidation))
		if err != nil {
			return nil, x.patchedError(err)
		}
		x.warn(warnings)
		return out.(*autoscalingv1.Scale), nil
	})
}

// writeScale sets the replicas that change asks for.
func (x *exchange) writeScale(opts metav1.UpdateOptions, change func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error)) error {
	transform := func(current api.Object) (api.Object, error) {
		wanted, err := change(x.scaleOf(current))
		if err != nil {
			return nil, err
		}
		if wanted.Spec.Replicas < 0 {
			return nil, apierrors.NewInvalid(scaleKind.GroupKind(), x.t.Name, field.ErrorList{
				field.Invalid(field.NewPath("spec", "replicas"), wanted.Spec.Replicas, "must be greater than or equal to 0")})
		}
		obj := current.DeepCopyObject().(api.Object)
		x.t.Res.Scale.Set(obj, wanted.Spec.Replicas)
		obj.SetResourceVersion(wanted.ResourceVersion)
		if wanted.UID != "" {
			obj.SetUID(wanted.UID)
		}
		return x.record(current, obj, x.manager(opts.FieldManager))
	}
	// The registry knows no scale: it is a write of the object itself.
	out, _, err := x.s.cfg.Registry.Update(x.r.Context(), x.t.Res, x.t.key(), "", transform, registry.UpdateOptions{UpdateOptions: opts})
	if err != nil {
		return err
	}
	x.document(http.StatusOK, x.scaleOf(out), scaleKind)
	return nil
}
