package verbs

import (
	"net/http"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// offers returns which transformations a target has: a table or only metadata, of an object or of a list.
func offers(t *call.Target) func(wire.Accepted) bool {
	// Some subresources do not answer with the object itself.
	plain := t.Subresource != "scale" && t.Subresource != "binding" && t.Subresource != "eviction" && t.Subresource != "token"
	return func(a wire.Accepted) bool {
		switch a.As {
		case call.TableKind:
			return a.Format != wire.Protobuf && (t.Verb == "get" || t.Verb == "list" || t.Verb == "watch") && (plain || t.Subresource == "scale")
		case call.PartialKind:
			return t.Verb != "list" && t.Verb != "deletecollection" && plain
		case call.PartialListKind:
			return t.Verb == "list"
		}
		return false
	}
}

// sendTransformed answers with one object as a table or as its metadata.
func sendTransformed(c *call.Call, code int, obj api.Object) error {
	out, err := transform(c, obj, true)
	if err != nil {
		return err
	}
	c.Document(code, out, c.Accept.As)
	return nil
}

// transform turns obj, of the stored version, into what the client asked for. Column definitions are sent once a stream.
func transform(c *call.Call, obj api.Object, columns bool) (runtime.Object, error) {
	if c.Accept.As == call.PartialKind {
		return call.Partial(obj), nil
	}
	versioned, err := api.Convert(obj, c.Target.GV())
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
	return table, includeObjects(c, table)
}

// sendTransformedList answers with a list as a table or as metadata.
func sendTransformedList(c *call.Call, revs []*store.Revision, listMeta metav1.ListMeta) error {
	if c.Accept.As == call.PartialListKind {
		list := &metav1.PartialObjectMetadataList{ListMeta: listMeta, Items: make([]metav1.PartialObjectMetadata, len(revs))}
		for i, rev := range revs {
			list.Items[i] = *call.Partial(rev.Object)
		}
		c.Document(http.StatusOK, list, call.PartialListKind)
		return nil
	}
	list, err := listObject(c, revs, listMeta)
	if err != nil {
		return err
	}
	table, err := api.Table(list)
	if err != nil {
		return err
	}
	table.ListMeta = listMeta
	if err := includeObjects(c, table); err != nil {
		return err
	}
	c.Document(http.StatusOK, table, call.TableKind)
	return nil
}

// listObject makes a list of the client's version that shares its items with the store.
func listObject(c *call.Call, revs []*store.Revision, listMeta metav1.ListMeta) (runtime.Object, error) {
	list, err := api.Scheme.New(c.Target.ListKind())
	if err != nil {
		return nil, err
	}
	items := make([]runtime.Object, len(revs))
	for i, rev := range revs {
		if items[i], err = api.Convert(rev.Object, c.Target.GV()); err != nil {
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
func includeObjects(c *call.Call, table *metav1.Table) error {
	include := metav1.IncludeObjectPolicy(c.Query.Get("includeObject"))
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
			row.Object.Object = wire.Named(row.Object.Object, c.Target.Kind())
		default:
			m, err := meta.Accessor(row.Object.Object)
			if err != nil {
				return err
			}
			row.Object.Object = call.Partial(m)
		}
	}
	return nil
}
