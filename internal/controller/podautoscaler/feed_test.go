package podautoscaler

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/api"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// pushing is a Feed of a load whose nodes push ten times a second, once somebody has wanted to know for a second.
type pushing struct {
	load *load

	mu     sync.Mutex
	wanted map[api.Key][]*corev1.Pod
	live   bool
	uses   atomic.Int64 // how often it was asked what pods use
}

func (p *pushing) Run(ctx context.Context, pushed func(by api.Key)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(100 * time.Millisecond):
		}
		p.mu.Lock()
		var all []api.Key
		for by := range p.wanted {
			all = append(all, by)
		}
		p.live = len(all) > 0
		p.mu.Unlock()
		for _, by := range all {
			pushed(by)
		}
	}
}

func (p *pushing) Want(by api.Key, pods []*corev1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wanted == nil {
		p.wanted = map[api.Key][]*corev1.Pod{}
	}
	p.wanted[by] = pods
	if len(pods) == 0 {
		delete(p.wanted, by)
	}
}

func (p *pushing) Usage(pods []*corev1.Pod) (items []metrics.PodMetrics, complete bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.live {
		return nil, false
	}
	p.uses.Add(1)
	for _, pod := range pods {
		each := *resource.NewMilliQuantity(p.load.work.Load()/int64(len(pods)), resource.DecimalSI)
		items = append(items, metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{Name: pod.Name}, Timestamp: metav1.Now(), Window: metav1.Duration{Duration: time.Second},
			Containers: []metrics.ContainerMetrics{{Name: "c", Usage: corev1.ResourceList{corev1.ResourceCPU: each}}}})
	}
	return items, true
}

// TestPushesAreLookedAt: once nodes push, nobody is asked, and each push is looked at, but no more often than once a second and never because a look
// has failed; an autoscaler that is gone wants nothing any longer.
func TestPushesAreLookedAt(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		l := begin(c, 1)
		feed := &pushing{load: l}
		l.feed = feed
		l.work.Store(50)
		l.start()
		c.Pass(6 * time.Minute)
		asked, uses := l.asked.Load(), feed.uses.Load()
		if asked == 0 || asked > 5 {
			t.Errorf("asked %d times, want only before the first push", asked)
		}
		l.work.Store(300)
		c.Pass(1500 * time.Millisecond)
		if n := replicas(c); n != 4 {
			t.Errorf("%d replicas within 1.5 s of the push that shows more load, want 4", n)
		}
		c.Pass(58500 * time.Millisecond)
		if n := feed.uses.Load() - uses; n < 50 || n > 90 {
			t.Errorf("%d looks in a minute, want one a second", n)
		}
		if l.asked.Load() != asked {
			t.Error("the metrics APIs were asked although nodes push")
		}
		ct.Delete[*autoscalingv2.HorizontalPodAutoscaler](c, ns, "web", metav1.DeleteOptions{})
		c.Pass(time.Second)
		feed.mu.Lock()
		defer feed.mu.Unlock()
		if len(feed.wanted) != 0 {
			t.Errorf("an autoscaler that is gone wants to know of %v", feed.wanted)
		}
	})
}

func TestALookThatFailedIsNotRepeatedByPushes(t *testing.T) {
	key := api.Key{Namespace: ns, Name: "web"}
	now := time.Unix(1e6, 0)
	for _, test := range []struct {
		name   string
		memory *memory
		others int
		want   bool
	}{
		{"it is time", &memory{looked: now.Add(-time.Second)}, 0, true},
		{"there was a look just now", &memory{looked: now.Add(-time.Second / 2)}, 0, false},
		{"the last look failed", &memory{looked: now.Add(-time.Second), failed: 1}, 0, false},
		{"nothing is known of it", nil, 0, false},
		{"there are very many", &memory{looked: now.Add(-time.Second)}, 100, false},
	} {
		r := &reconciler{known: map[api.Key]*memory{}}
		for i := range test.others {
			r.known[api.Key{Name: string(rune('a' + i))}] = &memory{}
		}
		if test.memory != nil {
			r.known[key] = test.memory
		}
		if got := r.due(key, now); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}
