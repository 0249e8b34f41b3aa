package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/api/validate"
	"k8s.io/apimachinery/pkg/api/validate/content"
	apimachineryvalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericfeatures "k8s.io/apiserver/pkg/features"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/component-base/featuregate"
	"k8s.io/kubernetes/pkg/capabilities"
)

// kind declares a resource in upstream's terms: V is the Go type of the stored version, I upstream's internal type, L
// the list of V. The functions work on the internal type, as upstream's rules do; declare wraps them for Resource. They
// may be nil where there is nothing to do. The internal objects share memory with the versioned ones they came from, so
// prepare functions may replace fields of obj and change what obj alone holds, and nothing may change old.
type kind[V, I, L any] struct {
	Resource

	prepareCreate  func(obj *I)
	prepareUpdate  func(obj, old *I, sub string)
	validate       func(obj *I) field.ErrorList
	validateUpdate func(obj, old *I, sub string) field.ErrorList
	warnings       func(obj, old *I) []string // old is nil on create
	statusWarnings func(obj, old *I) []string
	// defaults runs after the scheme's defaults.
	defaults func(obj *V)
	fields   func(obj *V) fields.Set
	grace    func(obj *V, requested *int64) int64
	// options are the named options that upstream's generated validation of this kind refers to.
	options map[string]bool
	// normalize maps field paths of hand-written errors to those of generated ones.
	normalize []field.NormalizationRule
}

// objectPtr is satisfied by *V where that is an Object.
type objectPtr[V any] interface {
	*V
	Object
}

// listPtr is satisfied by *L where that is a list.
type listPtr[L any] interface {
	*L
	runtime.Object
}

// declare turns a kind into the Resource that the rest of Knarr sees.
func declare[V, I, L any, PV objectPtr[V], PL listPtr[L]](k kind[V, I, L]) *Resource {
	r := k.Resource
	r.New = func() Object { return PV(new(V)) }
	r.NewList = func() runtime.Object { return PL(new(L)) }
	r.Encode = func(obj Object) ([]byte, error) { return encodeStorage(&r, obj) }
	r.Decode = func(data []byte) (Object, error) { return decodeStorage(&r, data) }
	r.Indexes = withOwners(r.Indexes)
	r.defaultResets()
	r.shallow = func(obj Object) Object {
		c := *obj.(PV)
		return PV(&c)
	}
	r.Default = func(obj Object) {
		Scheme.Default(obj)
		if k.defaults != nil {
			k.defaults(obj.(PV))
		}
	}
	r.PrepareForCreate = func(obj Object) {
		in := toInternal[I](obj)
		if k.prepareCreate != nil {
			k.prepareCreate(in)
		}
		fromInternal[V, I, PV](in, obj.(PV))
	}
	r.PrepareForUpdate = func(obj, old Object, sub string) {
		keepSystemMeta(obj, old)
		in := toInternal[I](obj)
		if k.prepareUpdate != nil {
			k.prepareUpdate(in, toInternal[I](old), sub)
		}
		fromInternal[V, I, PV](in, obj.(PV))
	}
	k.declareValidation(&r)
	if k.warnings != nil {
		r.Warnings = func(obj, old Object) []string {
			if old == nil {
				return k.warnings(toInternal[I](obj), nil)
			}
			return k.warnings(toInternal[I](obj), toInternal[I](old))
		}
	}
	if k.statusWarnings != nil {
		r.StatusWarnings = func(obj, old Object) []string { return k.statusWarnings(toInternal[I](obj), toInternal[I](old)) }
	}
	if k.fields != nil {
		r.Fields = func(obj Object) fields.Set { return k.fields(obj.(PV)) }
		r.SelectableFields = slices.Sorted(maps.Keys(k.fields(new(V))))
	}
	if k.grace != nil {
		r.GracePeriod = func(obj Object, requested *int64) int64 { return k.grace(obj.(PV), requested) }
	}
	return &r
}

// declareValidation sets the functions that validate, new objects and changed ones.
func (k *kind[V, I, L]) declareValidation(r *Resource) {
	r.Validate = func(obj Object) field.ErrorList {
		allowPrivileged()
		var errs field.ErrorList
		if k.validate != nil {
			errs = k.validate(toInternal[I](obj))
		}
		if len(errs) == 0 {
			errs = apimachineryvalidation.ValidateObjectMetaAccessor(obj, r.Namespaced, pathSegment, field.NewPath("metadata"))
		}
		return k.merge(errs, Scheme.Validate(context.Background(), k.options, obj))
	}
	r.ValidateUpdate = func(obj, old Object, sub string) field.ErrorList {
		allowPrivileged()
		meta := field.NewPath("metadata")
		errs := apimachineryvalidation.ValidateObjectMetaAccessor(obj, r.Namespaced, pathSegment, meta)
		errs = append(errs, apimachineryvalidation.ValidateObjectMetaAccessorUpdate(obj, old, meta)...)
		if k.validateUpdate != nil {
			errs = append(errs, k.validateUpdate(toInternal[I](obj), toInternal[I](old), sub)...)
		}
		var subs []string
		if sub != "" {
			subs = []string{sub}
		}
		return k.merge(errs, Scheme.ValidateUpdate(context.Background(), k.options, obj, old, subs...))
	}
}

// merge joins the errors of upstream's hand-written rules with those of its generated ones, which have begun to
// replace them (KEP-5073): enforced generated errors count, and hide the hand-written ones they cover.
func (k *kind[V, I, L]) merge(written, generated field.ErrorList) field.ErrorList {
	if len(generated) == 0 {
		return written
	}
	ctx := context.Background()
	beta := enabled(genericfeatures.DeclarativeValidationBeta)
	enforced := validate.FilterEnforcedDeclarativeErrors(ctx, generated, beta)
	written = validate.FilterCoveredHandwrittenErrors(ctx, written.MarkFromImperative(), enforced, beta, k.normalize...)
	return append(written, enforced...)
}

// toInternal returns obj as upstream's internal type, sharing memory with obj.
func toInternal[I any](obj runtime.Object) *I {
	in := new(I)
	if err := Scheme.Convert(obj, in, nil); err != nil {
		panic(fmt.Sprintf("api: %T does not convert to %T: %v", obj, in, err)) // a declaration names the wrong types
	}
	return in
}

// fromInternal writes in into obj in the stored version. As upstream's objects all take this detour, some twin fields
// are made to agree on it (a node's podCIDR and podCIDRs); others are by the defaults (podIP and podIPs).
func fromInternal[V, I any, PV objectPtr[V]](in *I, obj PV) {
	out := PV(new(V))
	if err := Scheme.Convert(in, out, nil); err != nil {
		panic(fmt.Sprintf("api: %T does not convert to %T: %v", in, out, err))
	}
	out.GetObjectKind().SetGroupVersionKind(obj.GetObjectKind().GroupVersionKind())
	*obj = *out
}

// keepSystemMeta carries over what an update cannot change but may leave out.
func keepSystemMeta(obj, old Object) {
	obj.SetGeneration(old.GetGeneration())
	if obj.GetUID() == "" {
		obj.SetUID(old.GetUID())
	}
	if t := old.GetCreationTimestamp(); !t.IsZero() {
		obj.SetCreationTimestamp(t)
	}
	if t := old.GetDeletionTimestamp(); !t.IsZero() {
		obj.SetDeletionTimestamp(t)
	}
	if s := old.GetDeletionGracePeriodSeconds(); s != nil && obj.GetDeletionGracePeriodSeconds() == nil {
		obj.SetDeletionGracePeriodSeconds(s)
	}
}

// pathSegment is the rule that every name must satisfy: it can stand in a URL's path.
func pathSegment(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

// allowPrivileged tells upstream's pod validation, which keeps this in a global of its own, that privileged containers
// may exist in this cluster; who may create them is for admission.
var allowPrivileged = sync.OnceFunc(func() { capabilities.Setup(true, 0) })

// enabled reports whether an upstream feature gate is on.
func enabled(f featuregate.Feature) bool { return utilfeature.DefaultFeatureGate.Enabled(f) }

// nameWarning is what upstream tells about names of workloads that are no DNS label; what says what they name.
func nameWarning(name, what string) []string {
	msgs := validation.IsDNS1123Label(name)
	if len(msgs) == 0 {
		return nil
	}
	return []string{fmt.Sprintf("metadata.name: this is used in %s, which can result in surprising behavior; a DNS label is recommended: %v", what, msgs)}
}
