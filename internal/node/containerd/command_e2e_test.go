package containerd

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/command"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/server/stream"
)

// commands starts containerd with one running container and returns what runs commands in it.
func commands(t *testing.T) (r *command.Runtime, container string) {
	t.Helper()
	s, _ := supervise(t, e2eOptions(t))
	importTestImage(t, s)
	c := dial(t, s)
	_, container = startPod(t, s, c)
	r, err := command.Open(c, s.Endpoint(), filepath.Join(s.options.DataDir, "commands"), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r, container
}

// streamed runs a command over a stream, as kubectl exec does, and returns its code.
func streamed(t *testing.T, r *command.Runtime, container, script string, in io.Reader, out io.Writer) (code int) {
	t.Helper()
	address, err := r.Exec(t.Context(), &cri.ExecRequest{ContainerId: container, Cmd: []string{"/bin/sh", "-c", script}, Stdin: in != nil, Stdout: true, Stderr: true})
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(address)
	if err != nil || !r.Serves(u) {
		t.Fatalf("URL %q, %v", address, err)
	}
	// The executor dials by itself: a proxy stands where the API server is.
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r2 *http.Request) {
		to := *r2.URL
		to.Scheme, to.Host = u.Scheme, u.Host
		if err := stream.Relay(w, r2, stream.Target{URL: &to, Dial: r.Dial}); err != nil {
			t.Log(err)
		}
	}))
	defer proxy.Close()
	at, err := url.Parse(proxy.URL + u.Path)
	if err != nil {
		t.Fatal(err)
	}
	executor, err := remotecommand.NewSPDYExecutor(&rest.Config{}, "POST", at)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: io.Discard}) // two writers of one buffer would race
	var ended interface{ ExitStatus() int }
	switch {
	case err == nil:
		return 0
	case errors.As(err, &ended):
		return ended.ExitStatus()
	}
	t.Errorf("%s: %v", script, err)
	return -1
}

// What a command leaves behind may hold its output: the code is the command's all the same, at once.
func TestCodeOfACommandThatLeavesSomethingBehind(t *testing.T) {
	r, container := commands(t)
	const script = "echo out; sleep 60 & exit 4"
	began := time.Now()
	res, err := r.ExecSync(t.Context(), container, []string{"/bin/sh", "-c", script}, time.Minute)
	if err != nil || res.ExitCode != 4 || string(res.Stdout) != "out\n" {
		t.Errorf("ExecSync: %v %+v, want code 4 and out", err, res)
	}
	var out bytes.Buffer
	if code := streamed(t, r, container, script, nil, &out); code != 4 || out.String() != "out\n" {
		t.Errorf("exec: code %d, %q, want 4 and out", code, &out)
	}
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("the two took %v", d)
	}
}

// A command need not read all that it is given to keep its code.
func TestCodeOfACommandThatDoesNotReadItsInput(t *testing.T) {
	r, container := commands(t)
	var out bytes.Buffer
	if code := streamed(t, r, container, "exit 3", io.LimitReader(rand.Reader, 8<<20), &out); code != 3 {
		t.Errorf("code %d, want 3", code)
	}
}

// A command may close its output and go on reading: nothing of its input is lost.
func TestInputOutlivesOutput(t *testing.T) {
	r, container := commands(t)
	var out bytes.Buffer
	in := strings.Repeat("0123456789abcdef", 1<<16)
	if code := streamed(t, r, container, "exec >&- 2>&-; cat >/tmp/in; exit 5", strings.NewReader(in), &out); code != 5 {
		t.Errorf("code %d, want 5", code)
	}
	res, err := r.ExecSync(t.Context(), container, []string{"/bin/busybox", "wc", "-c", "/tmp/in"}, time.Minute)
	if err != nil || !strings.HasPrefix(string(res.Stdout), "1048576 ") {
		t.Errorf("%v %+v, want 1048576 bytes", err, res)
	}
}

func TestOutputOfACommandIsWhole(t *testing.T) {
	r, container := commands(t)
	var out bytes.Buffer
	if code := streamed(t, r, container, "busybox head -c 3000000 /dev/zero; exit 0", nil, &out); code != 0 || out.Len() != 3_000_000 {
		t.Errorf("code %d, %d bytes, want 0 and 3000000", code, out.Len())
	}
	if code := streamed(t, r, container, "cat", strings.NewReader("through"), &out); code != 0 || !strings.HasSuffix(out.String(), "through") {
		t.Errorf("code %d of cat", code)
	}
	if _, err := r.ExecSync(t.Context(), container, []string{"/bin/sleep", "30"}, time.Second); !runtime.IsDeadlineExceeded(err) {
		t.Errorf("a command that takes longer than it may: %v", err)
	}
	if _, err := r.ExecSync(t.Context(), "none", []string{"/bin/true"}, time.Second); !runtime.IsNotFound(err) {
		t.Errorf("a command in no container: %v", err)
	}
	if _, err := r.ExecSync(t.Context(), container, []string{"/no/such"}, time.Second); err == nil {
		t.Error("a command that is not there ran")
	}
}
