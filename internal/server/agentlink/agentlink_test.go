package agentlink

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

// fake is a node with one pod, whose streams echo lines.
type fake struct{ followed chan struct{} }

func (f fake) Logs(ctx context.Context, key api.Key, opts *corev1.PodLogOptions, w io.Writer) error {
	if key.Name != "pod" {
		return apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	if _, err := fmt.Fprintf(w, "log of %s\n", opts.Container); err != nil {
		return err
	}
	if opts.Follow {
		close(f.followed)
		<-ctx.Done()
		return ctx.Err()
	}
	if opts.Previous {
		return errors.New("the disk broke")
	}
	return nil
}

func (f fake) ExecURL(_ context.Context, key api.Key, opts *corev1.PodExecOptions) (*url.URL, error) {
	if key.Name != "pod" {
		return nil, apierrors.NewNotFound(api.Pods.GroupResource(), key.Name)
	}
	return url.Parse("http://runtime/exec/" + strings.Join(opts.Command, "-"))
}
func (f fake) AttachURL(context.Context, api.Key, *corev1.PodAttachOptions) (*url.URL, error) {
	return nil, errors.New("not now")
}
func (f fake) PortForwardURL(context.Context, api.Key, *corev1.PodPortForwardOptions) (*url.URL, error) {
	return url.Parse("http://nowhere/")
}

func (fake) DialStream(_ context.Context, u *url.URL) (net.Conn, error) {
	if u.Host != "runtime" {
		return nil, errors.New("nobody listens")
	}
	mine, theirs := net.Pipe()
	go func() {
		_, _ = io.Copy(mine, mine) // until either side is closed
		_ = mine.Close()
	}()
	return theirs, nil
}

// connect returns a node whose agent is connected.
func connect(t *testing.T) (*Hub, fake) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	hub := NewHub(log)
	up := make(chan struct{})
	var once sync.Once
	ts := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := hub.Accept(w, r, "n"); err != nil {
			t.Errorf("an agent was refused: %v", err)
		}
	}))
	ctx, cancel := context.WithCancel(t.Context())
	ts.Config.BaseContext = func(net.Listener) context.Context { return ctx }
	ts.EnableHTTP2 = true
	ts.StartTLS()
	f := fake{make(chan struct{})}
	conf := ts.Client().Transport.(*http.Transport).TLSClientConfig
	var wg sync.WaitGroup
	wg.Go(func() {
		err := RunAgent(ctx, AgentConfig{Servers: func() ([]string, <-chan struct{}) { return []string{ts.URL}, nil }, TLS: func() *tls.Config { once.Do(func() { close(up) }); return conf }, Agent: func() Agent { return f }, Log: log})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait(); ts.Close() })
	<-up
	for {
		if _, err := hub.Node("n"); err == nil {
			return hub, f
		}
	}
}

func TestLogs(t *testing.T) {
	hub, f := connect(t)
	n, err := hub.Node("n")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := n.Logs(t.Context(), api.Key{Name: "pod"}, &corev1.PodLogOptions{Container: "c"}, &out); err != nil || out.String() != "log of c\n" {
		t.Errorf("%v %q", err, out.String())
	}
	if err := n.Logs(t.Context(), api.Key{Name: "other"}, &corev1.PodLogOptions{}, &out); !apierrors.IsNotFound(err) {
		t.Errorf("an unknown pod: %v", err)
	}
	out.Reset()
	if err := n.Logs(t.Context(), api.Key{Name: "pod"}, &corev1.PodLogOptions{Previous: true}, &out); err == nil || out.String() != "log of \n" {
		t.Errorf("a log that breaks off: %v %q", err, out.String())
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-f.followed; cancel() }()
	if err := n.Logs(ctx, api.Key{Name: "pod"}, &corev1.PodLogOptions{Follow: true}, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("a followed log: %v", err)
	}
	if _, err := hub.Node("m"); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a node that is not connected: %v", err)
	}
}

func TestStreams(t *testing.T) {
	hub, _ := connect(t)
	n, err := hub.Node("n")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	u, err := n.ExecURL(ctx, api.Key{Name: "pod"}, &corev1.PodExecOptions{Command: []string{"a", "b"}})
	if err != nil || u.Path != "/exec/a-b" {
		t.Fatal(err, u)
	}
	conn, err := n.DialStream(ctx, u)
	if err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for i := range 3 {
		line := fmt.Sprintf("line %d %s\n", i, strings.Repeat("x", 100_000))
		go func() { _, _ = io.WriteString(conn, line) }()
		if got, err := r.ReadString('\n'); err != nil || got != line {
			t.Fatalf("echo: %v, %d bytes", err, len(got))
		}
	}
	if _, err := n.DialStream(ctx, u); err == nil {
		t.Error("a stream was given twice")
	}
	_ = conn.Close()
	if _, err := n.ExecURL(ctx, api.Key{Name: "other"}, &corev1.PodExecOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("an unknown pod: %v", err)
	}
	if _, err := n.AttachURL(ctx, api.Key{Name: "pod"}, &corev1.PodAttachOptions{}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "not now") {
		t.Errorf("what the agent says: %v", err)
	}
	if _, err := n.PortForwardURL(ctx, api.Key{Name: "pod"}, &corev1.PodPortForwardOptions{}); err == nil || !strings.Contains(err.Error(), "nobody listens") {
		t.Errorf("a runtime that is away: %v", err)
	}
}
