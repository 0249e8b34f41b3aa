package events

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/task"
)

// away is a client that writes nothing while it is off.
type away struct {
	client.Client
	off atomic.Bool
}

func (a *away) CreateMany(ctx context.Context, objs []api.Object) []client.Result {
	if !a.off.Load() {
		return a.Client.CreateMany(ctx, objs)
	}
	out := make([]client.Result, len(objs))
	for i := range out {
		out[i].Err = context.DeadlineExceeded
	}
	return out
}

// world is a recorder over the front door, in virtual time.
type world struct {
	*Recorder
	t   *testing.T
	api *away
}

func inBubble(t *testing.T, quiet bool, f func(w *world)) {
	synctest.Test(t, func(t *testing.T) {
		var tasks task.Group
		ctx, cancel := context.WithCancel(context.Background())
		tasks.Open(ctx)
		w := &world{t: t, api: &away{Client: clienttest.New(t)}}
		w.Recorder = New(Settings{Client: w.api, Tasks: &tasks, Node: "n1", Quiet: quiet})
		f(w)
		cancel()
		tasks.Close()
		tasks.Wait()
	})
}

func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// events returns "type reason field xCount" of each event that the API has.
func (w *world) events() []string {
	w.t.Helper()
	list, err := client.List[*corev1.Event](context.Background(), w.api, client.ListOptions{Namespace: "default"})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []string
	for _, e := range list {
		out = append(out, fmt.Sprintf("%s %s %s x%d", e.Type, e.Reason, e.InvolvedObject.FieldPath, e.Count))
	}
	return out
}

func pod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "default", UID: "uid-p"}, Spec: corev1.PodSpec{
		InitContainers: []corev1.Container{{Name: "i"}}, Containers: []corev1.Container{{Name: "c"}},
		EphemeralContainers: []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "e"}, TargetContainerName: "c"}}}}
}

func TestEventsAreCountedAndLimited(t *testing.T) {
	inBubble(t, false, func(w *world) {
		for range 100 {
			w.Warning(pod(), "c", "Unhealthy", "Readiness probe failed: x")
			w.wait(time.Second)
		}
		if got := fmt.Sprint(w.events()); got != "[Warning Unhealthy spec.containers{c} x25]" {
			t.Errorf("%s, want one event counted to the limit", got)
		}
		w.wait(5 * time.Minute)
		w.Warning(pod(), "c", "Unhealthy", "Readiness probe failed: x")
		w.wait(time.Second)
		if got := fmt.Sprint(w.events()); got != "[Warning Unhealthy spec.containers{c} x26]" {
			t.Errorf("%s, want one more after five minutes", got)
		}
	})
}

func TestAnEventAfterALongTimeIsNew(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.Normal(pod(), "", "Killing", "again")
		w.wait(eventComplete + time.Minute)
		w.Normal(pod(), "", "Killing", "again")
		w.wait(time.Second)
		if got := fmt.Sprint(w.events()); got != "[Normal Killing  x1 Normal Killing  x1]" {
			t.Error(got)
		}
	})
}

func TestEventsNameTheContainer(t *testing.T) {
	for container, want := range map[string]string{"": "", "c": "spec.containers{c}", "i": "spec.initContainers{i}", "e": "spec.ephemeralContainers{e}"} {
		if got := podReference(pod(), container).FieldPath; got != want {
			t.Errorf("container %q: %q, want %q", container, got, want)
		}
	}
}

func TestQuietRecordersKeepWarnings(t *testing.T) {
	inBubble(t, true, func(w *world) {
		w.Normal(pod(), "c", "Started", "fine")
		w.Warning(pod(), "c", "Failed", "not fine")
		w.NodeEvent(corev1.EventTypeNormal, "NodeReady", "ready")
		w.wait(time.Second)
		if got := fmt.Sprint(w.events()); !strings.Contains(got, "Failed") || strings.Contains(got, "Started") || !strings.Contains(got, "NodeReady") {
			t.Error(got)
		}
	})
}

func TestEventsWaitForTheAPI(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.api.off.Store(true)
		for range 3 {
			w.Warning(pod(), "c", "Failed", "once")
			w.wait(time.Second)
		}
		if got := w.events(); len(got) != 0 {
			t.Fatal(got)
		}
		w.api.off.Store(false)
		w.wait(10 * time.Second)
		if got := fmt.Sprint(w.events()); got != "[Warning Failed spec.containers{c} x3]" {
			t.Errorf("%s, want what happened while the API was away, counted", got)
		}
	})
}

func TestOldEventsAreDroppedWhileTheAPIIsAway(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.api.off.Store(true)
		for i := range 2 * eventWaiting {
			p := pod()
			p.UID = types.UID(fmt.Sprint(i)) // each has a budget of its own
			w.Warning(p, "", "Failed", fmt.Sprint("message ", i))
		}
		w.wait(time.Minute)
		w.mu.Lock()
		waiting := len(w.queue)
		w.mu.Unlock()
		if waiting > eventWaiting {
			t.Errorf("%d events wait", waiting)
		}
	})
}

func TestLongMessagesAreCut(t *testing.T) {
	inBubble(t, false, func(w *world) {
		w.Warning(pod(), "", "Failed", strings.Repeat("x", 5000))
		w.wait(time.Second)
		list, err := client.List[*corev1.Event](context.Background(), w.api, client.ListOptions{Namespace: "default"})
		if err != nil || len(list) != 1 || len(list[0].Message) != 1024 || !strings.HasSuffix(list[0].Message, "...") {
			t.Errorf("%v %v", list, err)
		}
	})
}
