package crd

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structural "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/model"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/listtype"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/objectmeta"
	schemavalidation "k8s.io/apiextensions-apiserver/pkg/apiserver/validation"
	apimachineryvalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation/field"
	celconfig "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/common"
)

// validation checks objects of one version.
type validation struct {
	form       *form
	namespaced bool
	scale      *apiextensionsv1.CustomResourceSubresourceScale
}

// create checks a new object.
func (v *validation) create(u *unstructured.Unstructured) field.ErrorList {
	s, checks, errs := v.compiled()
	if errs != nil {
		return errs
	}
	errs = apimachineryvalidation.ValidateObjectMetaAccessor(u, v.namespaced, apimachineryvalidation.NameIsDNSSubdomain, field.NewPath("metadata"))
	errs = append(errs, schemavalidation.ValidateCustomResource(nil, u.Object, checks.object)...)
	errs = append(errs, v.scaleSpec(u.Object)...)
	errs = append(errs, v.scaleStatus(u.Object)...)
	errs = append(errs, objectmeta.Validate(context.Background(), nil, u.Object, s, false)...)
	errs = append(errs, listtype.ValidateListSetsAndMaps(nil, s, u.Object)...)
	return append(errs, v.byRules(errs, s, u.Object, nil)...)
}

// update checks a changed object. What was as wrong before is let through (ratcheting, KEP-4008).
func (v *validation) update(u, old *unstructured.Unstructured, sub string) field.ErrorList {
	s, checks, errs := v.compiled()
	if errs != nil {
		return errs
	}
	meta := field.NewPath("metadata")
	errs = apimachineryvalidation.ValidateObjectMetaAccessor(u, v.namespaced, apimachineryvalidation.NameIsDNSSubdomain, meta)
	errs = append(errs, apimachineryvalidation.ValidateObjectMetaAccessorUpdate(u, old, meta)...)
	same := common.NewCorrelatedObject(u.Object, old.Object, &model.Structural{Structural: s})
	if sub == "status" {
		if status, ok := u.Object["status"]; ok {
			var opts []schemavalidation.ValidationOption
			if s != nil {
				opts = append(opts, schemavalidation.WithRatcheting(same.Key("status")))
			}
			errs = append(errs, schemavalidation.ValidateCustomResourceUpdate(field.NewPath("status"), status, old.Object["status"], checks.status, opts...)...)
		}
	} else {
		errs = append(errs, schemavalidation.ValidateCustomResourceUpdate(nil, u.Object, old.Object, checks.object, schemavalidation.WithRatcheting(same))...)
		errs = append(errs, v.scaleSpec(u.Object)...)
		errs = append(errs, objectmeta.Validate(context.Background(), nil, u.Object, s, false)...)
	}
	errs = append(errs, v.scaleStatus(u.Object)...)
	if now := listtype.ValidateListSetsAndMaps(nil, s, u.Object); len(now) > 0 && len(listtype.ValidateListSetsAndMaps(nil, s, old.Object)) == 0 {
		errs = append(errs, now...)
	}
	return append(errs, v.byRules(errs, s, u.Object, old.Object, cel.WithRatcheting(same))...)
}

// compiled returns the schema and its validators, or the error that there are none.
func (v *validation) compiled() (*structural.Structural, validators, field.ErrorList) {
	s, err := v.form.compiled()
	if err != nil {
		return nil, validators{}, field.ErrorList{field.InternalError(nil, err)}
	}
	checks, err := v.form.checks()
	if err != nil {
		return nil, validators{}, field.ErrorList{field.InternalError(nil, err)}
	}
	return s, checks, nil
}

// byRules returns what the schema's CEL rules say of an object (KEP-2876), unless errs show that it has not the shape which they expect.
func (v *validation) byRules(errs field.ErrorList, s *structural.Structural, obj, old map[string]any, opts ...cel.Option) field.ErrorList {
	rules := v.form.rules()
	if rules == nil {
		return nil
	}
	shapeless := []field.ErrorType{field.ErrorTypeNotSupported, field.ErrorTypeRequired, field.ErrorTypeTooLong, field.ErrorTypeTooMany, field.ErrorTypeTypeInvalid}
	for _, err := range errs {
		if slices.Contains(shapeless, err.Type) {
			return field.ErrorList{field.Invalid(nil, nil, "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation")}
		}
	}
	var before any // a nil map is not nothing
	if old != nil {
		before = old
	}
	found, _ := rules.Validate(context.Background(), nil, s, obj, before, celconfig.RuntimeCELCostBudget, opts...)
	return found
}

// scaleSpec checks the replicas that the scale subresource writes.
func (v *validation) scaleSpec(obj map[string]any) field.ErrorList {
	if v.scale == nil {
		return nil
	}
	return replicasAt(obj, v.scale.SpecReplicasPath)
}

// scaleStatus checks what the scale subresource shows of the status.
func (v *validation) scaleStatus(obj map[string]any) field.ErrorList {
	if v.scale == nil {
		return nil
	}
	errs := replicasAt(obj, v.scale.StatusReplicasPath)
	if path := v.scale.LabelSelectorPath; path != nil {
		if selector, _, err := unstructured.NestedString(obj, steps(*path)...); err != nil {
			errs = append(errs, field.Invalid(field.NewPath(*path), selector, err.Error()))
		}
	}
	return errs
}

// replicasAt checks the number of replicas at a path such as .spec.replicas.
func replicasAt(obj map[string]any, path string) field.ErrorList {
	n, _, err := unstructured.NestedInt64(obj, steps(path)...)
	var fault string
	switch {
	case err != nil:
		fault = err.Error()
	case n < 0:
		fault = "should be a non-negative integer"
	case n > math.MaxInt32:
		fault = fmt.Sprintf("should be less than or equal to %v", math.MaxInt32)
	default:
		return nil
	}
	return field.ErrorList{field.Invalid(field.NewPath(path), n, fault)}
}

// steps takes a simple JSON path apart.
func steps(path string) []string { return strings.Split(strings.TrimPrefix(path, "."), ".") }
