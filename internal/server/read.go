package server

import (
	"net/http"

	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

// get answers with one object.
func (x *exchange) get() error {
	rev, err := x.s.cfg.Registry.Get(x.r.Context(), x.t.Res, x.t.key())
	if err != nil {
		return err
	}
	return x.object(http.StatusOK, rev.Object, rev)
}

// selection is what the options of a list or watch choose.
func (x *exchange) selection(opts *metainternal.ListOptions) registry.Selection {
	sel := registry.Selection{Labels: opts.LabelSelector, Fields: opts.FieldSelector, Version: x.t.gv()}
	if x.t.Res.Namespaced {
		sel.Namespace = x.t.Namespace
	}
	return sel
}

// list answers with a list made of the shared bytes of its items.
func (x *exchange) list() error {
	opts, err := x.listOptions()
	if err != nil {
		return err
	}
	result, err := x.s.cfg.Registry.List(x.r.Context(), x.t.Res, registry.ListOptions{
		Selection: x.selection(opts), Limit: opts.Limit, Continue: opts.Continue,
		ResourceVersion: opts.ResourceVersion, ResourceVersionMatch: opts.ResourceVersionMatch,
	})
	if err != nil {
		return err
	}
	meta := metav1.ListMeta{ResourceVersion: store.FormatRevision(result.Revision), Continue: result.Continue, RemainingItemCount: result.Remaining}
	if x.accept.As.Kind != "" {
		return x.transformedList(result.Items, meta)
	}
	f := x.accept.Format
	if f == wire.YAML || f == wire.CBOR || (f == wire.JSON && x.pretty()) {
		return x.plainList(result.Items, meta)
	}
	return x.fastList(result.Items, meta)
}

// fastList concatenates cached items under a hand-written envelope.
func (x *exchange) fastList(revs []*store.Revision, meta metav1.ListMeta) error {
	items := make([][]byte, len(revs))
	size := 0
	for i, rev := range revs {
		b, err := x.item(rev)
		if err != nil {
			return err
		}
		items[i] = b
		size += len(b)
	}
	w, done := x.call().Begin(http.StatusOK, x.accept.Format.MediaType(), size)
	defer done()
	if err := wire.WriteList(w, x.t.listKind(), meta, items, x.accept.Format); err != nil {
		x.s.log.Debug("a client went away during a list", "path", x.r.URL.Path, "err", err)
	}
	return nil
}

// plainList makes a list object, for the formats that cannot be put together from pieces.
func (x *exchange) plainList(revs []*store.Revision, meta metav1.ListMeta) error {
	list, err := x.listObject(revs, meta)
	if err != nil {
		return err
	}
	x.document(http.StatusOK, list, x.t.listKind())
	return nil
}
