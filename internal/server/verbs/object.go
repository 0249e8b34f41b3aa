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
	out, err := api.Convert(obj, c.Target.GV())
	if err != nil {
		return err
	}
	c.Document(code, out, gvk)
	return nil
}

// itemBytes returns the bytes of a stored revision in the client's format and version, shared with everyone who asks for the
// same.
func itemBytes(c *call.Call, rev *store.Revision) ([]byte, error) {
	gvk := c.Target.Kind()
	if c.Target.Foreign() {
		obj, err := api.Convert(rev.Object, gvk.GroupVersion())
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
