// Package eventttl removes Events an hour after they last happened, as kube-apiserver's --event-ttl does with leases.
//
// What flows through it: each Event waits in the queue until its time has come. What must stay true: an Event that happens again
// lives on. Tests: TestEventsLiveAnHourAfterTheyLastHappened.
package eventttl

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// Default is how long Events are kept in Kubernetes.
const Default = time.Hour

// New returns the controller; ttl 0 means Default.
func New(c client.Client, ttl time.Duration) controller.Controller {
	if ttl == 0 {
		ttl = Default
	}
	return controller.Controller{
		Name:       "event-ttl",
		Watches:    []controller.Watch{{Resource: api.Events, Keys: created}},
		Writes:     []controller.Write{controller.Deletes(api.Events)},
		Reconciler: &reconciler{client: c, ttl: ttl},
	}
}

// created passes new Events on: a changed one is found to have changed when its first time has come.
func created(e client.Event) []api.Key {
	if e.Type != client.Added {
		return nil
	}
	return []api.Key{api.KeyOf(e.Object)}
}

type reconciler struct {
	client client.Client
	ttl    time.Duration
}

// Reconcile removes the Event if it is old enough, and otherwise looks again when it will be.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	ev, err := client.Get[*corev1.Event](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if left := time.Until(lastSeen(ev).Add(r.ttl)); left > 0 {
		return left, nil
	}
	err = client.Delete[*corev1.Event](ctx, r.client, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &ev.UID}})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return 0, err
}

func lastSeen(ev *corev1.Event) time.Time {
	last := ev.CreationTimestamp.Time
	for _, t := range []time.Time{ev.LastTimestamp.Time, ev.EventTime.Time} {
		if t.After(last) {
			last = t
		}
	}
	if ev.Series != nil && ev.Series.LastObservedTime.After(last) {
		last = ev.Series.LastObservedTime.Time
	}
	return last
}
