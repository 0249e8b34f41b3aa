package agentlink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// station is a server that takes connections of node n.
type station struct {
	*httptest.Server
	hub *Hub
	cut context.CancelFunc // ends its connections
}

func newStation(t *testing.T) *station {
	t.Helper()
	s := &station{hub: NewHub(slog.New(slog.DiscardHandler))}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = s.hub.Accept(w, r, "n")
	}))
	var ctx context.Context
	ctx, s.cut = context.WithCancel(t.Context())
	s.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	s.StartTLS()
	t.Cleanup(func() { s.cut(); s.Close() })
	return s
}

// list is a list of servers that a test changes.
type list struct {
	mu      sync.Mutex
	urls    []string
	changed chan struct{}
}

func (l *list) get() ([]string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.urls, l.changed
}

func (l *list) set(urls ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.urls, l.changed = urls, make(chan struct{})
}

// change is a call of AgentConfig.Changed.
type change struct {
	server string
	lost   bool
}

// runAgent runs the agent of node n until the test ends.
func runAgent(t *testing.T, servers *list, stations ...*station) <-chan change {
	t.Helper()
	roots := x509.NewCertPool()
	for _, s := range stations {
		roots.AddCert(s.Certificate())
	}
	changes := make(chan change, 100)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		err := RunAgent(ctx, AgentConfig{
			Servers: servers.get, TLS: func() *tls.Config { return &tls.Config{RootCAs: roots} }, Agent: func() Agent { return fake{} },
			Changed: func(server string, lost error) { changes <- change{server, lost != nil} }, Log: slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	return changes
}

// until waits for the node to be connected, or not.
func (s *station) until(t *testing.T, connected bool) State {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	looks := make(chan struct{}, 1)
	looks <- struct{}{}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	begun := make(chan struct{})
	wg.Go(func() {
		close(begun)
		s.hub.Follow(ctx, func(string) {
			select {
			case looks <- struct{}{}:
			default:
			}
		})
	})
	<-begun
	for {
		if state := s.hub.State("n"); state.Connected == connected {
			return state
		}
		select {
		case <-looks:
		case <-time.After(20 * time.Millisecond): // Follow may have begun after the change
		case <-ctx.Done():
			t.Fatalf("connected %v for a minute; want %v", !connected, connected)
		}
	}
}

func TestAgentIsConnectedWithEveryServer(t *testing.T) {
	a, b := newStation(t), newStation(t)
	if s := a.hub.State("n"); s.Connected || !s.Lost.IsZero() {
		t.Errorf("before there was a connection: %+v", s)
	}
	servers := &list{urls: []string{a.URL}, changed: make(chan struct{})}
	changes := runAgent(t, servers, a, b)
	a.until(t, true)
	servers.set(a.URL, b.URL)
	b.until(t, true)
	for _, s := range []*station{a, b} {
		n, err := s.hub.Node("n")
		if err != nil {
			t.Fatal(err)
		}
		if err := n.Logs(t.Context(), api.Key{Name: "pod"}, &corev1.PodLogOptions{}, io.Discard); err != nil {
			t.Errorf("a log: %v", err)
		}
	}
	if len(changes) > 0 {
		t.Errorf("a first connection is told of as one that was lost: %v", <-changes)
	}
	a.cut()
	state := a.until(t, false)
	if since := time.Since(state.Lost); since < 0 || since > time.Minute || state.Why == "" {
		t.Errorf("after the end: %+v", state)
	}
	if got := <-changes; got != (change{a.URL, true}) {
		t.Errorf("the agent was told %v", got)
	}
	if !b.hub.State("n").Connected {
		t.Error("the other connection ended, too")
	}
}

func TestAgentConnectsAgain(t *testing.T) {
	a := newStation(t)
	servers := &list{urls: []string{a.URL}, changed: make(chan struct{})}
	changes := runAgent(t, servers, a)
	a.until(t, true)
	var old *link
	for range 3 {
		old = a.another(t, old)
		_ = old.conn.Close()
		if got := <-changes; got != (change{a.URL, true}) {
			t.Errorf("the agent was told %v", got)
		}
		if got := <-changes; got != (change{a.URL, false}) {
			t.Errorf("the agent was told %v", got)
		}
	}
	a.another(t, old)
}

// another waits for a connection other than old.
func (s *station) another(t *testing.T, old *link) *link {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if n, err := s.hub.Node("n"); err == nil && n.link != old {
			return n.link
		}
	}
	t.Fatal("no other connection for a minute")
	return nil
}

func TestServerThatIsNoLongerListed(t *testing.T) {
	a, b := newStation(t), newStation(t)
	servers := &list{urls: []string{a.URL, b.URL}, changed: make(chan struct{})}
	changes := runAgent(t, servers, a, b)
	a.until(t, true)
	b.until(t, true)
	servers.set(b.URL)
	n, err := a.hub.Node("n")
	if err != nil {
		t.Fatalf("a connection that is there was given up: %v", err)
	}
	_ = n.link.conn.Close()
	<-changes
	a.until(t, false)
	servers.set(a.URL, b.URL)
	a.until(t, true)
}

func TestSinceWhenANodeIsLost(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, tc := range []struct {
		name string
		err  error
		ago  time.Duration
	}{
		{"closed", io.EOF, 0},
		{"reset, wrapped", fmt.Errorf("read: %w", syscall.ECONNRESET), 0},
		{"the kernel gave up", &net.OpError{Op: "read", Err: syscall.ETIMEDOUT}, aliveTimeout},
		{"no way there", &net.OpError{Op: "write", Err: syscall.EHOSTUNREACH}, aliveTimeout},
		{"closed by ourselves", nil, 0},
		{"something else", errors.New("x"), 0},
	} {
		if got := lostState(tc.err, now); now.Sub(got.Lost) != tc.ago || got.Why == "" || got.Connected {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

func TestKernelLooksAfterConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := Dialer().DialContext(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	if err := keepAlive(tls.Server(in, &tls.Config{})); err != nil {
		t.Fatal(err)
	}
	for name, conn := range map[string]net.Conn{"dialled": out, "accepted": in} {
		idle, timeout, err := aliveOptions(conn.(*net.TCPConn))
		if err != nil || idle != 1 || timeout != 3000 {
			t.Errorf("%s: idle %d s, time-out %d ms, %v", name, idle, timeout, err)
		}
	}
}

// aliveOptions returns TCP_KEEPIDLE and TCP_USER_TIMEOUT.
func aliveOptions(c *net.TCPConn) (idle, timeout int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, 0, err
	}
	var errs [2]error
	err = raw.Control(func(fd uintptr) {
		idle, errs[0] = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE)
		timeout, errs[1] = syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, 18) // TCP_USER_TIMEOUT
	})
	return idle, timeout, errors.Join(err, errs[0], errs[1])
}
