package agentlink

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

// AgentConfig is what the agent's end works with.
type AgentConfig struct {
	// Servers returns the servers' URLs, https://HOST:PORT, and a channel that is closed when they have changed.
	Servers func() (urls []string, changed <-chan struct{})
	// TLS returns the configuration for a new connection; it has the node's certificate.
	TLS func() *tls.Config
	// Agent returns this node's agent; nil before it runs.
	Agent func() Agent
	// Changed, if set, is called when a connection was lost, and when it is there again: lost is the error, or nil.
	Changed func(server string, lost error)
	Log     *slog.Logger
}

// Agent is the way to this node's containers; node.Agent is one.
type Agent interface {
	Streams
	// DialStream connects to one of the URLs of Streams.
	DialStream(ctx context.Context, u *url.URL) (net.Conn, error)
}

// retry bounds the pause between two attempts to connect.
const retryLeast, retryMost = 100 * time.Millisecond, 2 * time.Second

// RunAgent keeps a connection with every server until ctx ends.
func RunAgent(ctx context.Context, cfg AgentConfig) error {
	k := keeper{cfg: cfg, running: map[string]bool{}}
	defer k.tasks.Wait()
	for ctx.Err() == nil {
		urls, changed := cfg.Servers()
		k.want(ctx, urls)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// keeper has a goroutine per server.
type keeper struct {
	cfg   AgentConfig
	tasks sync.WaitGroup

	mu      sync.Mutex
	wanted  []string
	running map[string]bool
}

// want makes servers those to be connected with. A connection with another one lasts as long as it does: the list may be wrong.
func (k *keeper) want(ctx context.Context, servers []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = slices.Clone(servers)
	for _, server := range servers {
		if !k.running[server] {
			k.running[server] = true
			k.tasks.Go(func() { k.keep(ctx, server) })
		}
	}
}

// done reports whether server is not to be connected with any more, and then forgets it.
func (k *keeper) done(ctx context.Context, server string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if ctx.Err() == nil && slices.Contains(k.wanted, server) {
		return false
	}
	delete(k.running, server)
	return true
}

// keep keeps a connection with one server as long as that is wanted.
func (k *keeper) keep(ctx context.Context, server string) {
	pause, told, again := retryLeast, false, false
	for !k.done(ctx, server) {
		began := time.Now()
		connected, err := once(ctx, k.cfg, server, func() {
			k.cfg.Log.Info("connected for logs and exec", "server", server)
			if again && k.cfg.Changed != nil {
				k.cfg.Changed(server, nil)
			}
		})
		if ctx.Err() != nil {
			continue
		}
		if connected {
			again = true
			if k.cfg.Changed != nil {
				k.cfg.Changed(server, err)
			}
		}
		if connected && time.Since(began) > retryMost {
			pause = retryLeast
		}
		if connected || !told {
			k.cfg.Log.Warn("no connection for logs and exec, trying again", "server", server, "err", err)
		}
		told = true
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
		}
		pause = min(2*pause, retryMost)
	}
}

// once has one connection for its life.
func once(ctx context.Context, cfg AgentConfig, server string, begun func()) (connected bool, err error) {
	conn, r, err := dial(ctx, cfg, server)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	begun()
	h2 := &http2.Server{ReadIdleTimeout: idle, PingTimeout: patience, MaxConcurrentStreams: 1000}
	watched := &watchedConn{Conn: conn, r: r, done: make(chan struct{})}
	h2.ServeConn(watched, &http2.ServeConnOpts{Context: ctx, Handler: &handler{cfg}})
	_ = watched.Close()
	if watched.err == nil {
		return true, errors.New("the connection ended")
	}
	return true, fmt.Errorf("the connection ended: %w", watched.err)
}

func dial(ctx context.Context, cfg AgentConfig, server string) (net.Conn, *bufio.Reader, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, nil, err
	}
	conf := cfg.TLS().Clone()
	conf.NextProtos = []string{"http/1.1"}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{NetDialer: Dialer(), Config: conf}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	r, err := upgrade(conn, u.Host)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return conn, r, nil
}

func upgrade(conn net.Conn, host string) (*bufio.Reader, error) {
	req, err := http.NewRequest(http.MethodGet, "https://"+host+Path, nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {Protocol}, "User-Agent": {"knarr"}, "Accept": {"application/json"}}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return nil, readError(resp)
	}
	return r, nil
}

// handler answers what the server asks.
type handler struct{ cfg AgentConfig }

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	agent := h.cfg.Agent()
	if agent == nil {
		writeError(w, apierrors.NewServiceUnavailable("the agent is still starting"))
		return
	}
	if strings.HasPrefix(r.URL.Path, endpointsPath) {
		serveEndpoints(w, r, agent)
		return
	}
	q := r.URL.Query()
	key := api.Key{Namespace: q.Get("namespace"), Name: q.Get("name")}
	options := []byte(q.Get("options"))
	switch r.URL.Path {
	case "/logs":
		logs(w, r, agent, key, options)
	case "/exec":
		opts := &corev1.PodExecOptions{}
		stream(w, r, agent, json.Unmarshal(options, opts), func() (*url.URL, error) { return agent.ExecURL(r.Context(), key, opts) })
	case "/attach":
		opts := &corev1.PodAttachOptions{}
		stream(w, r, agent, json.Unmarshal(options, opts), func() (*url.URL, error) { return agent.AttachURL(r.Context(), key, opts) })
	case "/portforward":
		opts := &corev1.PodPortForwardOptions{}
		stream(w, r, agent, json.Unmarshal(options, opts), func() (*url.URL, error) { return agent.PortForwardURL(r.Context(), key, opts) })
	default:
		http.NotFound(w, r)
	}
}

func logs(w http.ResponseWriter, r *http.Request, agent Agent, key api.Key, options []byte) {
	opts := &corev1.PodLogOptions{}
	if err := json.Unmarshal(options, opts); err != nil {
		writeError(w, err)
		return
	}
	out := &flushed{w: w, flush: http.NewResponseController(w).Flush}
	err := agent.Logs(r.Context(), key, opts, out)
	switch {
	case err != nil && !out.begun:
		writeError(w, err)
	case err != nil:
		panic(http.ErrAbortHandler) // the server must see that this is not the end of the log
	}
}

// flushed sends what is written at once.
type flushed struct {
	w     io.Writer
	flush func() error
	begun bool
}

func (f *flushed) Write(b []byte) (int, error) {
	f.begun = true
	n, err := f.w.Write(b)
	if err == nil {
		err = f.flush()
	}
	return n, err
}

// stream connects the server with where the runtime serves a stream.
func stream(w http.ResponseWriter, r *http.Request, agent Agent, err error, prepare func() (*url.URL, error)) {
	var u *url.URL
	var conn net.Conn
	if err == nil {
		u, err = prepare()
	}
	if err == nil {
		if conn, err = agent.DialStream(r.Context(), u); err != nil {
			err = fmt.Errorf("connecting to the runtime: %w", err)
		}
	}
	if err != nil {
		writeError(w, err)
		return
	}
	defer conn.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = conn.Close() })
	defer stop()
	out := &flushed{w: w, flush: http.NewResponseController(w).Flush}
	w.Header().Set(pathHeader, u.RequestURI())
	w.WriteHeader(http.StatusOK)
	if out.flush() != nil {
		return
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		_, _ = io.Copy(conn, r.Body) // ends when either side does; the other direction tells which
		_ = conn.Close()
	}()
	_, _ = io.Copy(out, conn)
	_, _ = conn.Close(), r.Body.Close()
	<-sent
}
