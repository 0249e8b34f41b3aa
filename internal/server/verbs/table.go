package verbs

import (
	"encoding/json"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/columns"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// offers returns which transformations a target has: a table or only metadata, of an object or of a list.
func offers(t *call.Target) func(wire.Accepted) bool {
	// Some subresources do not answer with the object itself.
	plain := t.Subresource != "scale" && t.Subresource != "binding" && t.Subresource != "eviction" && t.Subresource != "token"
	return func(a wire.Accepted) bool {
		switch call.MetaKind(a.As) {
		case "Table":
			return a.Format != wire.Protobuf && (t.Verb == "get" || t.Verb == "list" || t.Verb == "watch") && (plain || t.Subresource == "scale")
		case "PartialObjectMetadata":
			return t.Verb != "list" && t.Verb != "deletecollection" && plain
		case "PartialObjectMetadataList":
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
func transform(c *call.Call, obj api.Object, first bool) (runtime.Object, error) {
	if call.MetaKind(c.Accept.As) == "PartialObjectMetadata" {
		return call.Partial(obj, c.Accept.As.Version), nil
	}
	res, gv := c.Target.Res, c.Target.GV()
	versioned, err := res.Versioned(obj, gv)
	if err != nil {
		return nil, err
	}
	table, err := columns.Of(res, gv, []api.Object{versioned})
	if err != nil {
		return nil, err
	}
	if table.ResourceVersion == "" {
		table.ResourceVersion = obj.GetResourceVersion()
	}
	if !first {
		table.ColumnDefinitions = nil
	}
	return table, includeObjects(c, table)
}

// sendTransformedList answers with a list as a table or as metadata.
func sendTransformedList(c *call.Call, revs []*store.Revision, listMeta metav1.ListMeta) error {
	if call.MetaKind(c.Accept.As) == "Table" {
		return streamTable(c, revs, listMeta)
	}
	if c.Accept.Format == wire.Protobuf {
		return messageList(c, c.Accept.As, listMeta, len(revs), func(i int) (runtime.Object, error) {
			return call.Partial(revs[i].Object, c.Accept.As.Version), nil
		})
	}
	w, err := newListWriter(c, c.Accept.As, "items", len(revs), wire.Field{Name: "metadata", Value: listMeta})
	if err != nil {
		return err
	}
	for _, rev := range revs {
		p := call.Partial(rev.Object, c.Accept.As.Version)
		b, err := wire.Item(p, p.GroupVersionKind(), c.Accept.Format)
		if err != nil {
			return w.abort(err)
		}
		if err := w.item(b); err != nil {
			return w.abort(err)
		}
	}
	return w.end()
}

// rowsAtOnce is how many objects are turned into rows at a time.
const rowsAtOnce = 250

// streamTable answers with a table, made and sent a part at a time.
func streamTable(c *call.Call, revs []*store.Revision, listMeta metav1.ListMeta) error {
	first, err := tableOf(c, revs[:min(len(revs), rowsAtOnce)])
	if err != nil {
		return err
	}
	w, err := newListWriter(c, c.Accept.As, "rows", len(revs), wire.Field{Name: "metadata", Value: listMeta}, wire.Field{Name: "columnDefinitions", Value: first.ColumnDefinitions})
	if err != nil {
		return err
	}
	for at, table := 0, first; ; {
		for i := range table.Rows {
			if err := row(w, &table.Rows[i]); err != nil {
				return w.abort(err)
			}
		}
		if at += rowsAtOnce; at >= len(revs) {
			return w.end()
		}
		if table, err = tableOf(c, revs[at:min(len(revs), at+rowsAtOnce)]); err != nil {
			return w.abort(err)
		}
	}
}

// row sends one row.
func row(w *listWriter, r *metav1.TableRow) error {
	marshal := json.Marshal
	switch w.format {
	case wire.CBOR:
		marshal = direct.Marshal
	case wire.YAML:
		marshal = yaml.Marshal
	}
	b, err := marshal(r)
	if err != nil {
		return err
	}
	return w.item(b)
}

// tableOf makes rows of objects.
func tableOf(c *call.Call, revs []*store.Revision) (*metav1.Table, error) {
	objs, err := versioned(c, revs)
	if err != nil {
		return nil, err
	}
	table, err := columns.Of(c.Target.Res, c.Target.GV(), objs)
	if err != nil {
		return nil, err
	}
	return table, includeObjects(c, table)
}

// versioned returns the objects of revisions in the client's version.
func versioned(c *call.Call, revs []*store.Revision) (_ []api.Object, err error) {
	objs := make([]api.Object, len(revs))
	for i, rev := range revs {
		if objs[i], err = c.Target.Res.Versioned(rev.Object, c.Target.GV()); err != nil {
			return nil, err
		}
	}
	return objs, nil
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
		m, err := meta.Accessor(row.Object.Object)
		if err != nil {
			return err
		}
		_, initial := m.GetAnnotations()[metav1.InitialEventsAnnotationKey] // is for everyone who watches
		switch {
		case include == metav1.IncludeNone && !initial:
			row.Object = runtime.RawExtension{}
		case include == metav1.IncludeObject:
			whole, err := c.Target.Res.Whole(row.Object.Object.(api.Object))
			if err != nil {
				return err
			}
			row.Object.Object = wire.Named(whole, c.Target.Kind())
		default:
			row.Object.Object = call.Partial(m, c.Accept.As.Version)
		}
	}
	return nil
}
