package history

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
)

type master struct{}

func (master) Authenticate(*http.Request) (user.Info, bool, error) {
	return &user.DefaultInfo{Name: "tester", Groups: []string{user.SystemPrivilegedGroup}}, true, nil
}

// middleman stands before a server and may lie to its clients.
type middleman func(next http.Handler) http.Handler

// servers returns n ways to one API over memory, the first of them through the middleman, and the ends of their connections.
func servers(t *testing.T, n int, lie middleman) (out []Server, cut []func()) {
	t.Helper()
	_, reg := clienttest.NewRegistry(t)
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	for i := range n {
		var h http.Handler = server.New(server.Config{Registry: reg, Authenticator: master{}, Authorizer: authz.Union{authz.Masters{}}, Log: log})
		if i == 0 && lie != nil {
			h = lie(h)
		}
		ts := httptest.NewServer(h)
		t.Cleanup(ts.Close)
		out = append(out, NewServer(fmt.Sprintf("server-%d", i), ts.URL, nil))
		cut = append(cut, ts.CloseClientConnections)
	}
	return out, cut
}

// runFor runs a load until done says so, at least until so many writes were acknowledged, and returns what happened.
func runFor(t *testing.T, l *Load, writes int, done func() bool) *History {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	deadline := time.Now().Add(2 * time.Minute)
	for l.Recorder.Acked() < writes || done != nil && !done() {
		if time.Now().After(deadline) {
			cancel()
			<-ended
			t.Fatalf("only %d writes were acknowledged in 2 minutes:\n%s", l.Recorder.Acked(), Report(l.Recorder.History()))
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Fatalf("%v\n%s", err, Report(l.Recorder.History()))
	}
	return l.Recorder.History()
}

func load(servers ...Server) *Load {
	return NewLoad(Config{Servers: servers, Namespace: "default", Writers: 6, Readers: 3, Followers: 2, Pause: time.Millisecond, RequestTimeout: 20 * time.Second, WatchLife: time.Second})
}

func TestHonestServers(t *testing.T) {
	all, cut := servers(t, 2, nil)
	l := load(all...)
	cuts := 0
	h := runFor(t, l, 1000, func() bool { // connections break now and then
		if l.Recorder.Acked() > 200*(cuts+1) {
			cuts++
			at := l.Recorder.Now()
			cut[cuts%2]()
			l.Recorder.Mark("connections cut", at)
		}
		return cuts >= 3
	})
	if err := Check(h); err != nil {
		t.Error(err)
	}
	t.Log(Report(h))
	events, refused := 0, 0
	for _, f := range h.Followers {
		events += len(f.Events)
	}
	for _, o := range h.Ops {
		if o.Outcome == Refused {
			refused++
		}
	}
	if events < 2000 || refused < 20 {
		t.Errorf("a history in which too little happens: %d events, %d refusals", events, refused)
	}
}

// every lets a middleman lie at each n-th request of a kind, from the start on. lie reports whether that was one: the truth may have been the same.
func every(n int64, method, path string, lie func(http.Handler, http.ResponseWriter, *http.Request) bool) (middleman, *atomic.Int64) {
	var count, lies atomic.Int64
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == method && strings.Contains(r.URL.Path, path) && r.URL.Query().Get("watch") == "" && count.Add(1)%n == 0 {
				if lie(next, w, r) {
					lies.Add(1)
				}
				return
			}
			next.ServeHTTP(w, r)
		})
	}, &lies
}

// coded is a ResponseWriter that remembers the status.
type coded struct {
	http.ResponseWriter
	code int
}

func (c *coded) WriteHeader(code int) {
	c.code = code
	c.ResponseWriter.WriteHeader(code)
}

func (c *coded) Unwrap() http.ResponseWriter { return c.ResponseWriter }

// done reports whether the answer is that it was done.
func (c *coded) done() bool { return c.code < 300 }

// unwritten answers as if it had been done.
func unwritten(next http.Handler, w http.ResponseWriter, r *http.Request) bool {
	body, _ := io.ReadAll(r.Body)
	body = bytes.Replace(body, []byte(`"DeleteOptions"`), []byte(`"DeleteOptions","dryRun":["All"]`), 1)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	q := r.URL.Query()
	q.Set("dryRun", "All")
	r.URL.RawQuery = q.Encode()
	answer := &coded{ResponseWriter: w}
	next.ServeHTTP(answer, r)
	return answer.done()
}

// unconditional forgets what a write depends on.
func unconditional(next http.Handler, w http.ResponseWriter, r *http.Request) bool {
	body, _ := io.ReadAll(r.Body)
	honest := r.Clone(r.Context())
	q := honest.URL.Query()
	q.Set("dryRun", "All")
	honest.URL.RawQuery = q.Encode()
	honest.Body = io.NopCloser(bytes.NewReader(body))
	refused := &coded{ResponseWriter: httptest.NewRecorder()}
	next.ServeHTTP(refused, honest)
	body = bytes.Replace(body, []byte(`"resourceVersion"`), []byte(`"selfLink"`), 1)
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	answer := &coded{ResponseWriter: w}
	next.ServeHTTP(answer, r)
	return !refused.done() && answer.done()
}

// doneTwice answers the second time.
func doneTwice(next http.Handler, w http.ResponseWriter, r *http.Request) bool {
	body, _ := io.ReadAll(r.Body)
	again := r.Clone(r.Context())
	r.Body, again.Body = io.NopCloser(bytes.NewReader(body)), io.NopCloser(bytes.NewReader(body))
	first, second := &coded{ResponseWriter: httptest.NewRecorder()}, &coded{ResponseWriter: w}
	next.ServeHTTP(first, r)
	next.ServeHTTP(second, again)
	return first.done() && !second.done()
}

// stale answers reads of each path with what was read some time before.
func stale(of func(*http.Request) bool) (middleman, *atomic.Int64) {
	var mu sync.Mutex
	var lies atomic.Int64
	old := map[string]*httptest.ResponseRecorder{}
	age := map[string]int{}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method != http.MethodGet || r.URL.Query().Get("watch") != "" || !of(r) {
				next.ServeHTTP(w, r)
				return
			}
			now := httptest.NewRecorder()
			next.ServeHTTP(now, r)
			mu.Lock()
			age[r.URL.Path]++
			if old[r.URL.Path] == nil || age[r.URL.Path]%10 == 0 {
				old[r.URL.Path] = now
			}
			answer := old[r.URL.Path]
			if answer.Body.String() != now.Body.String() {
				lies.Add(1)
			}
			mu.Unlock()
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(answer.Code)
			_, _ = w.Write(answer.Body.Bytes())
		})
	}, &lies
}

// filtered passes on a watch's answer line by line.
type filtered struct {
	http.ResponseWriter
	line func(n int64, line []byte) [][]byte
	n    *atomic.Int64
}

func (f filtered) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (f filtered) Write(b []byte) (int, error) {
	for line := range bytes.Lines(b) {
		for _, out := range f.line(f.n.Add(1), line) {
			if _, err := f.ResponseWriter.Write(out); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

// watched changes what watches are told.
func watched(line func(n int64, line []byte) [][]byte) (middleman, *atomic.Int64) {
	var n atomic.Int64
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("watch") != "" {
				w = filtered{w, line, &n}
			}
			next.ServeHTTP(w, r)
		})
	}, &n
}

// TestLiesAreFound runs clients against two servers, one of which does not tell the truth.
func TestLiesAreFound(t *testing.T) {
	type liar struct {
		lie  middleman
		lies *atomic.Int64
	}
	mk := func(m middleman, n *atomic.Int64) liar { return liar{m, n} }
	for name, c := range map[string]struct {
		liar
		want string
	}{
		"lost creation":        {mk(every(40, "POST", "/configmaps", unwritten)), "does not hold"},
		"lost update":          {mk(every(40, "PUT", "/configmaps/", unwritten)), "does not hold"},
		"lost deletion":        {mk(every(20, "DELETE", "/configmaps/own", unwritten)), "deletion"},
		"unconditional update": {mk(every(3, "PUT", "/configmaps/shared", unconditional)), "which is not what it was made from"},
		"refused though done":  {mk(every(20, "POST", "/configmaps", doneTwice)), "a write that was not done took effect"},
		"stale read":           {mk(stale(func(r *http.Request) bool { return strings.Contains(r.URL.Path, "/configmaps/") })), "a read found what was no longer"},
		"stale list":           {mk(stale(func(r *http.Request) bool { return strings.HasSuffix(r.URL.Path, "/configmaps") })), "a list is not of its time"},
		"lost event": {mk(watched(func(n int64, line []byte) [][]byte {
			if n%100 == 50 {
				return nil
			}
			return [][]byte{line}
		})), "was not told of"},
		"event told twice": {mk(watched(func(n int64, line []byte) [][]byte {
			if n%100 == 50 {
				return [][]byte{line, line}
			}
			return [][]byte{line}
		})), "was told twice"},
		"event with another value": {mk(watched(func(n int64, line []byte) [][]byte {
			if n%100 == 50 {
				return [][]byte{bytes.ReplaceAll(line, []byte(`"value":"`), []byte(`"value":"not-`))}
			}
			return [][]byte{line}
		})), "was both"},
	} {
		t.Run(name, func(t *testing.T) {
			all, _ := servers(t, 2, c.lie)
			// A stale answer is no lie if nobody can know that it is stale, and of what watches are told one in a hundred is one.
			enough := int64(5)
			if strings.Contains(name, "stale") || strings.Contains(name, "event") {
				enough = 200
			}
			h := runFor(t, load(all...), 300, func() bool { return c.lies.Load() >= enough })
			err := Check(h)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("after %d lies want a failure with %q, got: %v\n%s", c.lies.Load(), c.want, err, Report(h))
			}
		})
	}
}
