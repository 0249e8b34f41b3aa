package runtime

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// listener is one caller of Events: what it has not been given yet, and a signal that there is something.
type listener struct {
	events []*Event
	broken bool
	wake   chan struct{} // capacity 1
}

func (l *listener) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Events reports changes in the order in which they happened; see [Runtime.Events]. A slow listener holds back nobody.
func (f *Fake) Events(ctx context.Context, ready func(), each func(*Event)) error {
	if err := f.begin(ctx, "Events", ""); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	l := &listener{wake: make(chan struct{}, 1)}
	f.listeners[l] = true
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.listeners, l)
		f.mu.Unlock()
	}()
	ready()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
		f.mu.Lock()
		events, broken := l.events, l.broken
		l.events = nil
		f.mu.Unlock()
		for _, e := range events {
			each(e)
		}
		if broken {
			return status.Error(codes.Unavailable, "the fake runtime's event stream ended")
		}
	}
}

func (f *Fake) breakStreams() {
	for l := range f.listeners {
		l.broken = true
		l.signal()
	}
}

// send tells all listeners about a change of a container in s, or of s itself.
func (f *Fake) send(s *fakeSandbox, id string, kind cri.ContainerEventType) {
	if len(f.listeners) == 0 {
		return
	}
	e := &Event{ContainerId: id, ContainerEventType: kind, CreatedAt: time.Now().UnixNano(), PodSandboxStatus: s.status}
	for _, c := range s.containers {
		e.ContainersStatuses = append(e.ContainersStatuses, c.status)
	}
	f.publish(e)
}

// sendGone tells that a sandbox has been removed.
func (f *Fake) sendGone(sandboxID string) {
	f.publish(&Event{
		ContainerId: sandboxID, ContainerEventType: cri.ContainerEventType_CONTAINER_DELETED_EVENT,
		CreatedAt: time.Now().UnixNano(),
	})
}

func (f *Fake) publish(e *Event) {
	for l := range f.listeners {
		l.events = append(l.events, e)
		l.signal()
	}
}
