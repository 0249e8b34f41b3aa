package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"

	apimachineryvalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	kjson "sigs.k8s.io/json"
)

// Custom returns the Resource of unstructured objects that r declares, with what such resources have alike where r leaves it out: objects are
// stored as JSON, have metadata as all objects do and no defaults; the status subresource, if there is one, writes the status alone.
func Custom(r Resource) *Resource {
	r.Unstructured = true
	r.New = func() Object {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(r.GroupVersionKind)
		return u
	}
	r.NewList = func() runtime.Object {
		u := &unstructured.UnstructuredList{}
		u.SetGroupVersionKind(r.ListGroupVersionKind(r.GroupVersion()))
		return u
	}
	r.shallow = shallowUnstructured
	r.Indexes = withOwners(r.Indexes)
	r.defaultResets()
	if r.Encode == nil {
		r.Encode = encodeJSON
	}
	if r.Decode == nil {
		r.Decode = func(data []byte) (Object, error) { return decodeJSON(&r, data) }
	}
	if r.Default == nil {
		r.Default = func(Object) {}
	}
	r.declareCustomWrites()
	return &r
}

// declareCustomWrites sets the functions that prepare and validate what is written, where they are not declared.
func (r *Resource) declareCustomWrites() {
	if r.PrepareForCreate == nil {
		r.PrepareForCreate = func(obj Object) {
			if r.Status {
				delete(obj.(*unstructured.Unstructured).Object, "status")
			}
			obj.SetGeneration(1)
		}
	}
	if r.PrepareForUpdate == nil {
		r.PrepareForUpdate = func(obj, old Object, sub string) {
			prepareCustomUpdate(r, obj.(*unstructured.Unstructured), old.(*unstructured.Unstructured), sub)
		}
	}
	meta := field.NewPath("metadata")
	if r.Validate == nil {
		r.Validate = func(obj Object) field.ErrorList {
			return apimachineryvalidation.ValidateObjectMetaAccessor(obj, r.Namespaced, apimachineryvalidation.NameIsDNSSubdomain, meta)
		}
	}
	if r.ValidateUpdate == nil {
		r.ValidateUpdate = func(obj, old Object, _ string) field.ErrorList {
			errs := apimachineryvalidation.ValidateObjectMetaAccessor(obj, r.Namespaced, apimachineryvalidation.NameIsDNSSubdomain, meta)
			return append(errs, apimachineryvalidation.ValidateObjectMetaAccessorUpdate(obj, old, meta)...)
		}
	}
}

// prepareCustomUpdate keeps what the written subresource does not write, and counts the generation: of everything but metadata and, where there
// is a status subresource, status.
func prepareCustomUpdate(r *Resource, obj, old *unstructured.Unstructured, sub string) {
	keepSystemMeta(obj, old)
	switch {
	case r.Status && sub == "status":
		status, has := obj.Object["status"]
		meta := obj.Object["metadata"]
		obj.Object = maps.Clone(old.Object)
		obj.Object["metadata"] = meta
		delete(obj.Object, "status")
		if has {
			obj.Object["status"] = status
		}
		obj.SetLabels(old.GetLabels())
		obj.SetAnnotations(old.GetAnnotations())
		obj.SetFinalizers(old.GetFinalizers())
		obj.SetOwnerReferences(old.GetOwnerReferences())
		return
	case r.Status:
		delete(obj.Object, "status")
		if status, has := old.Object["status"]; has {
			obj.Object["status"] = status
		}
	}
	if !sameContent(obj.Object, old.Object, "metadata", "apiVersion", "kind") {
		obj.SetGeneration(old.GetGeneration() + 1)
	}
}

// sameContent reports whether a and b have the same fields, leaving some aside.
func sameContent(a, b map[string]any, but ...string) bool {
	a, b = maps.Clone(a), maps.Clone(b)
	for _, name := range but {
		delete(a, name)
		delete(b, name)
	}
	return reflect.DeepEqual(a, b)
}

// encodeJSON returns obj, an unstructured object, as Kubernetes writes custom resources to etcd. obj is not changed.
func encodeJSON(obj Object) ([]byte, error) {
	if obj.GetResourceVersion() != "" || obj.GetSelfLink() != "" {
		obj = shallowUnstructured(obj)
		obj.SetResourceVersion("")
		obj.SetSelfLink("")
	}
	b, err := json.Marshal(obj.(*unstructured.Unstructured).Object)
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", obj.GetObjectKind().GroupVersionKind().Kind, KeyOf(obj), err)
	}
	return b, nil
}

// decodeJSON reads what encodeJSON, or Kubernetes itself, wrote for resource res. The object keeps the version in which it was written.
func decodeJSON(res *Resource, data []byte) (Object, error) {
	var content map[string]any
	if err := kjson.UnmarshalCaseSensitivePreserveInts(bytes.TrimSpace(data), &content); err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", res.Kind, err)
	}
	u := &unstructured.Unstructured{Object: content}
	if have := u.GroupVersionKind(); have.GroupKind() != res.GroupKind() {
		return nil, fmt.Errorf("decode stored %s: found a %s", res.Kind, have)
	}
	return u, nil
}

// shallowUnstructured returns a copy of obj whose metadata can be set without touching obj.
func shallowUnstructured(obj Object) Object {
	content := maps.Clone(obj.(*unstructured.Unstructured).Object)
	if meta, ok := content["metadata"].(map[string]any); ok {
		content["metadata"] = maps.Clone(meta)
	}
	return &unstructured.Unstructured{Object: content}
}
