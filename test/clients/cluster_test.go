package clients

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a Knarr server with hollow nodes.
type cluster struct {
	t          *testing.T
	kubeconfig string
	rest       *rest.Config
}

// start runs a server until the test ends.
func start(t *testing.T) *cluster {
	t.Helper()
	knarr, err := filepath.Abs("../../bin/knarr")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(knarr); err != nil {
		t.Skip("knarr has not been built: make build")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	c := &cluster{t: t, kubeconfig: filepath.Join(dir, "kubeconfig")}
	cmd := exec.Command(knarr, "server", "--no-agent", "--hollow-nodes", "2", "--node-ip", "192.0.2.1", "--data-dir", filepath.Join(dir, "data"), "--listen", address, "--write-kubeconfig", c.kubeconfig)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(30 * time.Second):
			_ = cmd.Process.Kill()
			<-ended
			t.Error("the server did not end")
		}
		if t.Failed() {
			t.Logf("the server's log:\n%s", log.Bytes())
		}
	})
	c.until("the API is ready", func() bool {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("the server ended: %v", err)
		default:
		}
		_, err := os.Stat(c.kubeconfig)
		return err == nil
	})
	if c.rest, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig); err != nil {
		t.Fatal(err)
	}
	return c
}

// until waits for a condition.
func (c *cluster) until(what string, is func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("not after a minute: %s", what)
		}
	}
}

// within is a context for one step.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}
