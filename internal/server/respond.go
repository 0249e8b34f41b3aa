package server

import (
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// object answers with one object of the target's resource, in the form the client asked for. rev may be nil where obj has not
// been stored (dry run).
func (x *exchange) object(code int, obj api.Object, rev *store.Revision) error {
	if x.accept.As.Kind != "" {
		return x.transformed(code, obj)
	}
	gvk := x.t.kind()
	if rev != nil {
		item, err := x.item(rev)
		if err != nil {
			return err
		}
		b, err := wire.Document(item, gvk, x.accept.Format, x.pretty())
		if err != nil {
			return err
		}
		x.send(code, x.accept.Format.MediaType(), b)
		return nil
	}
	out, err := api.Convert(obj, x.t.gv())
	if err != nil {
		return err
	}
	x.document(code, out, gvk)
	return nil
}

// item returns the bytes of a stored revision in the client's format and version, shared with everyone who asks for the
// same.
func (x *exchange) item(rev *store.Revision) ([]byte, error) {
	gvk := x.t.kind()
	if x.t.foreign() {
		obj, err := api.Convert(rev.Object, gvk.GroupVersion())
		if err != nil {
			return nil, err
		}
		return wire.Item(obj, gvk, x.accept.Format)
	}
	switch x.accept.Format {
	case wire.JSON:
		return rev.Bytes(store.JSON, func(o store.Object) ([]byte, error) { return wire.Item(o, gvk, wire.JSON) })
	case wire.Protobuf:
		return rev.Bytes(store.Protobuf, func(o store.Object) ([]byte, error) { return wire.Item(o, gvk, wire.Protobuf) })
	}
	return wire.Item(rev.Object, gvk, x.accept.Format)
}
