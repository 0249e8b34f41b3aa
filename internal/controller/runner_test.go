package controller_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller"
)

type reconcileFunc func(context.Context, api.Key) (time.Duration, error)

func (f reconcileFunc) Reconcile(ctx context.Context, k api.Key) (time.Duration, error) {
	return f(ctx, k)
}

func TestRunnerRetriesAndLooksAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clienttest.New(t)
		var mu sync.Mutex
		calls := map[string][]time.Duration{}
		start := time.Now()
		rec := reconcileFunc(func(_ context.Context, k api.Key) (time.Duration, error) {
			mu.Lock()
			defer mu.Unlock()
			calls[k.Name] = append(calls[k.Name], time.Since(start))
			n := len(calls[k.Name])
			switch {
			case k.Name == "fails" && n < 3:
				return 0, errors.New("not yet")
			case k.Name == "panics" && n == 1:
				panic("oops")
			case k.Name == "terminal":
				return 0, controller.Terminal(errors.New("never"))
			case k.Name == "again" && n == 1:
				return time.Hour, nil
			}
			return 0, nil
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			r := controller.Runner{Client: c, Log: slog.New(slog.DiscardHandler)}
			done <- r.Run(ctx, controller.Controller{Name: "test", Watches: []controller.Watch{{Resource: api.ConfigMaps}}, Reconciler: rec})
		}()
		for _, n := range []string{"fails", "panics", "terminal", "again"} {
			clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: n}})
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		for name, want := range map[string]int{"fails": 3, "panics": 2, "terminal": 1, "again": 2} {
			if got := len(calls[name]); got != want {
				t.Errorf("%s was reconciled %d times, want %d: %v", name, got, want, calls[name])
			}
		}
		if again := calls["again"]; len(again) == 2 && again[1]-again[0] < time.Hour {
			t.Errorf("looked again after %v, want an hour", again[1]-again[0])
		}
	})
}
