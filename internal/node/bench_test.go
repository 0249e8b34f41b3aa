package node

import (
	"context"
	"fmt"
	goruntime "runtime"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// BenchmarkHollowPods measures pods from creation to Ready on hollow nodes, through the real front door over memory.
func BenchmarkHollowPods(b *testing.B) {
	for _, nodes := range []int{100, 1000} {
		b.Run(fmt.Sprint("nodes=", nodes), func(b *testing.B) { hollowPods(b, nodes) })
	}
}

func hollowPods(b *testing.B, nodes int) {
	c := clienttest.New(b)
	clienttest.Create(b, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: corev1.NamespaceNodeLease}})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer func() { cancel(); wg.Wait() }()
	for i := range nodes {
		cfg := hollowConfig(nil, c, runtime.NewFake(runtime.FakeOptions{Name: fmt.Sprint("f", i), PodCIDR: fmt.Sprintf("10.%d.0.0/16", i%256)}))
		cfg.Logger, cfg.NodeName, cfg.MaxPods = nil, fmt.Sprint("n", i), 1_000_000
		a, err := New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		wg.Go(func() { _ = a.Run(ctx) })
	}
	w, err := clienttest.Watch[*corev1.Pod](ctx, c, client.ListOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer w.Stop()
	b.ResetTimer()
	began := time.Now()
	wg.Go(func() {
		for i := range b.N {
			_, err := c.Create(ctx, testPod(fmt.Sprint("p", i), func(p *corev1.Pod) { p.Spec.NodeName = fmt.Sprint("n", i%nodes) }))
			if err != nil {
				b.Error(err)
			}
		}
	})
	for running := 0; running < b.N; {
		batch, err := w.Next(ctx)
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range batch.Events {
			if e.Type != client.Modified {
				continue
			}
			was, is := e.Old.(*corev1.Pod), e.Object.(*corev1.Pod)
			if condition(was, corev1.PodReady) != corev1.ConditionTrue && condition(is, corev1.PodReady) == corev1.ConditionTrue {
				running++
			}
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "pods/s")
	var mem goruntime.MemStats
	goruntime.GC()
	goruntime.ReadMemStats(&mem)
	b.ReportMetric(float64(mem.HeapAlloc)/float64(b.N), "heap-B/pod") // the API's copy included
	b.ReportMetric(float64(goruntime.NumGoroutine())/float64(nodes), "goroutines/node")
}
