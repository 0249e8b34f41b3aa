package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// server is a knarr server process that runs.
type server struct {
	dataDir string
	config  *rest.Config
	http    *http.Client
	ready   time.Duration // from the start of the process to a ready API

	cmd  *exec.Cmd
	done chan error
}

const (
	startTimeout = 60 * time.Second
	stopTimeout  = 30 * time.Second
)

// startServer runs a server in dataDir and waits until its API is ready. args come after the common ones.
func (b *bench) startServer(ctx context.Context, dataDir string, args ...string) (*server, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dataDir, 0o755); err != nil {
		return nil, err
	}
	log, err := os.OpenFile(filepath.Join(dataDir, "knarr.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s := &server{dataDir: dataDir, done: make(chan error, 1)}
	s.cmd = exec.Command(b.knarr, append([]string{"server", "--data-dir", dataDir, "--listen", fmt.Sprintf("127.0.0.1:%d", port), "--log-level", "warn"}, args...)...)
	s.cmd.Stdout, s.cmd.Stderr = log, log
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // an interrupt ends the bench, which ends the server
	began := time.Now()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	go func() { s.done <- s.cmd.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for {
		if err = s.connect(ctx); err == nil {
			s.ready = time.Since(began)
			return s, nil
		}
		select {
		case died := <-s.done:
			return nil, fmt.Errorf("knarr server ended: %v\n%s", died, s.logTail())
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("knarr server was not ready in time: %w\n%s", err, s.logTail()), s.stop())
		case <-time.After(2 * time.Millisecond):
		}
	}
}

// connect asks the API whether it is ready. The kubeconfig is there, for this start, once it is about to be.
func (s *server) connect(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(s.dataDir, "kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = -1, -1 // no limits of the client's own
	if s.config == nil || s.config.Host != config.Host {
		if s.http, err = rest.HTTPClientFor(config); err != nil {
			return err
		}
		s.config = config
	}
	body, err := s.get(ctx, "/readyz", "")
	if err == nil && string(body) != "ok" {
		err = fmt.Errorf("/readyz says %q", body)
	}
	return err
}

// get reads a path of the API. accept is the content type to ask for, if not the default.
func (s *server) get(ctx context.Context, path, accept string) ([]byte, error) {
	resp, err := s.open(ctx, path, accept)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// open begins to read a path of the API.
func (s *server) open(ctx context.Context, path, accept string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.config.Host+path, nil)
	if err != nil {
		return nil, err
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // for the message only
		return nil, fmt.Errorf("GET %s: %s: %s", path, resp.Status, text)
	}
	return resp, nil
}

// stop ends the process and waits for it.
func (s *server) stop() error {
	if s.http != nil {
		s.http.CloseIdleConnections()
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.done:
		return nil
	case <-time.After(stopTimeout):
		_ = s.cmd.Process.Kill() // it may have ended just now
		<-s.done
		return fmt.Errorf("knarr server did not end within %v and was killed", stopTimeout)
	}
}

func (s *server) logTail() string {
	b, err := os.ReadFile(filepath.Join(s.dataDir, "knarr.log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-10):], []byte("\n")))
}

// memory returns a figure of /proc/PID/status in MB: VmRSS, or VmHWM for the highest it was.
func (s *server) memory(name string) (float64, error) { return processMemory(s.cmd.Process.Pid, name) }

func processMemory(pid int, name string) (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb * 1024 / 1e6, err
		}
	}
	return 0, fmt.Errorf("/proc/%d/status has no %s", pid, name)
}

// cpu returns the processor time that the process has used.
func (s *server) cpu() (time.Duration, error) { return processCPU(s.cmd.Process.Pid) }

func processCPU(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ") // the name before may hold spaces
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat cannot be read: %q", pid, b)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
	return time.Duration(user+system) * tick, errors.Join(err1, err2)
}

// freePort returns a port of the loopback address that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// profiles writes a CPU profile of the next d, and then a heap profile, as NAME.cpu and NAME.heap where -profile says. The returned
// function waits for them.
func (b *bench) profiles(ctx context.Context, s *server, name string, d time.Duration) (wait func()) {
	if b.profile == "" {
		return func() {}
	}
	done := make(chan error, 1)
	go func() {
		if err := os.MkdirAll(b.profile, 0o755); err != nil {
			done <- err
			return
		}
		for _, p := range []struct{ path, file string }{
			{fmt.Sprintf("/debug/pprof/profile?seconds=%d", int(d.Seconds())), name + ".cpu"},
			{"/debug/pprof/heap?gc=1", name + ".heap"},
		} {
			body, err := s.get(ctx, p.path, "")
			if err == nil {
				err = os.WriteFile(filepath.Join(b.profile, p.file), body, 0o644)
			}
			if err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return func() {
		if err := <-done; err != nil {
			fmt.Println("  no profile:", err)
		}
	}
}
