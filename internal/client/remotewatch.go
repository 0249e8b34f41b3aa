package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// selection is what one mirror holds of a resource.
type selection struct {
	res                           *api.Resource
	namespace, name, index, value string
	onlyReach                     bool   // its objects are not whole: nothing but its own watchers may see them
	labels                        string // a label selector
}

func selectionOf(res *api.Resource, opts ListOptions) selection {
	s := selection{res: res, name: opts.Name, index: opts.Index, value: opts.Value, onlyReach: opts.OnlyReach}
	if res.Namespaced {
		s.namespace = opts.Namespace
	}
	if opts.Labels != nil {
		s.labels = opts.Labels.String()
	}
	return s
}

// remote reports whether the server can make the selection; otherwise everything is asked for.
func (s selection) remote() bool { return s.index == "" || s.index == IndexNode }

// query returns the parameters of a list or watch.
func (s selection) query() url.Values {
	q := url.Values{}
	var sel []fields.Selector
	if s.name != "" {
		sel = append(sel, fields.OneTermEqualSelector("metadata.name", s.name))
	}
	if s.index == IndexNode {
		sel = append(sel, fields.OneTermEqualSelector("spec.nodeName", s.value))
	}
	if len(sel) > 0 {
		q.Set("fieldSelector", fields.AndSelectors(sel...).String())
	}
	if s.labels != "" {
		q.Set("labelSelector", s.labels)
	}
	return q
}

// covers reports whether the object named key, if there is one, is in the selection.
func (s selection) covers(key api.Key) bool {
	return (s.namespace == "" || s.namespace == key.Namespace) && (s.name == "" || s.name == key.Name) && s.index == "" && s.labels == "" && !s.onlyReach
}

// includes reports whether everything that other chooses is in the selection.
func (s selection) includes(other selection) bool {
	return s.onlyReach == other.onlyReach && (s.namespace == "" || s.namespace == other.namespace) && (s.name == "" || s.name == other.name) &&
		(s.index == "" || s.index == other.index && s.value == other.value) && (s.labels == "" || s.labels == other.labels)
}

// chooses reports whether obj, which is whole, is in the selection.
func (s selection) chooses(obj api.Object) bool {
	if s.onlyReach || s.namespace != "" && obj.GetNamespace() != s.namespace || s.name != "" && obj.GetName() != s.name {
		return false
	}
	if s.labels != "" {
		if by, err := labels.Parse(s.labels); err != nil || !by.Matches(labels.Set(obj.GetLabels())) {
			return false
		}
	}
	if s.index == "" {
		return true
	}
	for _, v := range spec(s.res).Indexes[s.index](obj) {
		if v == s.value {
			return true
		}
	}
	return false
}

// mirror is one watched selection.
type mirror struct {
	selection selection
	copy      *store.Mirror
	users     int // guarded by Remote.mu
	cancel    context.CancelFunc
	synced    chan struct{}

	mu  sync.Mutex
	err error         // why there is no first state yet
	bad chan struct{} // closed when err was set, then replaced
}

func (m *mirror) table() *store.Table { return m.copy.Table() }

func (m *mirror) isSynced() bool {
	select {
	case <-m.synced:
		return true
	default:
		return false
	}
}

// wait blocks until the mirror holds its selection, or its first state cannot be had.
func (m *mirror) wait(ctx context.Context) error {
	m.mu.Lock()
	bad := m.bad
	m.mu.Unlock()
	select {
	case <-m.synced:
		return nil
	case <-bad:
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (m *mirror) failed(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	close(m.bad)
	m.bad = make(chan struct{})
}

// Watch implements Client. It returns once the present state is known; later losses of the server are waited out.
func (r *Remote) Watch(ctx context.Context, res *api.Resource, opts ListOptions) (Watcher, error) {
	sel := selectionOf(res, opts)
	if opts.Index != "" && spec(res).Indexes[opts.Index] == nil {
		return nil, fmt.Errorf("%s have no index %q", res.Plural, opts.Index)
	}
	if !sel.remote() { // the whole is mirrored, the index is kept here
		sel.index, sel.value = "", ""
	}
	m, err := r.join(sel)
	if err != nil {
		return nil, err
	}
	if err := m.wait(ctx); err != nil {
		r.leave(m)
		return nil, err
	}
	w := &localWatcher{table: m.table(), opts: opts, namespaced: res.Namespaced}
	w.begin()
	return &remoteWatcher{localWatcher: w, leave: sync.OnceFunc(func() { r.leave(m) })}, nil
}

type remoteWatcher struct {
	*localWatcher
	leave func()
}

// Stop implements Watcher.
func (w *remoteWatcher) Stop() {
	w.localWatcher.Stop()
	w.leave()
}

// join returns the mirror of a selection, begun if there is none.
func (r *Remote) join(sel selection) (*mirror, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx.Err() != nil {
		return nil, ErrStopped
	}
	for _, m := range r.mirrors[sel.res] {
		if m.selection == sel {
			m.users++
			return m, nil
		}
	}
	m := &mirror{selection: sel, copy: store.NewMirror(spec(sel.res)), users: 1, synced: make(chan struct{}), bad: make(chan struct{})}
	ctx, cancel := context.WithCancel(r.ctx)
	m.cancel = cancel
	r.mirrors[sel.res] = append(r.mirrors[sel.res], m)
	r.tasks.Go(func() { r.follow(ctx, m) })
	return m, nil
}

// leave ends a mirror that nobody watches any more.
func (r *Remote) leave(m *mirror) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.users--; m.users > 0 {
		return
	}
	m.cancel()
	list := r.mirrors[m.selection.res]
	for i := range list {
		if list[i] == m {
			r.mirrors[m.selection.res] = append(list[:i:i], list[i+1:]...)
			break
		}
	}
}

// How long to wait before the server is asked again, and how long one watch lasts.
const (
	retryLeast, retryMost = 100 * time.Millisecond, 5 * time.Second
	watchLeast            = 5 * time.Minute
)

// follow keeps a mirror up to date until ctx ends: a list, then watches that each go on where the last one ended.
func (r *Remote) follow(ctx context.Context, m *mirror) {
	pause := retryLeast
	lost := false
	for listed := false; ctx.Err() == nil; {
		var err error
		if !listed {
			var objs []api.Object
			var rev int64
			if objs, rev, err = r.list(ctx, m.selection); err == nil {
				m.copy.Replace(byKey(m.selection.res, objs), rev)
				if !m.isSynced() {
					close(m.synced)
				}
				listed, pause = true, retryLeast
			}
		}
		if err == nil {
			began := time.Now()
			err = r.stream(ctx, m, func() {
				if lost {
					r.cfg.Log.Info("watching again", "resource", m.selection.res.Plural, "namespace", m.selection.namespace, "name", m.selection.name)
					lost = false
				}
			})
			if time.Since(began) > retryMost {
				pause = retryLeast
			}
			if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
				listed = false
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = nil
		}
		if err != nil && !lost {
			lost = true
			r.cfg.Log.Warn("watching was interrupted, trying again", "resource", m.selection.res.Plural, "namespace", m.selection.namespace, "name", m.selection.name, "err", err)
		}
		if !m.isSynced() {
			m.failed(err)
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
		}
		pause = min(2*pause, retryMost)
	}
}

// stream applies the changes after the mirror's revision until the watch ends. It calls begun once the server has accepted it.
func (r *Remote) stream(ctx context.Context, m *mirror, begun func()) error {
	// A connection that died without a word is noticed by the transport's pings, and by the end of the watch at the latest.
	lasts := watchLeast + rand.N(watchLeast)
	ctx, cancel := context.WithTimeout(ctx, lasts+30*time.Second)
	defer cancel()
	u := r.path(m.selection.res, m.selection.namespace, "", "")
	q := m.selection.query()
	q.Set("watch", "1")
	q.Set("allowWatchBookmarks", "true")
	q.Set("resourceVersion", strconv.FormatInt(m.copy.Revision(), 10))
	q.Set("timeoutSeconds", strconv.Itoa(int(lasts/time.Second)))
	u.RawQuery = q.Encode()
	resp, err := r.open(ctx, http.MethodGet, u, nil, mediaType+";stream=watch,"+mediaType)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		if err != nil {
			return err
		}
		return statusError(resp, b, http.MethodGet, u)
	}
	begun()
	frames := protobuf.LengthDelimitedFramer.NewFrameReader(resp.Body)
	buf := make([]byte, 64<<10)
	for {
		frame, err := readFrame(frames, &buf)
		if err != nil {
			return err
		}
		if err := m.event(frame); err != nil {
			return err
		}
	}
}

// readFrame returns the next whole frame, in buf, which grows as needed.
func readFrame(r io.Reader, buf *[]byte) ([]byte, error) {
	n := 0
	for {
		k, err := r.Read((*buf)[n:])
		n += k
		switch {
		case err == nil:
			return (*buf)[:n], nil
		case errors.Is(err, io.ErrShortBuffer):
			bigger := make([]byte, 2*len(*buf))
			copy(bigger, (*buf)[:n])
			*buf = bigger
		default:
			return nil, err
		}
	}
}

// event applies one watch event.
func (m *mirror) event(frame []byte) error {
	var e metav1.WatchEvent
	if err := e.Unmarshal(frame); err != nil {
		return fmt.Errorf("reading a watch event: %w", err)
	}
	if e.Type == "ERROR" {
		obj, _, err := codec().Decode(e.Object.Raw, nil, nil)
		if err != nil {
			return fmt.Errorf("reading why the watch ended: %w", err)
		}
		return apierrors.FromObject(obj)
	}
	obj, err := decodeObject(m.selection.res, e.Object.Raw)
	if err != nil {
		return err
	}
	switch key := tableKey(m.selection.res, api.KeyOf(obj)); e.Type {
	case "ADDED", "MODIFIED":
		m.copy.Apply(key, obj, false)
	case "DELETED":
		m.copy.Apply(key, obj, true)
	case "BOOKMARK":
		rev, err := strconv.ParseInt(obj.GetResourceVersion(), 10, 64)
		if err != nil {
			return fmt.Errorf("a bookmark's resourceVersion: %w", err)
		}
		m.copy.Reached(rev)
	}
	return nil
}
