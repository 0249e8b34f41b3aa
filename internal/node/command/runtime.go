package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

const (
	// namespace is the containerd namespace in which CRI has its containers.
	namespace = "k8s.io"
	// host is that of the URLs of streams served here. It is no address: Dial connects within the process.
	host = "command.knarr.invalid"
	// maxOutput is how much of a command's output ExecSync keeps, in bytes, of each stream; containerd's CRI keeps as much.
	maxOutput = 16 << 20
)

// Runtime is the runtime that comes with Knarr: containerd by CRI, except for running commands.
type Runtime struct {
	runtime.Runtime
	client *client.Client
	fifos  string
	log    *slog.Logger

	streaming streaming.Server
	server    *http.Server
	accept    chan net.Conn
	closed    chan struct{}
	ending    sync.WaitGroup // clean-ups and the server
}

// Open returns a Runtime over rt, whose containerd listens at socket. fifos is a directory of its own for the FIFOs of commands. Close it.
func Open(rt runtime.Runtime, socket, fifos string, log *slog.Logger) (*Runtime, error) {
	if err := clean(fifos); err != nil {
		return nil, fmt.Errorf("preparing the FIFOs of commands: %w", err)
	}
	c, err := client.New(socket, client.WithDefaultNamespace(namespace), client.WithTimeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connecting to containerd at %s: %w", socket, err)
	}
	r := &Runtime{Runtime: rt, client: c, fifos: fifos, log: log, accept: make(chan net.Conn), closed: make(chan struct{})}
	config := streaming.DefaultConfig
	config.Addr = host
	config.BaseURL = &url.URL{Scheme: "http", Host: host}
	if r.streaming, err = streaming.NewServer(config, commands{r}); err != nil {
		return nil, fmt.Errorf("preparing the streams of commands: %w", err)
	}
	r.server = &http.Server{Handler: r.streaming, ReadHeaderTimeout: time.Minute}
	r.ending.Go(func() { _ = r.server.Serve(listener{r}) })
	return r, nil
}

// Close ends the streams and waits until no command is left in containerd that has ended.
func (r *Runtime) Close() error {
	close(r.closed)
	err := r.server.Close()
	r.ending.Wait()
	if e := r.client.Close(); err == nil {
		err = e
	}
	return err
}

// ExecSync implements runtime.Containers.
func (r *Runtime) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (*runtime.ExecResult, error) {
	if _, err := r.ContainerStatus(ctx, containerID); err != nil {
		return nil, err // IsNotFound, as callers know it
	}
	var stdout, stderr capped
	code, err := r.run(ctx, request{container: containerID, args: cmd, stdout: &stdout, stderr: &stderr, timeout: timeout})
	if err != nil {
		return nil, err
	}
	return &runtime.ExecResult{Stdout: stdout.bytes(), Stderr: stderr.bytes(), ExitCode: int32(code)}, nil
}

// Exec implements runtime.Streams: the URL is for Dial.
func (r *Runtime) Exec(_ context.Context, request *cri.ExecRequest) (string, error) {
	resp, err := r.streaming.GetExec(request)
	return resp.GetUrl(), err
}

// Serves reports whether u is the URL of a stream that is served here.
func (*Runtime) Serves(u *url.URL) bool { return u.Host == host }

// Dial connects to the server of the URLs for which Serves reports true.
func (r *Runtime) Dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case r.accept <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-r.closed:
		return nil, net.ErrClosed
	}
}

// listener hands the server the connections that Dial makes.
type listener struct{ r *Runtime }

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.r.accept:
		return c, nil
	case <-l.r.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (listener) Close() error { return nil }

// Addr implements net.Listener.
func (listener) Addr() net.Addr { return &net.UnixAddr{Net: "pipe", Name: host} }

// commands are what the streaming server calls.
type commands struct{ r *Runtime }

// exitError is a command's code other than zero, as the streaming server asks for it.
type exitError uint32

func (e exitError) Error() string {
	return fmt.Sprintf("command terminated with exit code %d", uint32(e))
}
func (e exitError) String() string  { return e.Error() }
func (e exitError) Exited() bool    { return true }
func (e exitError) ExitStatus() int { return int(e) }

// Exec implements streaming.Runtime.
func (c commands) Exec(ctx context.Context, id string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	req := request{container: id, args: cmd, tty: tty, resize: resize}
	if in != nil {
		req.stdin = in
	}
	if out != nil {
		req.stdout = out
		defer out.Close()
	}
	if err != nil {
		req.stderr = err
		defer err.Close()
	}
	code, failed := c.r.run(ctx, req)
	if failed == nil && code != 0 {
		failed = exitError(code)
	}
	return failed
}

// Attach implements streaming.Runtime; CRI gives the URLs for it.
func (commands) Attach(context.Context, string, io.Reader, io.WriteCloser, io.WriteCloser, bool, <-chan remotecommand.TerminalSize) error {
	return fmt.Errorf("attaching is the runtime's")
}

// PortForward implements streaming.Runtime; CRI gives the URLs for it.
func (commands) PortForward(context.Context, string, int32, io.ReadWriteCloser) error {
	return fmt.Errorf("port-forwarding is the runtime's")
}

// capped keeps the first maxOutput bytes. What comes after the reader has looked is thrown away.
type capped struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements io.Writer.
func (c *capped) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if room := maxOutput - c.buf.Len(); room > 0 {
		c.buf.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

func (c *capped) bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.buf.Bytes())
}
