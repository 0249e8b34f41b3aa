package agentlink

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

// Hub is the server's end: it takes agents' connections, finds the one of a node, and tells which nodes have been lost.
type Hub struct {
	log *slog.Logger

	mu        sync.Mutex
	nodes     map[string]*presence
	followers []*func(node string)
}

// NewHub returns a Hub without connections.
func NewHub(log *slog.Logger) *Hub { return &Hub{log: log, nodes: map[string]*presence{}} }

// Handler answers requests for [Path] from agents, whose node nodeOf knows, and hands all others to next.
func (h *Hub) Handler(nodeOf func(*http.Request) (string, bool), next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != Path {
			next.ServeHTTP(w, r)
			return
		}
		node, ok := nodeOf(r)
		if !ok {
			writeError(w, apierrors.NewUnauthorized("this path is for agents, with a node's certificate"))
			return
		}
		if err := h.Accept(w, r, node); err != nil {
			writeError(w, err)
		}
	})
}

type link struct {
	node string
	conn *watchedConn
	h2   *http2.ClientConn
}

// watchedConn tells when the connection has ended, and why.
type watchedConn struct {
	net.Conn
	r    io.Reader
	once sync.Once
	done chan struct{}
	err  error // to be read once done is closed
}

func (c *watchedConn) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if err != nil {
		c.ended(err)
	}
	return n, err
}

func (c *watchedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if err != nil {
		c.ended(err)
	}
	return n, err
}

func (c *watchedConn) Close() error {
	c.ended(nil)
	return c.Conn.Close()
}

func (c *watchedConn) ended(err error) { c.once.Do(func() { c.err = err; close(c.done) }) }

// Accept takes over the connection of node's agent, and returns when it has ended. An error means that nothing has been answered
// yet.
func (h *Hub) Accept(w http.ResponseWriter, r *http.Request, node string) error {
	if !strings.EqualFold(r.Header.Get("Upgrade"), Protocol) || r.ProtoMajor != 1 {
		return apierrors.NewBadRequest("this path is for agents: HTTP/1.1 with Upgrade: " + Protocol)
	}
	raw, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	defer raw.Close()
	conn := &watchedConn{Conn: raw, r: rw.Reader, done: make(chan struct{})}
	l, err := h.begin(conn, rw.Writer, node)
	if err != nil {
		h.log.Warn("an agent's connection failed", "node", node, "err", err)
		return nil
	}
	if surplus := h.add(l); surplus != nil {
		_ = surplus.conn.Close() // its own Accept forgets it
	}
	select {
	case <-conn.done:
	case <-r.Context().Done():
		_ = conn.Close()
	}
	h.drop(l, time.Now())
	return nil
}

func (h *Hub) begin(conn *watchedConn, w *bufio.Writer, node string) (*link, error) {
	if err := keepAlive(conn.Conn); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(w, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", Protocol); err != nil {
		return nil, err
	}
	if err := w.Flush(); err != nil {
		return nil, err
	}
	transport := &http2.Transport{DisableCompression: true, ReadIdleTimeout: idle, PingTimeout: patience, AllowHTTP: true}
	h2, err := transport.NewClientConn(conn)
	if err != nil {
		return nil, err
	}
	return &link{node: node, conn: conn, h2: h2}, nil
}

// Node returns the way to a node's containers, if its agent is connected.
func (h *Hub) Node(name string) (*Node, error) {
	h.mu.Lock()
	var l *link
	if p := h.nodes[name]; p != nil && len(p.links) > 0 {
		l = p.links[len(p.links)-1]
	}
	h.mu.Unlock()
	if l == nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of node %q is not connected to this server", name))
	}
	return &Node{link: l, streams: map[string]net.Conn{}}, nil
}

// Node is the way to one node's containers for one request. It implements server.Streams and server.DialledStreams.
type Node struct {
	link    *link
	streams map[string]net.Conn // prepared, by URL
}

var _ Streams = (*Node)(nil)

// ask sends a request to the agent. body may be nil.
func (n *Node) ask(ctx context.Context, what string, key api.Key, opts any, body io.Reader) (*http.Response, error) {
	o, err := json.Marshal(opts)
	if err != nil {
		return nil, err
	}
	q := url.Values{"namespace": {key.Namespace}, "name": {key.Name}, "options": {string(o)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/"+what+"?"+q.Encode(), body)
	if err != nil {
		return nil, err
	}
	resp, err := n.link.h2.RoundTrip(req)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("the agent of node %q did not answer: %v", n.link.node, err))
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, readError(resp)
	}
	return resp, nil
}

// Logs copies a container's log to w.
func (n *Node) Logs(ctx context.Context, key api.Key, opts *corev1.PodLogOptions, w io.Writer) error {
	resp, err := n.ask(ctx, "logs", key, opts, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(w, resp.Body)
	return err
}

// prepare opens a stream and keeps it for DialStream.
func (n *Node) prepare(ctx context.Context, what string, key api.Key, opts any) (*url.URL, error) {
	fromServer, toAgent := io.Pipe()
	resp, err := n.ask(ctx, what, key, opts, fromServer)
	if err != nil {
		_ = toAgent.Close() // a pipe's Close never fails
		return nil, err
	}
	u, err := url.Parse("http://" + n.link.node + resp.Header.Get(pathHeader))
	if err != nil {
		_, _ = toAgent.Close(), resp.Body.Close()
		return nil, fmt.Errorf("the agent of node %q named no stream: %w", n.link.node, err)
	}
	conn := &streamConn{Reader: resp.Body, Writer: toAgent, close: func() error {
		_ = toAgent.Close()
		return resp.Body.Close()
	}}
	// A stream that is never dialled ends with its request.
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	n.streams[u.String()] = conn
	return u, nil
}

// ExecURL prepares a command in a container.
func (n *Node) ExecURL(ctx context.Context, key api.Key, opts *corev1.PodExecOptions) (*url.URL, error) {
	return n.prepare(ctx, "exec", key, opts)
}

// AttachURL prepares a connection with a container's process.
func (n *Node) AttachURL(ctx context.Context, key api.Key, opts *corev1.PodAttachOptions) (*url.URL, error) {
	return n.prepare(ctx, "attach", key, opts)
}

// PortForwardURL prepares connections to a pod's ports.
func (n *Node) PortForwardURL(ctx context.Context, key api.Key, opts *corev1.PodPortForwardOptions) (*url.URL, error) {
	return n.prepare(ctx, "portforward", key, opts)
}

// DialStream returns the connection that was prepared as u, once.
func (n *Node) DialStream(_ context.Context, u *url.URL) (net.Conn, error) {
	conn := n.streams[u.String()]
	if conn == nil {
		return nil, fmt.Errorf("no stream was prepared as %s", u)
	}
	delete(n.streams, u.String())
	return conn, nil
}
