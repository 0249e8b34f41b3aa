package verbs

import (
	"context"
	"io"
	"net/http"

	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// selection is what the options of a list or watch choose.
func selection(c *call.Call, opts *metainternal.ListOptions) registry.Selection {
	sel := registry.Selection{Labels: opts.LabelSelector, Fields: opts.FieldSelector, Version: c.Target.GV()}
	if c.Target.Res.Namespaced {
		sel.Namespace = c.Target.Namespace
	}
	return sel
}

const (
	// largeList is from how many items on a list is made in turns with others.
	largeList = 100
	// madeAtOnce is how many items are made before another list has its turn, about a millisecond's work.
	madeAtOnce = 64
)

// list answers with a list made of the shared bytes of its items.
func (v *Verbs) list(c *call.Call) error {
	opts, err := listOptions(c)
	if err != nil {
		return err
	}
	result, err := v.cfg.Registry.List(c.R.Context(), c.Target.Res, registry.ListOptions{
		Selection: selection(c, opts), Limit: opts.Limit, Continue: opts.Continue,
		ResourceVersion: opts.ResourceVersion, ResourceVersionMatch: opts.ResourceVersionMatch,
	})
	if err != nil {
		return err
	}
	if len(result.Items) > largeList {
		defer c.InTurns(v.turns)()
	}
	items, err := own(c, result.Items)
	if err != nil {
		return err
	}
	if onlyReach(c, opts) {
		items = reachRevisions(items)
	}
	meta := metav1.ListMeta{ResourceVersion: store.FormatRevision(result.Revision), Continue: result.Continue, RemainingItemCount: result.Remaining}
	if c.Accept.As.Kind != "" {
		return sendTransformedList(c, items, meta)
	}
	return sendList(c, items, meta)
}

// sendList answers with a list in the form the client asked for.
func sendList(c *call.Call, revs []*store.Revision, meta metav1.ListMeta) error {
	switch f := c.Accept.Format; {
	case f == wire.Protobuf && (c.Target.Foreign() || c.Target.Res.Packing != nil):
		return messageList(c, c.Target.ListKind(), meta, len(revs), func(i int) (runtime.Object, error) {
			return shown(c, revs[i].Object)
		})
	case f == wire.YAML || f == wire.CBOR || f == wire.JSON && (c.Pretty() || c.Target.Foreign() || c.Target.Res.Packing != nil):
		return streamList(c, c.Target.ListKind(), meta, revs)
	}
	return fastList(c, revs, meta)
}

// fastList concatenates cached items under a hand-written envelope.
func fastList(c *call.Call, revs []*store.Revision, meta metav1.ListMeta) error {
	items := make([][]byte, len(revs))
	size := 0
	for i, rev := range revs {
		if err := c.R.Context().Err(); err != nil {
			return err // nobody waits for it
		}
		b, err := itemBytes(c, rev)
		if err != nil {
			return err
		}
		items[i] = b
		if size += len(b); i%madeAtOnce == madeAtOnce-1 {
			c.GiveWay()
		}
	}
	w, done := c.Begin(http.StatusOK, c.Accept.Format.MediaType(), size)
	if err := wire.WriteList(wanted{w, c.R.Context()}, c.Target.ListKind(), meta, items, c.Accept.Format); err != nil {
		return breakOff(c, err)
	}
	done()
	return nil
}

// wanted writes as long as somebody waits for it.
type wanted struct {
	io.Writer
	ctx context.Context
}

func (w wanted) Write(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.Writer.Write(b)
}

// streamList sends items one after the other, so that a large list in a form that is not kept does not pile up.
func streamList(c *call.Call, gvk schema.GroupVersionKind, meta metav1.ListMeta, revs []*store.Revision) error {
	w, err := newListWriter(c, gvk, "items", len(revs), wire.Field{Name: "metadata", Value: meta})
	if err != nil {
		return err
	}
	for _, rev := range revs {
		b, err := itemBytes(c, rev)
		if err != nil {
			return w.abort(err)
		}
		if err := w.item(b); err != nil {
			return w.abort(err)
		}
	}
	return w.end()
}

// messageList sends a list in protobuf item by item.
func messageList(c *call.Call, gvk schema.GroupVersionKind, meta metav1.ListMeta, n int, item func(i int) (runtime.Object, error)) error {
	list, err := wire.NewMessageList(gvk, meta, n, func(i int) (runtime.Object, error) {
		if err := c.R.Context().Err(); err != nil {
			return nil, err // nobody waits for the rest
		}
		if i%madeAtOnce == madeAtOnce-1 {
			c.GiveWay()
		}
		return item(i)
	})
	if err != nil {
		return err
	}
	w, done := c.Begin(http.StatusOK, c.Accept.Format.MediaType(), list.Size())
	if err := list.Write(w); err != nil {
		return breakOff(c, err)
	}
	done()
	return nil
}

// breakOff ends an answer that has begun, so that nobody takes what has been sent for the whole.
func breakOff(c *call.Call, err error) error {
	c.Log.Debug("a list ended early", "path", c.R.URL.Path, "err", err)
	panic(http.ErrAbortHandler)
}
