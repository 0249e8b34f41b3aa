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
	"time"

	"golang.org/x/net/http2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

// AgentConfig is what the agent's end works with.
type AgentConfig struct {
	// Server is the API's URL, https://HOST:PORT.
	Server string
	// TLS returns the configuration for a new connection; it has the node's certificate.
	TLS func() *tls.Config
	// Agent returns this node's agent; nil before it runs.
	Agent func() Agent
	Log   *slog.Logger
}

// Agent is the way to this node's containers; node.Agent is one.
type Agent interface {
	Streams
	// DialStream connects to one of the URLs of Streams.
	DialStream(ctx context.Context, u *url.URL) (net.Conn, error)
}

// retry bounds the pause between two attempts to connect.
const retryLeast, retryMost = 200 * time.Millisecond, 5 * time.Second

// RunAgent keeps a connection with the server until ctx ends.
func RunAgent(ctx context.Context, cfg AgentConfig) error {
	pause, told := retryLeast, false
	for ctx.Err() == nil {
		began := time.Now()
		connected, err := once(ctx, cfg)
		if ctx.Err() != nil {
			return nil
		}
		if connected && time.Since(began) > retryMost {
			pause = retryLeast
		}
		if connected || !told {
			cfg.Log.Warn("no connection for logs and exec, trying again", "server", cfg.Server, "err", err)
		}
		told = true
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
		}
		pause = min(2*pause, retryMost)
	}
	return nil
}

// once has one connection for its life.
func once(ctx context.Context, cfg AgentConfig) (connected bool, err error) {
	conn, r, err := dial(ctx, cfg)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	cfg.Log.Info("connected for logs and exec", "server", cfg.Server)
	h2 := &http2.Server{ReadIdleTimeout: idle, PingTimeout: patience, MaxConcurrentStreams: 1000}
	h2.ServeConn(&buffered{Conn: conn, r: r}, &http2.ServeConnOpts{Context: ctx, Handler: &handler{cfg}})
	return true, errors.New("the connection ended")
}

// buffered is a connection of which the first bytes have been read already.
type buffered struct {
	net.Conn
	r io.Reader
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func dial(ctx context.Context, cfg AgentConfig) (net.Conn, *bufio.Reader, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil {
		return nil, nil, err
	}
	conf := cfg.TLS().Clone()
	conf.NextProtos = []string{"http/1.1"}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
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
