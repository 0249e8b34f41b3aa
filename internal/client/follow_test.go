package client_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// unsteady is a client whose first watches cannot begin, and whose later ones end after one batch.
type unsteady struct {
	client.Client
	refuse int
	begun  []time.Duration
	start  time.Time
}

func (u *unsteady) Watch(ctx context.Context, res *api.Resource, opts client.ListOptions) (client.Watcher, error) {
	u.begun = append(u.begun, time.Since(u.start))
	if len(u.begun) <= u.refuse {
		return nil, errors.New("no server")
	}
	w, err := u.Client.Watch(ctx, res, opts)
	return &onceOnly{Watcher: w}, err
}

type onceOnly struct {
	client.Watcher
	used bool
}

func (o *onceOnly) Next(ctx context.Context) (client.Batch, error) {
	if o.used {
		return client.Batch{}, errors.New("connection lost")
	}
	o.used = true
	return o.Watcher.Next(ctx)
}

func TestFollowBeginsAgainWithTheFullState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &unsteady{Client: clienttest.New(t), refuse: 4, start: time.Now()}
		clienttest.Create(t, c.Client, labelled("a", "red"))
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var seen []string
		var log strings.Builder
		client.Follow(ctx, slog.New(slog.NewTextHandler(&log, nil)), c, api.ConfigMaps, client.ListOptions{}, func(b client.Batch) {
			seen = append(seen, fmt.Sprint(b.Full, len(b.Events)))
			if len(seen) == 1 {
				clienttest.Create(t, c.Client, labelled("b", "red"))
			}
		})
		if got := c.begun[:7]; !slices.Equal(got, []time.Duration{0, 100e6, 300e6, 700e6, 1500e6, 1600e6, 1700e6}) {
			t.Errorf("watches were begun at %v; want pauses that double until one has begun", got)
		}
		if got := seen[:2]; !slices.Equal(got, []string{"true 1", "true 2"}) {
			t.Errorf("batches %v; want the full state after each beginning", got)
		}
		if !strings.Contains(log.String(), "no server") || !strings.Contains(log.String(), "connection lost") {
			t.Errorf("the log does not name both losses: %s", log.String())
		}
	})
}

func TestFollowOnceReturnsWhyItEnded(t *testing.T) {
	c := &unsteady{Client: clienttest.New(t)}
	err := client.FollowOnce(t.Context(), c, api.ConfigMaps, client.ListOptions{}, func(client.Batch) {})
	if err == nil || err.Error() != "watching configmaps: connection lost" {
		t.Errorf("error %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if err := client.FollowOnce(ctx, c.Client, api.ConfigMaps, client.ListOptions{}, func(client.Batch) { cancel() }); err != nil {
		t.Errorf("the end of the context is no error, but %v", err)
	}
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clienttest.New(t)
		key := api.Key{Namespace: "default", Name: "a"}
		go func() {
			time.Sleep(time.Second)
			clienttest.Create(t, c, labelled("a", "red"))
			time.Sleep(time.Second)
			if _, err := client.Mutate(context.Background(), c, key, "", func(m *corev1.ConfigMap) bool { m.Labels["color"] = "blue"; return true }); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
			if err := client.Delete[*corev1.ConfigMap](context.Background(), c, key, metav1.DeleteOptions{}); err != nil {
				t.Error(err)
			}
		}()
		start := time.Now()
		for _, step := range []struct {
			what  string
			done  func(m *corev1.ConfigMap) bool
			after time.Duration
		}{
			{"absent at first", func(m *corev1.ConfigMap) bool { return m == nil }, 0},
			{"blue", func(m *corev1.ConfigMap) bool { return m != nil && m.Labels["color"] == "blue" }, 2 * time.Second},
			{"deleted", func(m *corev1.ConfigMap) bool { return m == nil }, 3 * time.Second},
		} {
			got, err := client.Await(t.Context(), c, key, func(m *corev1.ConfigMap) (bool, error) { return step.done(m), nil })
			if err != nil || !step.done(got) || time.Since(start) != step.after {
				t.Errorf("%s: %v %v after %v, want it after %v", step.what, got, err, time.Since(start), step.after)
			}
		}
		if _, err := client.Await(t.Context(), c, key, func(*corev1.ConfigMap) (bool, error) { return false, errors.New("refused") }); err == nil || err.Error() != "refused" {
			t.Errorf("error %v, want that of done", err)
		}
	})
}

func TestKeysOfABatch(t *testing.T) {
	b := client.Batch{Events: []client.Event{
		{Type: client.Added, Object: labelled("a", "red")},
		{Type: client.Modified, Object: labelled("b", "red"), Old: labelled("b", "blue")},
		{Type: client.Deleted, Object: labelled("c", ""), Old: labelled("c", "")},
	}}
	got := b.Keys(func(o api.Object) (api.Key, bool) {
		color := o.GetLabels()["color"]
		return api.Key{Name: color}, color != ""
	})
	if want := []api.Key{{Name: "red"}, {Name: "blue"}}; !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
}
