package usage

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/api"
)

// pusher is a node that pushes the use of one pod of its own, and of one that runs elsewhere.
type pusher struct {
	mu       sync.Mutex
	name     string
	use      int64 // thousandths of a core
	breaks   bool  // after each push
	followed atomic.Int32
}

func (p *pusher) ServeNode(w http.ResponseWriter, r *http.Request) {
	p.followed.Add(1)
	defer p.followed.Add(-1)
	for r.Context().Err() == nil {
		time.Sleep(time.Second)
		p.mu.Lock()
		list, breaks := metrics.PodMetricsList{}, p.breaks
		for _, pod := range []string{"on-" + p.name, "on-a"} {
			list.Items = append(list.Items, metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: pod}, Containers: []metrics.ContainerMetrics{
				{Name: "c", Usage: corev1.ResourceList{corev1.ResourceCPU: *resource.NewMilliQuantity(p.use, resource.DecimalSI)}}}})
		}
		p.mu.Unlock()
		b, err := json.Marshal(list)
		if err != nil {
			panic(err)
		}
		b = append(b, '\n')
		_, _ = w.Write(b[:len(b)/2]) // as it may come over a connection
		_, _ = w.Write(b[len(b)/2:])
		if breaks {
			panic(http.ErrAbortHandler)
		}
	}
}

func (p *pusher) set(use int64, breaks bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.use, p.breaks = use, breaks
}

func onNode(node string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "on-" + node}, Spec: corev1.PodSpec{NodeName: node}, Status: corev1.PodStatus{Phase: corev1.PodRunning}}
}

// TestNodesPushWhileSomebodyWantsToKnow: what they push of their own pods is known, they are asked again when it breaks off, and let go when nobody
// wants to know any longer.
func TestNodesPushWhileSomebodyWantsToKnow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		nodes := map[string]*pusher{"a": {name: "a", use: 100}, "b": {name: "b", use: 200}}
		var foreign atomic.Bool
		f := NewFeed(FeedConfig{Foreign: foreign.Load, Log: slog.New(slog.DiscardHandler), Node: func(_ context.Context, name string) (Node, error) {
			if nodes[name] == nil {
				return nil, errors.New("not connected")
			}
			return nodes[name], nil
		}})
		ctx, cancel := context.WithCancel(t.Context())
		pushed, ended := atomic.Int32{}, make(chan struct{})
		me := api.Key{Namespace: "d", Name: "me"}
		go func() {
			defer close(ended)
			f.Run(ctx, func(by api.Key) {
				if by != me {
					t.Errorf("%v is told", by)
				}
				pushed.Add(1)
			})
		}()
		pods := []*corev1.Pod{onNode("a"), onNode("b"), {ObjectMeta: metav1.ObjectMeta{Namespace: "d", Name: "waiting"}}}
		usage := func() (uses []int64, complete bool) {
			items, complete := f.Usage(pods)
			for _, m := range items {
				uses = append(uses, m.Containers[0].Usage.Cpu().MilliValue())
			}
			return uses, complete
		}
		expect := func(when string, complete bool, want ...int64) {
			t.Helper()
			synctest.Wait()
			got, whole := usage()
			if whole != complete || len(got) != len(want) {
				t.Fatalf("%s: %v, complete %v; want %v, %v", when, got, whole, want, complete)
			}
			for i := range want {
				if got[i] != want[i] {
					t.Errorf("%s: %v, want %v", when, got, want)
				}
			}
		}
		f.Want(me, pods)
		expect("before the first push", false)
		time.Sleep(1100 * time.Millisecond)
		expect("after the first push", true, 100, 200)
		nodes["b"].set(700, false)
		time.Sleep(time.Second)
		expect("after the next", true, 100, 700)
		nodes["b"].set(800, true)
		time.Sleep(4 * time.Second)
		expect("while one breaks off", true, 100, 800)
		if n := pushed.Load(); n < 9 || n > 13 {
			t.Errorf("told %d times, want once for each push", n)
		}
		pods = append(pods, onNode("lost"))
		f.Want(me, pods)
		expect("with a node that is away", false)
		time.Sleep(firstPush)
		expect("once it has had its time", true, 100, 800)
		pods = pods[:1]
		f.Want(me, pods)
		time.Sleep(3 * time.Second)
		if a, b := nodes["a"].followed.Load(), nodes["b"].followed.Load(); a != 1 || b != 0 {
			t.Errorf("%d follow a, %d follow b, of which nobody wants to know", a, b)
		}
		foreign.Store(true)
		expect("where another server is to be asked", false)
		f.Want(me, pods)
		time.Sleep(3 * time.Second)
		if n := nodes["a"].followed.Load(); n != 0 {
			t.Errorf("%d follow a node of which another server is asked", n)
		}
		cancel()
		<-ended
	})
}

func TestAPushThatCannotBeReadEndsTheLine(t *testing.T) {
	ended := false
	w := &pushes{kept: kept{header: http.Header{}, code: http.StatusOK}, each: func([]metrics.PodMetrics) { t.Error("something was read") }, stop: func() { ended = true }}
	if _, err := w.Write([]byte("{broken\n")); err == nil || !ended {
		t.Errorf("error %v, ended %v", err, ended)
	}
	if _, err := w.Write([]byte("{}\n")); err == nil {
		t.Error("it goes on afterwards")
	}
}
