package report

import (
	"context"
	"log/slog"
	"maps"
	"sync"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Statuses writes pods' statuses, many at once: while one write is under way the next ones gather.
type Statuses struct {
	client client.Client
	tasks  *task.Group
	log    *slog.Logger

	mu sync.Mutex
	// changed are the pods whose status has to be written, in the order in which they changed; marked are the same.
	changed []*pod.Worker
	marked  map[*pod.Worker]bool
	running bool
}

// NewStatuses returns a writer that has nothing to write.
func NewStatuses(c client.Client, tasks *task.Group, log *slog.Logger) *Statuses {
	return &Statuses{client: c, tasks: tasks, log: log, marked: map[*pod.Worker]bool{}}
}

// Changed implements pod.Statuses.
func (s *Statuses) Changed(w *pod.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark(w)
	if len(s.changed) > 0 && !s.running {
		s.running = s.tasks.Go(s.run)
	}
}

// mark notes that a pod's status has to be written. s.mu must be held.
func (s *Statuses) mark(w *pod.Worker) {
	if !s.marked[w] {
		s.marked[w] = true
		s.changed = append(s.changed, w)
	}
}

// take returns the pods to write now.
func (s *Statuses) take() []*pod.Worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.changed
	s.changed = nil
	clear(s.marked)
	if len(batch) == 0 {
		s.running = false
	}
	return batch
}

// run writes until nothing is left to write.
func (s *Statuses) run() {
	ctx := s.tasks.Context()
	var r task.Retry
	for ctx.Err() == nil {
		batch := s.take()
		if len(batch) == 0 {
			return
		}
		failed := s.write(ctx, batch)
		if len(failed) == 0 {
			r.Reset()
			continue
		}
		r.Wait(ctx)
		s.again(failed...)
	}
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
}

// again marks pods while the writer runs.
func (s *Statuses) again(list ...*pod.Worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range list {
		s.mark(w)
	}
}

// write writes the statuses of batch and returns those to be tried again after a while.
func (s *Statuses) write(ctx context.Context, batch []*pod.Worker) (failed []*pod.Worker) {
	var objs []api.Object
	var of []*pod.Worker
	var reported []*corev1.PodStatus
	for _, w := range batch {
		if p, status := w.StatusObject(); p != nil {
			p.Annotations = maps.Clone(p.Annotations) // the front door takes obsolete ones out of what it is given
			objs, of, reported = append(objs, p), append(of, w), append(reported, status)
		}
	}
	if len(objs) == 0 {
		return nil
	}
	var last error
	for i, r := range s.client.UpdateMany(ctx, objs, "status") {
		w := of[i]
		switch {
		case r.Err == nil:
			w.Written(r.Object.(*corev1.Pod), reported[i])
		case apierrors.IsNotFound(r.Err):
			w.Written(nil, nil)
		case apierrors.IsConflict(r.Err):
			w.Refresh(ctx)
			s.again(w)
		case apierrors.IsInvalid(r.Err) || apierrors.IsForbidden(r.Err):
			s.log.Error("a pod's status was refused", "pod", w.Key(), "err", r.Err)
			w.Written(nil, nil)
		default:
			failed, last = append(failed, w), r.Err
		}
	}
	if last != nil && ctx.Err() == nil {
		s.log.Warn("writing pods' statuses failed, trying again", "pods", len(failed), "err", last)
	}
	return failed
}
