package api

import (
	"context"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
)

// Dynamic is what resources of unstructured objects have, which are declared while the server runs: custom resources. Built-in resources get the
// same from their Go types and from Scheme.
//
// Each version in which such a resource is served is a Resource of its own, for kinds may have another schema, other columns, subresources
// and selectable fields in each. They share one table, that of the version in which objects are stored. A table's objects are as they were
// written: in that version, or in one that was the stored one before. Whoever reads for a client converts them to the version that the client
// asked for; a write is defaulted, admitted and validated in that version, and then converted to the stored one, as in Kubernetes
// (https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definition-versioning/).
type Dynamic struct {
	// Unstructured says that objects are *unstructured.Unstructured: stored as JSON, without a protobuf form and merge keys.
	Unstructured bool
	// Stored is the resource in whose version objects are written to the store; nil: this one. Both have the same Prefix.
	Stored *Resource
	// Hidden says that objects are stored in this version, but no path leads to it.
	Hidden bool
	// ListKind is the kind of lists; empty means the kind followed by "List".
	ListKind string
	// Edition names the declaration: it is another one whenever a client could see a difference. What is made from declarations
	// (OpenAPI documents) is made anew when it changes.
	Edition string
	// Reading names how bytes of the store become objects of the table. Where one resource takes the place of another with the same
	// Reading, the table stays and its watches go on.
	Reading string
	// Deprecation is a warning that goes with every answer, or empty.
	Deprecation string

	// Receive makes an object of this version out of what a client sent, in place: it drops fields that the schema does not have and checks the
	// metadata of embedded objects. unknown tells what it dropped, as warnings. Default goes afterwards.
	Receive func(obj Object) (unknown []string, err error)
	// Convert returns objects in this version, with this version's defaults. The objects given are of any version that the store may
	// hold; they are shared, and results may share memory with them. It is called once for a list, and only where an object is of another
	// version. nil: there is only one version.
	Convert func(ctx context.Context, objs []Object) ([]Object, error)
	// Managed makes the typed values of server-side apply, at the first apply. They must cover all versions that managedFields may name.
	// nil: lists are atomic, as where nothing is known of the schema.
	Managed func() (managedfields.TypeConverter, error)
	// Columns and Cells are what kubectl get shows: the columns, and an object's cells in their order. nil: name and creation time.
	Columns []metav1.TableColumnDefinition
	Cells   func(obj Object) []any
	// Schema returns the OpenAPI schema of the kind as a JSON object, without apiVersion, kind and metadata, for OpenAPI v3 or reduced to what v2 can
	// say. It is called when a document is made. nil: objects may have any fields.
	Schema func(v3 bool) (map[string]any, error)
	// Refusal returns why a request is refused although paths lead to the resource: its definition is being deleted. nil: none is.
	Refusal func(verb string) error
}

// StoredAs returns the resource whose table holds r's objects: r itself but for further versions of custom resources.
func (r *Resource) StoredAs() *Resource {
	if r.Stored != nil {
		return r.Stored
	}
	return r
}

// GroupVersions returns the group-versions in which this Resource serves objects, the stored one first.
func (r *Resource) GroupVersions() []schema.GroupVersion {
	return append([]schema.GroupVersion{r.GroupVersion()}, r.Versions...)
}

// ListGroupVersionKind returns the kind of lists in a group-version.
func (r *Resource) ListGroupVersionKind(gv schema.GroupVersion) schema.GroupVersionKind {
	if r.ListKind != "" {
		return gv.WithKind(r.ListKind)
	}
	return gv.WithKind(r.Kind + "List")
}

// NewIn returns an empty object of a group-version that r serves.
func (r *Resource) NewIn(gv schema.GroupVersion) (runtime.Object, error) {
	if r.Unstructured {
		return r.New(), nil
	}
	return Scheme.New(gv.WithKind(r.Kind))
}

// ListOf returns a list of objects of a group-version that r serves. It shares them.
func (r *Resource) ListOf(gv schema.GroupVersion, objs []Object) (runtime.Object, error) {
	if r.Unstructured {
		list := r.NewList().(*unstructured.UnstructuredList)
		list.Items = make([]unstructured.Unstructured, len(objs))
		for i, o := range objs {
			list.Items[i] = *o.(*unstructured.Unstructured)
		}
		return list, nil
	}
	list, err := Scheme.New(r.ListGroupVersionKind(gv))
	if err != nil {
		return nil, err
	}
	items := make([]runtime.Object, len(objs))
	for i, o := range objs {
		items[i] = o
	}
	return list, meta.SetList(list, items)
}

// Own returns objects of r's table in r's version: objs itself where they are, as those of built-in resources always are.
func (r *Resource) Own(ctx context.Context, objs ...Object) ([]Object, error) {
	if r.Convert == nil {
		return objs, nil
	}
	for _, o := range objs {
		if o.GetObjectKind().GroupVersionKind() != r.GroupVersionKind {
			return r.Convert(ctx, objs)
		}
	}
	return objs, nil
}

// Versioned returns an object of r's version in a group-version that r serves. Only built-in resources have several.
func (r *Resource) Versioned(obj Object, gv schema.GroupVersion) (Object, error) {
	if gv == r.GroupVersion() {
		return obj, nil
	}
	out, err := Convert(obj, gv)
	if err != nil {
		return nil, err
	}
	return out.(Object), nil
}
