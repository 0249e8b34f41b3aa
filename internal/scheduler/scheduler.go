// Package scheduler gives every pending pod a node.
//
// What flows through it: one loop owns the queue of pending pods and the placement.State. Watches feed it; it takes all
// pods that are pending at that moment (up to maxBatch), has placement decide, and hands the decisions to a committer that binds them
// in one write while the loop already decides for the next batch. Rejections become the PodScheduled condition and FailedScheduling
// events, preemptions become deletions, written by a reporter that never holds the loop up.
//
// What must stay true: only the loop touches queue and State. A pod counts on its node from the moment it is placed, is
// confirmed by the watch and taken back if its binding fails, so that nothing is over-committed while bindings are on
// their way. A rejected pod is tried again when an event that its rejecting filters care about made a node feasible for it,
// and otherwise only after five minutes. Tests: TestFailedBindingsBackOff, TestStaleEventsDoNotUndoABinding,
// TestNeverOvercommits, TestRejectsThenWakes, TestForgottenPodsAreTriedAgain.
package scheduler

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/scheduler/devices"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// Name is the spec.schedulerName that pods get by default, and the source of the events.
const Name = corev1.DefaultSchedulerName

const (
	// maxBatch is how many pods are decided for and bound together.
	maxBatch = 500
	// maxFlying is how many batches may be on their way to the store while the next one is decided.
	maxFlying = 2
)

// Config is what a Scheduler needs.
type Config struct {
	Client client.Client
	Logger *slog.Logger // nil means slog.Default
	// Name is the spec.schedulerName of the pods to place; "" means Name.
	Name string
	// Options choose between placement policies; the zero value is Kubernetes' default.
	Options placement.Options
	Metrics *Metrics // nil keeps them to itself
}

// Scheduler places pods. Make one with New, then call Run once.
type Scheduler struct {
	client client.Client
	log    *slog.Logger
	name   string

	// Owned by the loop.
	state   *placement.State
	queue   *queue
	sources []*source
	helps   placement.Events // what happened since the last look at the rejected pods
	flying  int              // batches being bound
	gated   map[api.Key]bool // pods with scheduling gates, which are in no queue

	feed    chan fed
	calls   chan func() // run by the loop
	batches chan []flight
	report  *reporter
	metrics *Metrics

	placed, rejected atomic.Int64
}

// New returns a Scheduler.
func New(c Config) *Scheduler {
	s := &Scheduler{
		client: c.Client, log: c.Logger, name: c.Name,
		state: placement.New(c.Options), queue: newQueue(), gated: map[api.Key]bool{},
		feed: make(chan fed), calls: make(chan func()), batches: make(chan []flight, maxFlying),
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.metrics = c.Metrics; s.metrics == nil {
		s.metrics = NewMetrics(nil)
	}
	if s.name == "" {
		s.name = Name
	}
	s.report = newReporter(s)
	s.sources = s.watched()
	return s
}

// Run places pods until ctx ends. It returns nil then, and an error only if a watch cannot be had.
func (s *Scheduler) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, src := range s.sources {
		g.Go(func() error { return s.watch(ctx, src) })
	}
	g.Go(func() error { return s.commit(ctx) })
	g.Go(func() error { return s.report.run(ctx) })
	g.Go(func() error { return s.loop(ctx) })
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// Stats are counts since the start.
type Stats struct {
	Placed, Rejected int64 // decisions
	DroppedEvents    int64 // Events not written for the sake of speed
}

// Stats returns the counts so far. It may be called at any time.
func (s *Scheduler) Stats() Stats {
	return Stats{Placed: s.placed.Load(), Rejected: s.rejected.Load(), DroppedEvents: s.report.dropped.Load()}
}

// Explain returns which nodes suit a pod now, and why the others do not. It needs Run to be running.
func (s *Scheduler) Explain(ctx context.Context, pod *corev1.Pod) (suitable []string, reasons []placement.Reason, err error) {
	done := make(chan struct{})
	if !s.call(ctx, func() {
		suitable, reasons = s.state.Explain(pod)
		close(done)
	}) {
		return nil, nil, ctx.Err()
	}
	<-done
	return suitable, reasons, nil
}

// call has the loop run f. It says false if ctx ended first.
func (s *Scheduler) call(ctx context.Context, f func()) bool {
	select {
	case s.calls <- f:
		return true
	case <-ctx.Done():
		return false
	}
}

// loop is the one owner of queue and State.
func (s *Scheduler) loop(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		s.drain()
		now := time.Now()
		if s.synced() {
			s.queue.stale(now)
			s.wake(now)
			free := s.flying < maxFlying
			if free && s.queue.ready(now) {
				s.round(now)
				continue
			}
			// While all flights are out, it is their landing that lets things go on, not the time.
			if next := s.queue.next(); free && !next.IsZero() {
				timer.Reset(next.Sub(now))
			}
		}
		s.metrics.queued(s.queue, len(s.gated))
		select {
		case in := <-s.feed:
			s.apply(in)
		case f := <-s.calls:
			f()
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// drain takes in what has arrived meanwhile, so that batches are as large as they can be, but not for ever.
func (s *Scheduler) drain() {
	for range 64 {
		select {
		case in := <-s.feed:
			s.apply(in)
		case f := <-s.calls:
			f()
		default:
			return
		}
	}
}

// round decides for one batch.
func (s *Scheduler) round(now time.Time) {
	batch := s.queue.pop(maxBatch, now)
	pods := make([]*corev1.Pod, len(batch))
	for i, p := range batch {
		pods[i] = p.pod
	}
	var flights []flight
	decisions := s.state.Place(pods)
	took := time.Since(now)
	s.metrics.decided(len(pods), took)
	for i, d := range decisions {
		if p := batch[i]; d.Node != "" {
			flights = append(flights, flight{pod: p.pod, key: p.key, node: d.Node, claims: d.Claims, volumes: d.Volumes, asks: d.Asks, waits: d.Rejection,
				began: now, entered: p.entered, attempts: p.attempts})
			continue
		}
		s.metrics.rejected(s.name, d.Rejection, took)
		s.rejected.Add(1)
		s.queue.reject(batch[i], d.Rejection)
		s.report.reject(d)
	}
	if len(flights) == 0 {
		return
	}
	s.placed.Add(int64(len(flights)))
	s.helps |= placement.PodPlaced
	s.flying++
	s.batches <- flights // has room for maxFlying
}

// flight is a pod on its way to a node.
type flight struct {
	pod      *corev1.Pod
	key      api.Key
	node     string
	claims   []devices.Claim
	volumes  []client.VolumeBinding
	asks     []api.Key            // claims whose provisioner is to be asked; then the pod is not bound, but waits
	waits    *placement.Rejection // for what, where it does
	began    time.Time            // when the attempt began
	entered  time.Time            // when the pod came into the queue
	attempts int
	unknown  bool // whether it arrived; the room stays taken until the watch or the next attempt tells
}
