package e2e

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// step is one line of a session with kubectl. line begins with ! if kubectl must fail. want is what it prints, in part: white
// space counts as one blank, and … stands for anything.
type step struct{ stdin, line, want string }

// session runs kubectl lines in a namespace, one after another; a step that goes wrong is reported and the session goes on.
func session(t *testing.T, namespace string, steps []step) {
	t.Helper()
	for _, s := range steps {
		line, fails := strings.CutPrefix(s.line, "!")
		began := time.Now()
		out, err := runBoth(s.stdin, append([]string{"-n", namespace}, words(line)...)...)
		if took := time.Since(began); took > 5*time.Second {
			t.Logf("kubectl %s took %v", line, took.Round(time.Second/10))
		}
		switch {
		case fails && err == nil:
			t.Errorf("kubectl %s\nshould have failed, but printed:\n%s", line, out)
		case !fails && err != nil:
			t.Errorf("kubectl %s\n%v\n%s", line, err, out)
		case !shows(out, s.want):
			t.Errorf("kubectl %s\nwant: %s\ngot:\n%s", line, s.want, out)
		}
	}
}

// shows reports whether the parts of want, which … separates, stand in out in this order.
func shows(out, want string) bool {
	out = strings.Join(strings.Fields(out), " ")
	for _, part := range strings.Split(want, "…") {
		part = strings.Join(strings.Fields(part), " ")
		i := strings.Index(out, part)
		if i < 0 {
			return false
		}
		out = out[i+len(part):]
	}
	return true
}

// words splits a line as a shell does, with single quotes.
func words(line string) []string {
	var out []string
	var word strings.Builder
	quoted, begun := false, false
	for _, c := range line + " " {
		switch {
		case c == '\'':
			quoted, begun = !quoted, true
		case c == ' ' && !quoted:
			if begun {
				out = append(out, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(c)
			begun = true
		}
	}
	return out
}

// runBoth is run, with everything that kubectl prints in one text.
func runBoth(stdin string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := command(ctx, args...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// command is kubectl with args for the cluster of the tests.
func command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, cluster.bin, append([]string{"kubectl", "--kubeconfig", filepath.Join(cluster.dataDir, "kubeconfig")}, args...)...)
}

// running is a kubectl that runs beside the test; its output can be read at any time.
type running struct {
	cmd  *exec.Cmd
	done chan error
	mu   sync.Mutex
	out  bytes.Buffer
}

func (r *running) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.Write(p)
}

func (r *running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.out.String()
}

// start runs kubectl beside the test, until it ends or the test does.
func start(t testing.TB, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{cmd: command(ctx, args...), done: make(chan error, 1)}
	r.cmd.Stdout, r.cmd.Stderr = r, r
	if err := r.cmd.Start(); err != nil {
		cancel()
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { r.done <- r.cmd.Wait(); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return r
}

// waitFor waits until the output shows want.
func (r *running) waitFor(t testing.TB, timeout time.Duration, want string) {
	t.Helper()
	eventually(t, timeout, fmt.Sprintf("%q in what kubectl %s prints", want, strings.Join(r.cmd.Args[4:], " ")), func() error {
		if out := r.String(); !shows(out, want) {
			return fmt.Errorf("it printed:\n%s", out)
		}
		return nil
	})
}

// wait waits until it ends by itself.
func (r *running) wait(t testing.TB, timeout time.Duration) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(timeout):
		t.Fatalf("kubectl %s: still running after %v, printed:\n%s", strings.Join(r.cmd.Args[4:], " "), timeout, r)
		return nil
	}
}

// editor writes a shell script that edits the file in its first argument, for kubectl edit.
func editor(t testing.TB, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "editor")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}
