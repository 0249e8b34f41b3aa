package verbs

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/wire"
	"github.com/knarr-io/knarr/internal/store"
)

const (
	// bookmarkEvery is how long a quiet watch waits to send the revision that it has reached (KEP-956).
	bookmarkEvery = time.Minute
	// watchAtLeast is the shortest life of a watch whose client names none; the longest is twice that.
	watchAtLeast = 30 * time.Minute
	// flushAt is how many bytes of events are gathered before they are sent on while more are at hand.
	flushAt = 64 << 10
	// stuckAfter is how long a client may leave its events unread before it is taken for gone.
	stuckAfter = time.Minute
)

// watch streams events until the client, its timeout or the registry ends it. It runs on the request's goroutine alone.
func (v *Verbs) watch(c *call.Call) error {
	opts, err := listOptions(c)
	if err != nil {
		return err
	}
	contentType, ok := wire.StreamType(c.Accept.Format)
	if !ok {
		return call.ErrNotAcceptable()
	}
	ctx, cancel := context.WithTimeout(c.R.Context(), life(opts))
	defer cancel()
	initial := opts.SendInitialEvents != nil && *opts.SendInitialEvents
	w, err := v.cfg.Registry.Watch(c.R.Context(), c.Target.Res, registry.WatchOptions{
		Selection: selection(c, opts), ResourceVersion: opts.ResourceVersion,
		Initial: initial, None: opts.SendInitialEvents != nil && !*opts.SendInitialEvents,
	})
	if err != nil && !apierrors.IsResourceExpired(err) && !apierrors.IsGone(err) {
		return err
	}
	out := begin(c, contentType)
	out.onlyReach = onlyReach(c, opts)
	if err != nil {
		return out.end(err)
	}
	defer w.Stop()
	defer func() { _ = out.control.SetWriteDeadline(time.Time{}) }() // the connection may serve other requests
	return out.run(ctx, w, opts, initial)
}

// life is how long a watch lasts at most.
func life(opts *metainternal.ListOptions) time.Duration {
	if opts.TimeoutSeconds != nil && *opts.TimeoutSeconds != 0 { // below 0 it has passed already
		return amount.Seconds(*opts.TimeoutSeconds)
	}
	return watchAtLeast + rand.N(watchAtLeast)
}

// begin begins a watch's answer.
func begin(c *call.Call, contentType string) *feed {
	c.W.Header().Set("Content-Type", contentType)
	c.W.Header().Set("Cache-Control", "no-cache, private")
	c.W.WriteHeader(http.StatusOK)
	return &feed{c: c, control: http.NewResponseController(c.W), columns: true}
}

// feed is one watch's answer under way.
type feed struct {
	c       *call.Call
	control *http.ResponseController
	buf     []byte
	columns bool // column definitions are still to be sent
	// onlyReach reports whether the client sees of pods what reachOf leaves.
	onlyReach bool
	reached   int64 // the revision that the client knows to have reached
}

func (o *feed) run(ctx context.Context, w *registry.Watch, opts *metainternal.ListOptions, initial bool) error {
	present, err := own(o.c, w.Initial)
	if err != nil {
		return o.end(err)
	}
	if o.onlyReach {
		present = reachRevisions(present)
	}
	for _, rev := range present {
		if err := o.event("ADDED", rev); err != nil {
			return o.end(err)
		}
	}
	w.Initial = nil
	if initial && opts.AllowWatchBookmarks {
		if err := o.bookmark(w.InitialRevision, map[string]string{metav1.InitialEventsAnnotationKey: "true"}); err != nil {
			return o.end(err)
		}
	}
	if err := o.flush(); err != nil {
		return nil
	}
	o.c.HasBegun()
	for {
		events, err := o.next(ctx, w, opts.AllowWatchBookmarks)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, context.DeadlineExceeded): // time for a bookmark
			if rev, ok := w.Progress(); ok && rev > o.reached {
				err = o.bookmark(rev, nil)
			} else {
				err = nil
			}
			if err != nil {
				return o.end(err)
			}
		case errors.Is(err, store.ErrDropped): // who watches asks again, and finds the resource as it is now or no longer
			return nil
		case err != nil:
			return o.end(err)
		}
		if err := o.events(events); err != nil {
			return o.end(err)
		}
		if err := o.flush(); err != nil {
			return nil
		}
	}
}

var eventNames = map[store.EventType]string{store.Added: "ADDED", store.Modified: "MODIFIED", store.Deleted: "DELETED"}

// next waits for events, and where bookmarks are wanted no longer than until the next is due.
func (o *feed) next(ctx context.Context, w *registry.Watch, bookmarks bool) ([]store.Event, error) {
	if !bookmarks {
		return w.Next(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, bookmarkEvery)
	defer cancel()
	return w.Next(ctx)
}

// errReloaded ends a watch whose changes are no longer all known.
func errReloaded() error {
	return apierrors.NewResourceExpired("too old resource version: the store's history has been compacted before it was read; list anew")
}

// events appends events to the buffer, converted together where they have to be.
func (o *feed) events(events []store.Event) error {
	if slices.ContainsFunc(events, func(e store.Event) bool { return e.Reloaded }) {
		return errReloaded() // clients are told each change, or to begin anew
	}
	if o.onlyReach {
		events = reachEvents(events)
	}
	var converted []*store.Revision
	if o.c.Target.Res.Convert != nil {
		revs := make([]*store.Revision, len(events))
		for i := range events {
			revs[i] = events[i].Revision
		}
		var err error
		if converted, err = own(o.c, revs); err != nil {
			return err
		}
	}
	for i, e := range events {
		rev := e.Revision
		if converted != nil {
			rev = converted[i]
		}
		if err := o.event(eventNames[e.Type], rev); err != nil {
			return err
		}
	}
	return nil
}

// event appends one event to the buffer, from the shared bytes of its revision unless a transformation is asked for.
func (o *feed) event(kind string, rev *store.Revision) (err error) {
	o.reached = rev.Rev
	gvk, item := o.c.Target.Kind(), []byte(nil)
	if as := o.c.Accept.As; as.Kind != "" {
		obj, err := transform(o.c, rev.Object, o.columns)
		if err != nil {
			return err
		}
		o.columns = false
		gvk = as
		item, err = wire.Item(obj, gvk, o.c.Accept.Format)
		if err != nil {
			return err
		}
	} else if item, err = itemBytes(o.c, rev); err != nil {
		return err
	}
	return o.append(kind, gvk, item)
}

func (o *feed) append(kind string, gvk schema.GroupVersionKind, item []byte) (err error) {
	if o.buf, err = wire.AppendEvent(o.buf, kind, gvk, item, o.c.Accept.Format); err != nil {
		return err
	}
	if len(o.buf) >= flushAt {
		return o.flush()
	}
	return nil
}

// bookmark appends an event that carries nothing but a revision.
func (o *feed) bookmark(rev int64, annotations map[string]string) error {
	o.reached = rev
	gvk := o.c.Target.Kind()
	empty, err := o.c.Target.Res.NewIn(gvk.GroupVersion())
	if err != nil {
		return err
	}
	obj := empty.(api.Object)
	obj.SetResourceVersion(store.FormatRevision(rev))
	obj.SetAnnotations(annotations)
	if o.c.Accept.As.Kind != "" {
		// As a table it is a row, too: that is where its annotations are found.
		as, err := transform(o.c, obj, o.columns)
		if err != nil {
			return err
		}
		o.columns = false
		item, err := wire.Item(as, o.c.Accept.As, o.c.Accept.Format)
		if err != nil {
			return err
		}
		return o.append("BOOKMARK", o.c.Accept.As, item)
	}
	item, err := wire.Item(obj, gvk, o.c.Accept.Format)
	if err != nil {
		return err
	}
	return o.append("BOOKMARK", gvk, item)
}

// end tells the client why the watch ends, as an ERROR event.
func (o *feed) end(err error) error {
	status := call.StatusOf(err).ErrStatus
	item, encErr := wire.Item(&status, call.StatusKind, o.c.Accept.Format)
	if encErr == nil && o.append("ERROR", call.StatusKind, item) == nil {
		_ = o.flush() // the client may be gone
	}
	return nil
}

func (o *feed) flush() error {
	// Writers that know no deadline are those of tests.
	_ = o.control.SetWriteDeadline(time.Now().Add(stuckAfter))
	// Over HTTP/2 a deadline that passes ends the stream even if nothing is being written: a quiet watch must have none.
	defer func() { _ = o.control.SetWriteDeadline(time.Time{}) }()
	if len(o.buf) > 0 {
		if _, err := o.c.W.Write(o.buf); err != nil {
			return err
		}
		o.buf = o.buf[:0]
		if cap(o.buf) > 16<<10 { // most watches are quiet: thousands of them must not keep their largest batch
			o.buf = nil
		}
	}
	return o.control.Flush()
}
