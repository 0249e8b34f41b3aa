package node

import (
	"bytes"
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/task"
)

// statusWriter writes pods' statuses, many at once: while one write is under way the next ones gather.
type statusWriter struct {
	a *Agent

	mu      sync.Mutex
	dirty   []*worker
	marked  map[*worker]bool
	running bool
}

func newStatusWriter(a *Agent) *statusWriter {
	return &statusWriter{a: a, marked: map[*worker]bool{}}
}

// changed tells that w's status differs from the API's. w.mu must be held.
func (s *statusWriter) changed(w *worker) {
	if w.mem.Gone {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.marked[w] {
		return
	}
	s.marked[w] = true
	s.dirty = append(s.dirty, w)
	if !s.running {
		s.running = s.a.tasks.Go(s.run)
	}
}

func (s *statusWriter) take() []*worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch := s.dirty
	s.dirty = nil
	clear(s.marked)
	if len(batch) == 0 {
		s.running = false
	}
	return batch
}

func (s *statusWriter) run() {
	ctx := s.a.tasks.Context()
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
		for _, w := range failed {
			s.again(w)
		}
	}
	s.mu.Lock()
	s.running = false
	s.mu.Unlock()
}

func (s *statusWriter) again(w *worker) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.marked[w] {
		s.marked[w] = true
		s.dirty = append(s.dirty, w)
	}
}

// write writes the statuses of batch and returns those to be tried again after a while.
func (s *statusWriter) write(ctx context.Context, batch []*worker) (failed []*worker) {
	var objs []api.Object
	var of []*worker
	var told []*corev1.PodStatus
	for _, w := range batch {
		if pod, last := w.statusObject(); pod != nil {
			objs, of, told = append(objs, pod), append(of, w), append(told, last)
		}
	}
	if len(objs) == 0 {
		return nil
	}
	var last error
	for i, r := range s.a.cfg.Client.UpdateMany(ctx, objs, "status") {
		w := of[i]
		switch {
		case r.Err == nil:
			w.wrote(r.Object.(*corev1.Pod), told[i])
		case apierrors.IsNotFound(r.Err):
			w.wrote(nil, nil)
		case apierrors.IsConflict(r.Err):
			w.refreshPod(ctx)
			s.again(w)
		case apierrors.IsInvalid(r.Err) || apierrors.IsForbidden(r.Err):
			s.a.log.Error("a pod's status was refused", "pod", w.key, "err", r.Err)
			w.wrote(nil, nil)
		default:
			failed, last = append(failed, w), r.Err
		}
	}
	if last != nil && ctx.Err() == nil {
		s.a.log.Warn("writing pods' statuses failed, trying again", "pods", len(failed), "err", last)
	}
	return failed
}

// statusDiffers tells whether the API's status is not the one last computed. w.mu must be held.
func (w *worker) statusDiffers() bool {
	if w.last == nil || w.last == &w.pod.Status {
		return false
	}
	want := merged(w.last, &w.pod.Status)
	return !sameStatus(&want, &w.pod.Status)
}

// sameStatus compares the stored forms: that costs a tenth of a comparison by reflection, and tells what a write would change.
func sameStatus(a, b *corev1.PodStatus) bool {
	size := a.Size()
	if size != b.Size() {
		return false
	}
	var buffer [4096]byte // most statuses fit, and need no memory
	x := buffer[:]
	if 2*size > len(x) {
		x = make([]byte, 2*size)
	}
	if _, err := a.MarshalToSizedBuffer(x[:size]); err != nil {
		return false
	}
	_, err := b.MarshalToSizedBuffer(x[size : 2*size])
	return err == nil && bytes.Equal(x[:size], x[size:2*size])
}

// statusObject returns the pod with its new status and the computed one that is in it, or nil where nothing is to be written.
func (w *worker) statusObject() (*corev1.Pod, *corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mem.Gone || !w.statusDiffers() {
		return nil, nil
	}
	// The front door takes the spec from its own copy and completes the status in place: it gets none of the former and a copy of the
	// latter, because ours are being read.
	pod := &corev1.Pod{TypeMeta: w.pod.TypeMeta, ObjectMeta: w.pod.ObjectMeta}
	status := merged(w.last, &w.pod.Status)
	status.DeepCopyInto(&pod.Status)
	return pod, w.last
}

// share keeps the API's copy of the status told last in the place of an equal one of our own: most pods' statuses stay for long. w.mu must
// be held.
func (w *worker) share() {
	if w.last != nil && !w.statusDiffers() {
		w.last = &w.pod.Status
	}
}

// wrote notes the outcome of a status write: the pod as stored, with the status told, or nil where there is no more to write. The end of a
// pod waits for it.
func (w *worker) wrote(pod *corev1.Pod, told *corev1.PodStatus) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if pod != nil && pod.UID == w.uid && newer(pod.ResourceVersion, w.pod.ResourceVersion) {
		w.pod = pod
	}
	if told != nil && w.last == told {
		w.share()
	}
	if w.finishing {
		w.notifyLocked()
	}
}

// refreshPod reads the pod anew after a conflict.
func (w *worker) refreshPod(ctx context.Context) {
	pod, err := client.Get[*corev1.Pod](ctx, w.a.cfg.Client, w.key)
	switch {
	case apierrors.IsNotFound(err) || err == nil && pod.UID != w.uid:
		w.gone()
	case err == nil:
		w.setPod(pod)
	}
}

// finish ends the pod in the API once its last status is written there, or the worker if the API has the pod no more. w.mu must be held.
func (w *worker) finish(pod *corev1.Pod) {
	if w.mem.Gone {
		w.a.tasks.Go(func() { w.a.forget(w) })
		return
	}
	w.finishing = true
	if w.asked || pod.DeletionTimestamp == nil || w.statusDiffers() || w.busy.Teardown {
		return
	}
	w.begin(w.a.tasks.Context(), &w.busy.Teardown, func(ctx context.Context) {
		var zero int64
		err := client.Delete[*corev1.Pod](ctx, w.a.cfg.Client, w.key, metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &w.uid}})
		switch {
		case err == nil || apierrors.IsNotFound(err) || apierrors.IsConflict(err):
			// The watch tells that it is gone; with finalizers it stays until others are done.
			w.deleted(err)
		case ctx.Err() == nil:
			w.a.log.Warn("removing an ended pod from the API failed, trying again", "pod", w.key, "err", err)
			task.Pause(ctx, time.Second)
		}
	})
}

// deleted notes that the API was asked to remove the pod.
func (w *worker) deleted(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = true
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		w.mem.Gone = true
	}
}
