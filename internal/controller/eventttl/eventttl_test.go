package eventttl

import (
	"context"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller"
)

func TestEventsLiveAnHourAfterTheyLastHappened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := clienttest.New(t)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- (&controller.Runner{Client: c, Log: slog.New(slog.DiscardHandler)}).Run(ctx, New(c, 0))
		}()
		for _, n := range []string{"once", "again"} {
			clienttest.Create(t, c, &corev1.Event{
				ObjectMeta:     metav1.ObjectMeta{Namespace: "default", Name: n},
				InvolvedObject: corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "p"},
				LastTimestamp:  metav1.Now(),
			})
		}
		count := func() int {
			synctest.Wait()
			list, _ := client.List[*corev1.Event](t.Context(), c, client.ListOptions{})
			return len(list)
		}
		time.Sleep(30 * time.Minute)
		if _, err := client.Mutate(t.Context(), c, api.Key{Namespace: "default", Name: "again"}, "", func(e *corev1.Event) bool { e.LastTimestamp = metav1.Now(); e.Count++; return true }); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			after time.Duration
			want  int
		}{{29 * time.Minute, 2}, {2 * time.Minute, 1}, {30 * time.Minute, 0}} {
			time.Sleep(step.after)
			if got := count(); got != step.want {
				t.Errorf("%v later: %d events, want %d", step.after, got, step.want)
			}
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
