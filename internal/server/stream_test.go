package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming"
	criremote "k8s.io/cri-streaming/pkg/streaming/remotecommand"
	utilexec "k8s.io/utils/exec"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/stream"
)

// echo is a runtime whose commands upper-case their input, and whose ports answer with what they get.
type echo struct{}

func (echo) Exec(_ context.Context, container string, cmd []string, in io.Reader, out, errw io.WriteCloser, tty bool, resize <-chan criremote.TerminalSize) error {
	switch cmd[0] {
	case "fail":
		return utilexec.CodeExitError{Err: errors.New("failed"), Code: 42}
	case "size":
		s := <-resize
		_, err := fmt.Fprintf(out, "%dx%d", s.Width, s.Height)
		return err
	}
	if in == nil {
		in = strings.NewReader("")
	}
	b, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(out, "%s %s %s", container, strings.Join(cmd, " "), bytes.ToUpper(b)); err != nil {
		return err
	}
	if errw != nil {
		_, err = errw.Write([]byte("and an error"))
	}
	return err
}

func (e echo) Attach(ctx context.Context, container string, in io.Reader, out, errw io.WriteCloser, tty bool, resize <-chan criremote.TerminalSize) error {
	return e.Exec(ctx, container, []string{"attach"}, in, out, errw, tty, resize)
}

func (echo) PortForward(_ context.Context, _ string, port int32, stream io.ReadWriteCloser) error {
	b := make([]byte, 5)
	if _, err := io.ReadFull(stream, b); err != nil {
		return err
	}
	_, err := fmt.Fprintf(stream, "%d says %s", port, b)
	return err
}

// node is an agent whose runtime is echo.
type node struct {
	streaming   streaming.Server
	certificate *x509.Certificate
}

func (n node) DialStream(ctx context.Context, u *url.URL) (net.Conn, error) {
	return stream.Dial(ctx, u, n.certificate)
}

func (n node) Logs(_ context.Context, _ api.Key, opts *corev1.PodLogOptions, w io.Writer) error {
	if opts.Previous {
		return errors.New(`previous terminated container "c" in pod "a" not found`)
	}
	_, err := io.WriteString(w, "one\ntwo\n")
	return err
}

func (n node) ExecURL(_ context.Context, key api.Key, o *corev1.PodExecOptions) (*url.URL, error) {
	r, err := n.streaming.GetExec(&cri.ExecRequest{ContainerId: key.Name + "/" + o.Container, Cmd: o.Command, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY})
	if err != nil {
		return nil, err
	}
	return url.Parse(r.Url)
}

func (n node) AttachURL(_ context.Context, key api.Key, o *corev1.PodAttachOptions) (*url.URL, error) {
	r, err := n.streaming.GetAttach(&cri.AttachRequest{ContainerId: key.Name + "/" + o.Container, Stdin: o.Stdin, Stdout: o.Stdout, Stderr: o.Stderr, Tty: o.TTY})
	if err != nil {
		return nil, err
	}
	return url.Parse(r.Url)
}

func (n node) PortForwardURL(_ context.Context, key api.Key, _ *corev1.PodPortForwardOptions) (*url.URL, error) {
	r, err := n.streaming.GetPortForward(&cri.PortForwardRequest{PodSandboxId: key.Name})
	if err != nil {
		return nil, err
	}
	return url.Parse(r.Url)
}

// startWithNode starts a server, over TLS and HTTP/2, with one running pod "a" on a node whose runtime is the CRI's own streaming
// server, with a certificate that the node vouches for.
func startWithNode(t *testing.T) *fixture {
	t.Helper()
	pair := selfSigned(t)
	return startWithRuntime(t, &pair, pair.Leaf)
}

// startWithRuntime is startWithNode with the certificate that the runtime serves with, or none for plain HTTP, and the one that the
// node vouches for.
func startWithRuntime(t *testing.T, serves *tls.Certificate, vouched *x509.Certificate) *fixture {
	t.Helper()
	var handler http.Handler
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { handler.ServeHTTP(w, r) }))
	h.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	if serves != nil {
		h.TLS = &tls.Config{Certificates: []tls.Certificate{*serves}}
		h.StartTLS()
	} else {
		h.Start()
	}
	t.Cleanup(h.Close)
	cfg := streaming.DefaultConfig
	base, err := url.Parse(h.URL)
	if err != nil {
		t.Fatal(err)
	}
	cfg.BaseURL = base
	srv, err := streaming.NewServer(cfg, echo{})
	if err != nil {
		t.Fatal(err)
	}
	handler = srv
	f := start(t, func(c *server.Config) {
		c.Streams = func(_ context.Context, name string) (server.Streams, error) {
			if name != "n1" {
				return nil, errors.New("no such node")
			}
			return node{srv, vouched}, nil
		}
	}).overTLS()
	f.must("POST", "/api/v1/namespaces/default/pods", strings.Replace(pod, `"spec":{`, `"spec":{"nodeName":"n1",`, 1))
	return f
}

// selfSigned makes a certificate for 127.0.0.1 as the node's runtime has it.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// TestStreamsTrust: who else can serve at the address that the runtime gave must not get at what a user types.
func TestStreamsTrust(t *testing.T) {
	ours, other := selfSigned(t), selfSigned(t)
	for _, test := range []struct {
		name    string
		serves  *tls.Certificate
		vouched *x509.Certificate
		want    string
	}{
		{"the certificate", &ours, ours.Leaf, ""},
		{"another certificate", &other, ours.Leaf, "certificate signed by unknown authority"},
		{"nobody vouches", &ours, nil, "certificate signed by unknown authority"},
		{"plain although there is a certificate", nil, ours.Leaf, `scheme "http", want https`},
		{"plain on the loopback address", nil, nil, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := startWithRuntime(t, test.serves, test.vouched)
			u, err := url.Parse(f.url + "/api/v1/namespaces/default/pods/a/exec?command=say&stdout=true")
			if err != nil {
				t.Fatal(err)
			}
			for name, e := range executors(t, f, u) {
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				var out bytes.Buffer
				err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out})
				cancel()
				switch {
				case test.want == "" && (err != nil || out.String() != "a/c say "):
					t.Errorf("%s: %q, %v", name, out.String(), err)
				case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
					t.Errorf("%s: error %v, want %q", name, err, test.want)
				}
			}
		})
	}
}

// executors are the ways in which clients exec: WebSocket v5, and SPDY as older ones do.
func executors(t *testing.T, f *fixture, u *url.URL) map[string]remotecommand.Executor {
	t.Helper()
	ws, err := remotecommand.NewWebSocketExecutor(f.config(), "GET", u.String())
	if err != nil {
		t.Fatal(err)
	}
	sp, err := remotecommand.NewSPDYExecutor(f.config(), "POST", u)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]remotecommand.Executor{"websocket": ws, "spdy": sp}
}

func TestExec(t *testing.T) {
	f := startWithNode(t)
	core, err := typedcorev1.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	request := func(o *corev1.PodExecOptions) *url.URL {
		return core.RESTClient().Post().Resource("pods").Namespace("default").Name("a").SubResource("exec").VersionedParams(o, scheme.ParameterCodec).URL()
	}
	long := strings.Repeat("long ", 100_000)
	u := request(&corev1.PodExecOptions{Command: []string{"say", "a b"}, Stdin: true, Stdout: true, Stderr: true})
	for name, e := range executors(t, f, u) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			var out, errs bytes.Buffer
			if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: strings.NewReader(long), Stdout: &out, Stderr: &errs}); err != nil {
				t.Fatal(err)
			}
			if want := "a/c say a b " + strings.ToUpper(long); out.String() != want || errs.String() != "and an error" {
				t.Errorf("got %d bytes %.40q and %q, want %d", out.Len(), out.String(), errs.String(), len(want))
			}
		})
	}
	for name, e := range executors(t, f, request(&corev1.PodExecOptions{Command: []string{"fail"}, Stdout: true})) {
		t.Run("exit code by "+name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: io.Discard})
			var code interface{ ExitStatus() int }
			if !errors.As(err, &code) || code.ExitStatus() != 42 {
				t.Errorf("got %v, want exit code 42", err)
			}
		})
	}
	for name, e := range executors(t, f, request(&corev1.PodExecOptions{Command: []string{"size"}, Stdin: true, Stdout: true, TTY: true})) {
		t.Run("terminal by "+name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			var out bytes.Buffer
			stdin, closeStdin := io.Pipe()
			defer closeStdin.Close()
			err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: stdin, Stdout: &out, Tty: true, TerminalSizeQueue: &once{remotecommand.TerminalSize{Width: 80, Height: 24}, false}})
			if err != nil || out.String() != "80x24" {
				t.Errorf("got %q, %v", out.String(), err)
			}
		})
	}
}

// once is a terminal that never changes.
type once struct {
	size remotecommand.TerminalSize
	told bool
}

func (o *once) Next() *remotecommand.TerminalSize {
	if o.told {
		return nil
	}
	o.told = true
	return &o.size
}

func TestPortForward(t *testing.T) {
	f := startWithNode(t)
	u, err := url.Parse(f.url + "/api/v1/namespaces/default/pods/a/portforward")
	if err != nil {
		t.Fatal(err)
	}
	tunnel, err := portforward.NewSPDYOverWebsocketDialer(u, f.config())
	if err != nil {
		t.Fatal(err)
	}
	rt, upgrader, err := spdy.RoundTripperFor(f.config())
	if err != nil {
		t.Fatal(err)
	}
	plain := spdy.NewDialer(upgrader, &http.Client{Transport: rt}, "POST", u)
	type forwarder func(stop, ready chan struct{}) (*portforward.PortForwarder, error)
	for name, forward := range map[string]forwarder{
		"tunnel": func(stop, ready chan struct{}) (*portforward.PortForwarder, error) {
			return portforward.New(tunnel, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		},
		"spdy": func(stop, ready chan struct{}) (*portforward.PortForwarder, error) {
			return portforward.New(plain, []string{"0:8080"}, stop, ready, io.Discard, io.Discard)
		},
	} {
		t.Run(name, func(t *testing.T) {
			stop, ready := make(chan struct{}), make(chan struct{})
			pf, err := forward(stop, ready)
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan error, 1)
			go func() { done <- pf.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-done:
				t.Fatal(err)
			}
			ports, err := pf.GetPorts()
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if got := talk(t, fmt.Sprintf("127.0.0.1:%d", ports[0].Local), "hello"); got != "8080 says hello" {
					t.Errorf("got %q", got)
				}
			}
			close(stop)
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

func TestLogs(t *testing.T) {
	f := startWithNode(t)
	path := "/api/v1/namespaces/default/pods/a/log"
	a := f.must("GET", path, "")
	if a.Body != "one\ntwo\n" || a.Header.Get("Content-Type") != "text/plain" {
		t.Errorf("%q %q", a.Body, a.Header)
	}
	for query, want := range map[string]string{
		"?previous=true":    `previous terminated container "c" in pod "a" not found`,
		"?container=frog":   "container frog is not valid for pod a",
		"?tailLines=-1":     "tailLines: Invalid value: -1: must be greater than or equal to 0",
		"?sinceSeconds=0":   "sinceSeconds: Invalid value",
		"?sinceSeconds=zzz": "",
	} {
		a := f.do("GET", path+query, "")
		if _, m := a.status(t); a.Code/100 != 4 || !strings.Contains(m, want) {
			t.Errorf("%s: %d %s", query, a.Code, m)
		}
	}
	a = f.do("POST", "/api/v1/namespaces/default/pods/a/exec?command=ls&stdout=true", "")
	if _, m := a.status(t); a.Code != 400 || m != "Upgrade request required" {
		t.Errorf("exec without an upgrade: %d %s", a.Code, m)
	}
}

// talk sends say over a new connection to addr and returns the answer.
func talk(t *testing.T, addr, say string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, say); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
