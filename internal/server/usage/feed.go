package usage

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metricsv1beta1 "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/api"
)

const (
	// firstPush is how long a node may take to its first push before its pods count as pods without figures.
	firstPush = 4 * time.Second
	// stale is the age from which the figures of a node that pushes no longer are not used.
	stale = 10 * time.Second
	// reconnect is the pause before a node is asked again that no longer pushes.
	reconnect = time.Second
	// longestPush bounds what one push may hold.
	longestPush = 32 << 20
)

// FeedConfig is what a Feed works with.
type FeedConfig struct {
	// Node returns the way to a node.
	Node func(ctx context.Context, name string) (Node, error)
	// Foreign reports whether another server answers metrics.k8s.io: then the nodes' own figures are nobody's business.
	Foreign func() bool
	Log     *slog.Logger
}

// Feed has what pods use, as their nodes push it every second or two while somebody wants to know ([Feed.Want]).
type Feed struct {
	cfg     FeedConfig
	changed chan struct{} // there may be other nodes to be connected with

	mu    sync.Mutex
	wants map[api.Key]map[string]bool // the nodes, by who wants to know
	lines map[string]*line            // by node
}

// line is what one node pushes.
type line struct {
	cancel context.CancelFunc
	began  time.Time                              // when it was connected with for the first time
	pods   map[api.Key]*metricsv1beta1.PodMetrics // of the last push
	at     time.Time                              // when that came
}

// NewFeed returns a Feed that Run makes live.
func NewFeed(cfg FeedConfig) *Feed {
	return &Feed{cfg: cfg, changed: make(chan struct{}, 1), wants: map[api.Key]map[string]bool{}, lines: map[string]*line{}}
}

// Want makes pods those of which by wants to know, in place of those before.
func (f *Feed) Want(by api.Key, pods []*corev1.Pod) {
	nodes := map[string]bool{}
	if !f.cfg.Foreign() {
		for _, p := range pods {
			if p.Spec.NodeName != "" {
				nodes[p.Spec.NodeName] = true
			}
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if maps.Equal(f.wants[by], nodes) {
		return
	}
	f.wants[by] = nodes
	if len(nodes) == 0 {
		delete(f.wants, by)
	}
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

// Usage returns what the running ones of pods use. complete is false where another server is to be asked, and before each of their nodes has
// pushed or had the time for it.
func (f *Feed) Usage(pods []*corev1.Pod) (items []metricsv1beta1.PodMetrics, complete bool) {
	if f.cfg.Foreign() {
		return nil, false
	}
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range pods {
		if p.Status.Phase != corev1.PodRunning {
			continue
		}
		l := f.lines[p.Spec.NodeName]
		if l == nil || l.at.IsZero() && now.Sub(l.began) < firstPush {
			return nil, false
		}
		if m := l.pods[api.KeyOf(p)]; m != nil && now.Sub(l.at) < stale {
			items = append(items, *m)
		}
	}
	return items, true
}

// Run keeps the nodes pushing until ctx ends. It calls pushed for each who wants to know of pods on a node that has pushed.
func (f *Feed) Run(ctx context.Context, pushed func(by api.Key)) {
	var tasks sync.WaitGroup
	defer tasks.Wait()
	for {
		f.connect(ctx, &tasks, pushed)
		select {
		case <-ctx.Done():
			return
		case <-f.changed:
		}
	}
}

// connect begins the lines that are wanted, and ends those that nobody wants any longer.
func (f *Feed) connect(ctx context.Context, tasks *sync.WaitGroup, pushed func(by api.Key)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	wanted := map[string]bool{}
	for _, nodes := range f.wants {
		maps.Copy(wanted, nodes)
	}
	for name, l := range f.lines {
		if !wanted[name] {
			l.cancel()
			delete(f.lines, name)
		}
	}
	for name := range wanted {
		if f.lines[name] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		l := &line{cancel: cancel, began: time.Now()}
		f.lines[name] = l
		tasks.Go(func() {
			defer cancel()
			f.keep(ctx, name, l, pushed)
		})
	}
}

// keep has a node push until ctx ends.
func (f *Feed) keep(ctx context.Context, name string, l *line, pushed func(by api.Key)) {
	for ctx.Err() == nil {
		err := f.follow(ctx, name, func(items []metricsv1beta1.PodMetrics) {
			for _, by := range f.take(name, l, items) {
				pushed(by)
			}
		})
		if ctx.Err() == nil {
			f.cfg.Log.Debug("a node does not push what its pods use", "node", name, "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnect):
		}
	}
}

// take keeps a push, and returns who waits for it.
func (f *Feed) take(name string, l *line, items []metricsv1beta1.PodMetrics) []api.Key {
	pods := make(map[api.Key]*metricsv1beta1.PodMetrics, len(items))
	for i := range items {
		pods[api.KeyOf(&items[i])] = &items[i]
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l.pods, l.at = pods, time.Now()
	var out []api.Key
	for by, nodes := range f.wants {
		if nodes[name] {
			out = append(out, by)
		}
	}
	return out
}

// follow hands each push of a node to each, until ctx ends or the node pushes no longer.
func (f *Feed) follow(ctx context.Context, name string, each func([]metricsv1beta1.PodMetrics)) (err error) {
	defer func() {
		if p := recover(); p != nil { // http.ErrAbortHandler: the connection with the agent was lost
			err = fmt.Errorf("the answer broke off: %v", p)
		}
	}()
	node, err := f.cfg.Node(ctx, name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "/usage/pushes", nil)
	if err != nil {
		return err
	}
	w := &pushes{kept: kept{header: http.Header{}, code: http.StatusOK}, each: each, stop: cancel}
	node.ServeNode(w, r)
	if w.code != http.StatusOK {
		return fmt.Errorf("%d: %s", w.code, bytes.TrimSpace(w.body.Bytes()))
	}
	return w.failed
}

// pushes reads an answer that has a list of PodMetrics in each line.
type pushes struct {
	kept
	each   func([]metricsv1beta1.PodMetrics)
	stop   func() // ends the request
	failed error
}

// Write implements http.ResponseWriter.
func (p *pushes) Write(b []byte) (int, error) {
	if p.failed != nil {
		return 0, p.failed
	}
	_, _ = p.body.Write(b) // a buffer's Write never fails
	if p.code != http.StatusOK {
		return len(b), nil
	}
	for {
		end := bytes.IndexByte(p.body.Bytes(), '\n')
		switch {
		case end < 0 && p.body.Len() < longestPush:
			return len(b), nil
		case end < 0:
			return 0, p.fail(fmt.Errorf("a push of more than %d bytes", longestPush))
		}
		var list metricsv1beta1.PodMetricsList
		if err := json.Unmarshal(p.body.Next(end+1), &list); err != nil {
			return 0, p.fail(fmt.Errorf("reading a push: %w", err))
		}
		p.each(list.Items)
	}
}

func (p *pushes) fail(err error) error {
	p.failed = err
	p.stop()
	return err
}
