package verbs

import (
	"encoding/json"
	"net/http"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api/columns"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/patch"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

var scaleKind = autoscalingv1.SchemeGroupVersion.WithKind("Scale")

// scale reads and writes the number of replicas, in the same terms for every kind that has one.
func (v *Verbs) scale(c *call.Call) error {
	switch c.Target.Verb {
	case "get":
		rev, err := v.cfg.Registry.Get(c.R.Context(), c.Target.Res, c.Target.Key())
		if err != nil {
			return err
		}
		revs, err := own(c, []*store.Revision{rev})
		if err != nil {
			return err
		}
		scale, err := registry.ScaleOf(c.Target.Res, revs[0].Object)
		if err != nil {
			return err
		}
		if call.MetaKind(c.Accept.As) == "Table" {
			return scaleTable(c, scale)
		}
		c.Document(http.StatusOK, scale, scaleKind)
		return nil
	case "update":
		return v.updateScale(c)
	}
	return v.patchScale(c)
}

// scaleTable answers with the columns that Kubernetes prints for a Scale.
func scaleTable(c *call.Call, scale *autoscalingv1.Scale) error {
	table, err := columns.Table(scale)
	if err != nil {
		return err
	}
	table.ResourceVersion = scale.ResourceVersion
	include := metav1.IncludeObjectPolicy(c.Query.Get("includeObject"))
	for i := range table.Rows {
		switch include {
		case metav1.IncludeNone:
			table.Rows[i].Object = runtime.RawExtension{}
		case metav1.IncludeObject:
			table.Rows[i].Object.Object = wire.Named(scale, scaleKind)
		default:
			table.Rows[i].Object.Object = call.Partial(scale, c.Accept.As.Version)
		}
	}
	c.Document(http.StatusOK, table, c.Accept.As)
	return nil
}

func (v *Verbs) updateScale(c *call.Call) error {
	opts := metav1.UpdateOptions{}
	if err := c.Parameters(&opts); err != nil {
		return err
	}
	if errs := metav1validation.ValidateUpdateOptions(&opts); len(errs) > 0 {
		return apierrors.NewInvalid(metaKind("UpdateOptions"), "", errs)
	}
	obj, err := c.Decode(scaleKind, &autoscalingv1.Scale{}, call.FieldValidation(opts.FieldValidation))
	if err != nil {
		return err
	}
	wanted := obj.(*autoscalingv1.Scale)
	if wanted.Name != c.Target.Name {
		return named(c, wanted)
	}
	return v.writeScale(c, opts, func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error) { return wanted, nil })
}

func (v *Verbs) patchScale(c *call.Call) error {
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
	if kind == types.ApplyYAMLPatchType || kind == types.ApplyCBORPatchType {
		// A Scale has three fields; applying one is the merge of what is given.
		applied, err := readConfiguration(kind, body)
		if err != nil {
			return err
		}
		if err := checkConfiguration(c, applied.Unstructured, scaleKind); err != nil {
			return err
		}
		if body, err = json.Marshal(applied.Object); err != nil {
			return err
		}
		kind = types.MergePatchType
	}
	update := metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager, FieldValidation: opts.FieldValidation}
	return v.writeScale(c, update, func(current *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		original, err := json.Marshal(wire.Named(current, scaleKind))
		if err != nil {
			return nil, err
		}
		patched, _, err := patch.Apply(kind, original, body, &autoscalingv1.Scale{})
		if err != nil {
			return nil, err
		}
		out, warnings, err := c.Decoder.Decode(patched, wire.JSON, scaleKind, &autoscalingv1.Scale{}, call.FieldValidation(opts.FieldValidation))
		if err != nil {
			return nil, patchedError(c, err)
		}
		c.Warn(warnings)
		return out.(*autoscalingv1.Scale), nil
	})
}

// writeScale sets the replicas that change asks for.
func (v *Verbs) writeScale(c *call.Call, opts metav1.UpdateOptions, change func(*autoscalingv1.Scale) (*autoscalingv1.Scale, error)) error {
	scale, err := v.cfg.Registry.UpdateScale(c.R.Context(), c.Target.Res, c.Target.Key(), change, opts)
	if err != nil {
		return err
	}
	c.Document(http.StatusOK, scale, scaleKind)
	return nil
}
