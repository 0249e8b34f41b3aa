package server

import (
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// offers reports which transformations the target has: a table or only metadata, of an object or of a list.
func (x *exchange) offers(a wire.Accepted) bool {
	switch a.As {
	case tableKind:
		return a.Format != wire.Protobuf && (x.t.Verb == "get" || x.t.Verb == "list" || x.t.Verb == "watch") && (plain(x.t.Subresource) || x.t.Subresource == "scale")
	case partialKind:
		return x.t.Verb != "list" && x.t.Verb != "deletecollection" && plain(x.t.Subresource)
	case partialListKind:
		return x.t.Verb == "list"
	}
	return false
}

// plain reports whether a subresource answers with the object itself.
func plain(sub string) bool { return subresources[sub] == nil }

// transformed answers with one object as a table or as its metadata.
func (x *exchange) transformed(code int, obj api.Object) error {
	out, err := x.transform(obj, true)
	if err != nil {
		return err
	}
	x.document(code, out, x.accept.As)
	return nil
}

// transform turns obj, of the stored version, into what the client asked for. Column definitions are sent once a stream.
func (x *exchange) transform(obj api.Object, columns bool) (runtime.Object, error) {
	if x.accept.As == partialKind {
		return partial(obj), nil
	}
	versioned, err := api.Convert(obj, x.t.gv())
	if err != nil {
		return nil, err
	}
	table, err := api.Table(versioned)
	if err != nil {
		return nil, err
	}
	if table.ResourceVersion == "" {
		table.ResourceVersion = obj.GetResourceVersion()
	}
	if !columns {
		table.ColumnDefinitions = nil
	}
	return table, x.includeObjects(table)
}

// transformedList answers with a list as a table or as metadata.
func (x *exchange) transformedList(revs []*store.Revision, listMeta metav1.ListMeta) error {
	if x.accept.As == partialListKind {
		list := &metav1.PartialObjectMetadataList{ListMeta: listMeta, Items: make([]metav1.PartialObjectMetadata, len(revs))}
		for i, rev := range revs {
			list.Items[i] = *partial(rev.Object)
		}
		x.document(http.StatusOK, list, partialListKind)
		return nil
	}
	list, err := x.listObject(revs, listMeta)
	if err != nil {
		return err
	}
	table, err := api.Table(list)
	if err != nil {
		return err
	}
	table.ListMeta = listMeta
	if err := x.includeObjects(table); err != nil {
		return err
	}
	x.document(http.StatusOK, table, tableKind)
	return nil
}

// listObject makes a list of the client's version that shares its items with the store.
func (x *exchange) listObject(revs []*store.Revision, listMeta metav1.ListMeta) (runtime.Object, error) {
	list, err := api.Scheme.New(x.t.listKind())
	if err != nil {
		return nil, err
	}
	items := make([]runtime.Object, len(revs))
	for i, rev := range revs {
		if items[i], err = api.Convert(rev.Object, x.t.gv()); err != nil {
			return nil, err
		}
	}
	if err := meta.SetList(list, items); err != nil {
		return nil, err
	}
	m, err := meta.ListAccessor(list)
	if err != nil {
		return nil, err
	}
	m.SetResourceVersion(listMeta.ResourceVersion)
	m.SetContinue(listMeta.Continue)
	m.SetRemainingItemCount(listMeta.RemainingItemCount)
	return list, nil
}

// includeObjects makes the objects in a table's rows what the client wants of them: nothing, metadata (the default), or all.
func (x *exchange) includeObjects(table *metav1.Table) error {
	include := metav1.IncludeObjectPolicy(x.q.Get("includeObject"))
	switch include {
	case "", metav1.IncludeNone, metav1.IncludeMetadata, metav1.IncludeObject:
	default:
		return apierrors.NewBadRequest("includeObject must be None, Metadata or Object, not " + string(include))
	}
	for i := range table.Rows {
		row := &table.Rows[i]
		switch include {
		case metav1.IncludeNone:
			row.Object = runtime.RawExtension{}
		case metav1.IncludeObject:
			row.Object.Object = wire.Named(row.Object.Object, x.t.kind())
		default:
			m, err := meta.Accessor(row.Object.Object)
			if err != nil {
				return err
			}
			row.Object.Object = partial(m)
		}
	}
	return nil
}
