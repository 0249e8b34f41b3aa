package verbs

import (
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// sendObject answers with one object of the target's resource, in the form the client asked for. rev may be nil where obj has not
// been stored (dry run).
func sendObject(c *call.Call, code int, obj api.Object, rev *store.Revision) error {
	if c.Accept.As.Kind != "" {
		return sendTransformed(c, code, obj)
	}
	gvk := c.Target.Kind()
	if rev != nil {
		item, err := itemBytes(c, rev)
		if err != nil {
			return err
		}
		b, err := wire.Document(item, gvk, c.Accept.Format, c.Pretty())
		if err != nil {
			return err
		}
		c.Send(code, c.Accept.Format.MediaType(), b)
		return nil
	}
	out, err := shown(c, obj)
	if err != nil {
		return err
	}
	c.Document(code, out, gvk)
	return nil
}

// shown returns an object as clients see it, in the target's version.
func shown(c *call.Call, obj api.Object) (api.Object, error) {
	out, err := c.Target.Res.Versioned(obj, c.Target.GV())
	if err != nil {
		return nil, err
	}
	return c.Target.Res.Whole(out)
}

// own returns revisions of the target's table as they are in the version of its resource: those given but for custom resources that have
// several versions.
func own(c *call.Call, revs []*store.Revision) ([]*store.Revision, error) {
	res := c.Target.Res
	if res.Convert == nil {
		return revs, nil
	}
	objs := make([]api.Object, len(revs))
	for i, rev := range revs {
		objs[i] = rev.Object
	}
	objs, err := res.Own(c.R.Context(), objs...)
	if err != nil {
		return nil, err
	}
	out := make([]*store.Revision, len(revs))
	for i, rev := range revs {
		if out[i] = rev; rev.Object != store.Object(objs[i]) {
			out[i] = &store.Revision{Key: rev.Key, Rev: rev.Rev, Object: objs[i]}
		}
	}
	return out, nil
}

// itemBytes returns the bytes of a stored revision in the client's format and version, shared with everyone who asks for the
// same.
func itemBytes(c *call.Call, rev *store.Revision) ([]byte, error) {
	gvk := c.Target.Kind()
	if p := c.Target.Res.Packing; p != nil && c.Accept.Format == wire.JSON {
		return p.JSON(wire.Named(rev.Object, gvk).(api.Object)) // is not kept: it would be as large as what is packed
	}
	if c.Target.Foreign() || c.Target.Res.Packing != nil {
		obj, err := shown(c, rev.Object)
		if err != nil {
			return nil, err
		}
		return wire.Item(obj, gvk, c.Accept.Format)
	}
	switch c.Accept.Format {
	case wire.JSON:
		return rev.Bytes(store.JSON, func(o store.Object) ([]byte, error) { return wire.Item(o, gvk, wire.JSON) })
	case wire.Protobuf:
		return rev.Bytes(store.Protobuf, func(o store.Object) ([]byte, error) { return wire.Item(o, gvk, wire.Protobuf) })
	}
	return wire.Item(rev.Object, gvk, c.Accept.Format)
}
