package containerd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/version"

	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/pki"
)

const (
	// firstBackoff and maxBackoff bound the pause before the child is started again.
	firstBackoff = 100 * time.Millisecond
	maxBackoff   = 30 * time.Second
	// steady is how long a child has to live for its end not to count as another failure in a row.
	steady = time.Minute
	// answerTime is how long a child that an earlier Knarr left may take to answer before it is replaced.
	answerTime = 5 * time.Second
)

// Supervisor keeps one child running.
type Supervisor struct {
	options    Options
	config     string // the configuration file's content
	log        *slog.Logger
	now        func() time.Time
	checkEvery time.Duration // between two looks at the streaming server's certificate

	mu          sync.Mutex
	ready       bool
	changed     chan struct{} // closed and replaced when ready changes
	lastErr     error         // why the child is not ready
	certificate *x509.Certificate
}

// errCertificateDue is why a child is replaced that does well.
var errCertificateDue = errors.New("the certificate of its streaming server is to be renewed")

// New checks options and prepares a supervisor. Nothing on the machine is changed yet, except that it may try an overlay
// mount in the data directory.
func New(options Options) (*Supervisor, error) {
	if err := options.complete(); err != nil {
		return nil, err
	}
	m, err := observeMachine()
	if err != nil {
		return nil, err
	}
	content, err := config(&options, m)
	if err != nil {
		return nil, fmt.Errorf("containerd configuration: %w", err)
	}
	return &Supervisor{
		options:    options,
		config:     content,
		log:        options.Logger,
		now:        time.Now,
		checkEvery: streamCertificateCheck,
		changed:    make(chan struct{}),
		lastErr:    errNotRunning,
	}, nil
}

// Endpoint is the path of the runtime's socket, for runtime.NewCRI.
func (s *Supervisor) Endpoint() string { return s.options.Endpoint() }

// StreamCertificate is the certificate that the runtime's streaming server shows, and nobody else can. It is nil before the
// runtime has been ready for the first time.
func (s *Supervisor) StreamCertificate() *x509.Certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.certificate
}

// Run starts the runtime, or adopts the one that runs already with the same configuration, and starts it again whenever
// it ends. When ctx is cancelled it stops the runtime (unless LeaveRunning), not the containers, and returns nil. It
// returns an error only if the machine cannot be prepared.
func (s *Supervisor) Run(ctx context.Context) error {
	if err := s.prepare(); err != nil {
		return err
	}
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil {
			s.setReady(false, errNotRunning)
			return nil
		}
		s.setReady(false, err)
		if errors.Is(err, errCertificateDue) {
			s.log.Info("restarting the container runtime; containers go on, sessions in them end", "why", err)
			backoff = firstBackoff
			continue
		}
		if time.Since(began) > steady {
			backoff = firstBackoff
		}
		s.log.Error("the container runtime is down; containers go on, it will be started again", "err", err, "in", backoff)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(backoff):
		}
	}
}

// once has one child for its life, and returns why it ended.
func (s *Supervisor) once(ctx context.Context) error {
	began := time.Now()
	generation, err := s.prepareCertificate()
	if err != nil {
		return err
	}
	p, err := s.adopt(ctx, generation)
	if err != nil {
		return err
	}
	how := "adopted"
	if p == nil {
		how = "started"
		if p, err = startProcess(ctx, &s.options, generation); err != nil {
			return err
		}
	}
	if err := importPause(ctx, &s.options); err != nil {
		p.stop(s.options.StopGrace)
		return err
	}
	s.log.Info("container runtime ready", "how", how, "version", version.Version, "pid", p.pid, "took", time.Since(began).Round(time.Millisecond))
	s.setReady(true, nil)
	return s.watch(ctx, p)
}

// watch returns why a child that was ready is no longer.
func (s *Supervisor) watch(ctx context.Context, p *process) error {
	check := time.NewTicker(s.checkEvery)
	defer check.Stop()
	for {
		select {
		case <-p.gone:
			p.close()
			return fmt.Errorf("containerd (pid %d): %s; see %s", p.pid, p.how, s.options.LogFile())
		case <-check.C:
			if streamCertificateDue(s.StreamCertificate(), s.now()) {
				s.setReady(false, errCertificateDue)
				p.stop(s.options.StopGrace)
				return errCertificateDue
			}
		case <-ctx.Done():
			s.setReady(false, errNotRunning)
			if s.options.LeaveRunning {
				p.close()
			} else {
				p.stop(s.options.StopGrace)
			}
			return ctx.Err()
		}
	}
}

// adopt returns the child that runs already, if it is of the wanted generation and answers. Any other one it stops; then,
// and when there is none, it returns nil.
func (s *Supervisor) adopt(ctx context.Context, wanted string) (*process, error) {
	found, err := findProcesses(s.options.configFile())
	if err != nil {
		return nil, err
	}
	var kept *process
	for pid, generation := range found {
		p, err := openProcess(pid, func() bool {
			again, err := findProcesses(s.options.configFile())
			_, ok := again[pid]
			return err == nil && ok
		})
		if err != nil {
			continue // it has ended by itself
		}
		why := "its configuration, certificate or version is another"
		if generation == wanted && kept == nil {
			err := s.answers(ctx)
			if err == nil {
				kept = p
				continue
			}
			why = err.Error()
		}
		s.log.Info("replacing the container runtime of an earlier run", "pid", pid, "why", why)
		p.stop(s.options.StopGrace)
	}
	return kept, ctx.Err()
}

// answers asks the running child for its status.
func (s *Supervisor) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	c, err := runtime.NewCRI(s.Endpoint())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Status(ctx)
	return err
}

// prepare makes directories, files and executables.
func (s *Supervisor) prepare() error {
	o := &s.options
	for _, dir := range []string{o.Dir(), o.BinDir, o.CNIConfDir, o.RegistryDir, o.ShimSockets()} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("runtime directories: %w", err)
		}
	}
	if err := dropStateOfEarlierBoot(o.DataDir); err != nil {
		return fmt.Errorf("runtime state of an earlier boot: %w", err)
	}
	if err := Unpack(o.Libexec, o.BinDir); err != nil {
		return err
	}
	if have, err := os.ReadFile(o.configFile()); err == nil && string(have) == s.config {
		return nil // a full disk is no reason not to start
	}
	return pki.WriteFile(o.configFile(), []byte(s.config), 0o600)
}

// Ready reports whether the runtime serves now, and if not, why.
func (s *Supervisor) Ready() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready {
		return nil
	}
	return s.lastErr
}

// WaitReady waits until the runtime serves. When ctx ends first, it returns why the runtime does not.
func (s *Supervisor) WaitReady(ctx context.Context) error {
	for {
		s.mu.Lock()
		ready, changed, err := s.ready, s.changed, s.lastErr
		s.mu.Unlock()
		if ready {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-changed:
		}
	}
}

func (s *Supervisor) setReady(ready bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready, s.lastErr = ready, err
	close(s.changed)
	s.changed = make(chan struct{})
}

// dropStateOfEarlierBoot removes what describes processes and mounts of before the machine was booted: containerd and
// runc expect to find that on a file system that a boot empties.
func dropStateOfEarlierBoot(dataDir string) error {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return err
	}
	note := filepath.Join(dataDir, "containerd", "boot_id")
	if last, err := os.ReadFile(note); err == nil && string(last) == string(id) {
		return nil
	}
	for _, dir := range []string{filepath.Join(dataDir, "containerd", "state"), runcRoot(dataDir)} {
		if err := unmountBelow(dir); err != nil {
			return err
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return os.WriteFile(note, id, 0o600)
}
