package registry

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// Get returns the present revision of one object, or NotFound.
func (r *Registry) Get(_ context.Context, res *api.Resource, key api.Key) (*store.Revision, error) {
	if rev, ok := r.Table(res).Get(res.Key(key)); ok {
		return rev, nil
	}
	return nil, apierrors.NewNotFound(res.GroupResource(), key.Name)
}

// Count returns how many objects of a resource there are.
func (r *Registry) Count(res *api.Resource) int { return r.Table(res).Len() }

// Selection chooses objects of a resource. The zero value chooses all.
type Selection struct {
	Namespace string
	Labels    labels.Selector // nil: any
	Fields    fields.Selector // nil: any; names must be the resource's SelectableFields
	// Version is the group-version in which Fields are named, where it is not the stored one.
	Version schema.GroupVersion
}

// ListOptions say which objects a List returns, and how many.
type ListOptions struct {
	Selection
	Limit                int64
	Continue             string
	ResourceVersion      string
	ResourceVersionMatch metav1.ResourceVersionMatch
}

// ListResult is one page of objects as of one revision.
type ListResult struct {
	Items    []*store.Revision
	Revision int64
	// Continue is the token for the next page, or empty; Remaining how many follow, where known.
	Continue  string
	Remaining *int64
}

// List returns the objects that opts choose, in key order, as of one revision.
func (r *Registry) List(ctx context.Context, res *api.Resource, opts ListOptions) (*ListResult, error) {
	match, byField, err := opts.matcher(ctx, res)
	if err != nil {
		return nil, err
	}
	snap, from, err := r.snapshotFor(ctx, res, opts)
	if err != nil {
		return nil, err
	}
	out := &ListResult{Revision: snap.Rev}
	prefix, start := "", from.Start
	if res.Namespaced && opts.Namespace != "" {
		prefix = opts.Namespace + "/"
	}
	if name, ok := exactly(byField, "metadata.name"); ok && (prefix != "" || !res.Namespaced) {
		prefix, start = "", prefix+name
		snap.Ascend(start, start, func(rev *store.Revision) bool {
			if rev.Key == start && (match == nil || match(rev.Object)) {
				out.Items = append(out.Items, rev)
			}
			return false
		})
		return out, nil
	}
	if node, ok := exactly(byField, "spec.nodeName"); ok && node != "" && opts.newest() && res == api.Pods {
		return r.podsOf(node, prefix, match), nil
	}
	more := false
	if match == nil && prefix == "" && start == "" && opts.Limit == 0 {
		out.Items = make([]*store.Revision, 0, snap.Len())
	}
	snap.Ascend(prefix, start, whileWanted(ctx, func(rev *store.Revision) bool {
		if match != nil && !match(rev.Object) {
			return true
		}
		if opts.Limit > 0 && int64(len(out.Items)) == opts.Limit {
			more = true
			return false
		}
		out.Items = append(out.Items, rev)
		return true
	}))
	if err := ctx.Err(); err != nil {
		return nil, apierrors.NewTimeoutError(fmt.Sprintf("the list of %s was not made in time: %v", res.GroupResource(), err), 1)
	}
	if more {
		last := out.Items[len(out.Items)-1].Key
		next := continueToken{Rev: snap.Rev, Start: last + "\x00", Since: from.Since}
		out.Continue = encodeContinue(next)
		r.pages.keep(res.Table(), snap, next.until())
		if match == nil {
			var rest int64
			snap.Ascend(prefix, last+"\x00", func(*store.Revision) bool { rest++; return true })
			out.Remaining = &rest
		}
	}
	return out, nil
}

// whileWanted returns a visit that ends once nobody waits for what it finds.
func whileWanted(ctx context.Context, visit func(*store.Revision) bool) func(*store.Revision) bool {
	n := 0
	return func(rev *store.Revision) bool {
		if n++; n%1024 == 0 && ctx.Err() != nil {
			return false
		}
		return visit(rev)
	}
}

// podsOf lists the newest state of one node's pods, from the index; pages and the past come from the tree.
func (r *Registry) podsOf(node, prefix string, match func(store.Object) bool) *ListResult {
	revs, at := r.Table(api.Pods).LookupAt(api.IndexNode, node)
	out := &ListResult{Revision: at}
	for _, rev := range revs {
		if strings.HasPrefix(rev.Key, prefix) && match(rev.Object) {
			out.Items = append(out.Items, rev)
		}
	}
	return out
}

// newest reports whether a list is to be all there is now, in one piece.
func (opts ListOptions) newest() bool {
	return opts.Limit == 0 && opts.Continue == "" && opts.ResourceVersionMatch != metav1.ResourceVersionMatchExact
}

// snapshotFor returns the snapshot from which a list is served, and where and when it began.
func (r *Registry) snapshotFor(ctx context.Context, res *api.Resource, opts ListOptions) (*store.Snapshot, continueToken, error) {
	t := r.Table(res)
	begin := continueToken{Since: time.Now().Unix()}
	if opts.Continue != "" {
		token, err := decodeContinue(opts.Continue)
		if err != nil {
			return nil, begin, apierrors.NewBadRequest(fmt.Sprintf("continue key is not valid: %v", err))
		}
		if opts.ResourceVersion != "" && opts.ResourceVersion != "0" {
			return nil, begin, apierrors.NewBadRequest("specifying resource version is not allowed when using continue")
		}
		if token.Rev < 0 {
			begin.Start = token.Start
			return t.Snapshot(), begin, nil
		}
		// As in Kubernetes an old token is refused also if its revision happens to be there: clients learn early that they must expect it.
		if snap := r.snapshotAt(res, token.Rev); snap != nil && token.until().After(time.Now()) {
			return snap, token, nil
		}
		return nil, begin, expiredContinue(token.Start)
	}
	want, err := parseRevision(opts.ResourceVersion)
	if err != nil {
		return nil, begin, err
	}
	if want > 0 {
		if err := r.reach(ctx, want); err != nil {
			return nil, begin, err
		}
	}
	if opts.ResourceVersionMatch == metav1.ResourceVersionMatchExact {
		if snap := r.snapshotAt(res, want); snap != nil {
			return snap, begin, nil
		}
		return nil, begin, apierrors.NewResourceExpired(fmt.Sprintf("The resourceVersion for the provided list is too old: %d (the present one is %d).", want, r.store.Revision()))
	}
	return t.Snapshot(), begin, nil
}

// snapshotAt returns the content of a resource's table as it was at a revision, if nothing has changed since or a list of
// that revision is being read in pages; else nil.
func (r *Registry) snapshotAt(res *api.Resource, rev int64) *store.Snapshot {
	if snap, ok := r.Table(res).Snapshot().At(rev); ok {
		return snap
	}
	return r.pages.find(res.Table(), rev)
}

// reach waits briefly for the copy to hold revision want.
func (r *Registry) reach(ctx context.Context, want int64) error {
	if r.store.Revision() >= want {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if err := r.store.WaitFor(ctx, want); err != nil {
		return metav1StatusTooLarge(want, r.store.Revision())
	}
	return nil
}

// matcher returns the predicate of a selection (nil: everything) and its fields in the stored version, or BadRequest for a field
// that cannot be selected. The namespace is not looked at.
func (s Selection) matcher(ctx context.Context, res *api.Resource) (func(store.Object) bool, fields.Selector, error) {
	byLabel := s.Labels != nil && !s.Labels.Empty()
	byField := s.Fields != nil && !s.Fields.Empty()
	if !byField {
		if !byLabel {
			return nil, nil, nil
		}
		return func(o store.Object) bool { return s.Labels.Matches(labels.Set(o.GetLabels())) }, nil, nil
	}
	gv := s.Version
	if gv.Empty() {
		gv = res.GroupVersion()
	}
	selector, err := res.SelectBy(gv, s.Fields)
	if err != nil {
		return nil, nil, apierrors.NewBadRequest(err.Error()) // kubectl tells the rest
	}
	return func(o store.Object) bool {
		if byLabel && !s.Labels.Matches(labels.Set(o.GetLabels())) {
			return false
		}
		own, err := res.Own(ctx, o)
		return err != nil || selector.Matches(res.FieldSet(own[0])) // who converts it to send it meets the error
	}, selector, nil
}

// exactly returns the value that sel demands of field.
func exactly(sel fields.Selector, field string) (string, bool) {
	if sel == nil {
		return "", false
	}
	return sel.RequiresExactMatch(field)
}

// WatchOptions say what a Watch begins with.
type WatchOptions struct {
	Selection
	// ResourceVersion is the revision after which events are wanted; "" and "0" mean the present state first.
	ResourceVersion string
	// Initial asks for the present state first whatever the ResourceVersion is (sendInitialEvents=true, KEP-3157).
	Initial bool
	// None leaves out the present state where ResourceVersion is empty (sendInitialEvents=false).
	None bool
}

// Watch is a running watch.
type Watch struct {
	// Initial is the present state as of InitialRevision, if the watch began with it.
	Initial         []*store.Revision
	InitialRevision int64

	watcher *store.Watcher
	match   func(store.Object) bool
	// resumed is the revision after which the watch was asked for, until its first events have been looked at.
	resumed int64
}

// Watch begins a watch. Too old a revision gives a 410 Expired status.
func (r *Registry) Watch(ctx context.Context, res *api.Resource, opts WatchOptions) (*Watch, error) {
	match, _, err := opts.matcher(ctx, res)
	if err != nil {
		return nil, err
	}
	if res.Namespaced && opts.Namespace != "" {
		inner, ns := match, opts.Namespace
		match = func(o store.Object) bool { return o.GetNamespace() == ns && (inner == nil || inner(o)) }
	}
	from, err := parseRevision(opts.ResourceVersion)
	if err != nil {
		return nil, err
	}
	t := r.Table(res)
	w := &Watch{match: match}
	if from > 0 && !opts.Initial {
		if w.watcher, err = t.WatchFrom(from); err != nil {
			return nil, expired(from)
		}
		w.resumed = from
		return w, nil
	}
	if from > 0 {
		if err := r.reach(ctx, from); err != nil {
			return nil, err
		}
	}
	var snap *store.Snapshot
	w.watcher, snap = t.WatchNow()
	w.InitialRevision = snap.Rev
	if opts.None {
		return w, nil
	}
	prefix := ""
	if res.Namespaced && opts.Namespace != "" {
		prefix = opts.Namespace + "/"
	}
	snap.Ascend(prefix, "", func(rev *store.Revision) bool {
		if match == nil || match(rev.Object) {
			w.Initial = append(w.Initial, rev)
		}
		return true
	})
	return w, nil
}

// Next blocks for events, as seen by someone who sees only what was selected. It returns a 410 Expired status when the watcher
// fell behind.
func (w *Watch) Next(ctx context.Context) ([]store.Event, error) {
	for {
		events, err := w.watcher.Next(ctx)
		if errors.Is(err, store.ErrTooOld) {
			return nil, apierrors.NewResourceExpired("the watch fell too far behind and has to begin anew")
		}
		if err != nil {
			return nil, err
		}
		if w.match != nil {
			kept := events[:0]
			for _, e := range events {
				if e, ok := e.Filter(w.match); ok {
					kept = append(kept, e)
				}
			}
			events = kept
		}
		if events = w.unseen(events); len(events) > 0 {
			return events, nil
		}
	}
}

// unseen drops what a client that resumes has seen for certain. The store tells all that happened at the revision from which it resumes,
// lest a part of a batch be missed (docs/adr/0005). If only one of these events is in the client's view, it is the one that told the
// client of the revision.
func (w *Watch) unseen(events []store.Event) []store.Event {
	from := w.resumed
	w.resumed = 0
	if from > 0 && len(events) > 0 && events[0].Revision.Rev == from && (len(events) == 1 || events[1].Revision.Rev != from) {
		return events[1:]
	}
	return events
}

// Progress returns the revision up to which everything has been delivered, or false while events wait; for bookmarks.
func (w *Watch) Progress() (int64, bool) { return w.watcher.Progress() }

// Stop ends the watch.
func (w *Watch) Stop() { w.watcher.Stop() }
