package scheduler

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// BenchmarkScheduler measures the whole scheduler over the real front door and a memory store: pods exist, Run begins, until all
// are bound.
func BenchmarkScheduler(b *testing.B) {
	for _, size := range []struct{ nodes, pods int }{{1000, 10000}, {5000, 10000}} {
		b.Run(fmt.Sprintf("nodes=%d/pods=%d", size.nodes, size.pods), func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				c := clienttest.New(b)
				create(b, c, size.nodes, func(i int) api.Object { return benchNode(i) })
				create(b, c, size.pods, func(i int) api.Object {
					return newPod(fmt.Sprintf("app-%d-%d", i%20, i), "100m", func(p *corev1.Pod) {
						yes, app := true, fmt.Sprintf("app-%d", i%20)
						p.Labels = map[string]string{"app": app}
						p.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app, UID: "uid-" + "x", Controller: &yes}}
					})
				})
				w, err := c.Watch(context.Background(), api.Pods, client.ListOptions{})
				if err != nil {
					b.Fatal(err)
				}
				s := New(Config{Client: c, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
				ctx, cancel := context.WithCancel(context.Background())
				done := make(chan error)
				b.StartTimer()
				begun := time.Now()
				go func() { done <- s.Run(ctx) }()
				for bound := 0; bound < size.pods; {
					batch, err := w.Next(ctx)
					if err != nil {
						b.Fatal(err)
					}
					for _, e := range batch.Events {
						if e.Type == client.Modified && e.Object.(*corev1.Pod).Spec.NodeName != "" {
							bound++
						}
					}
				}
				b.ReportMetric(float64(size.pods)/time.Since(begun).Seconds(), "pods/s")
				b.StopTimer()
				w.Stop()
				cancel()
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
			}
		})
	}
}

func create(b *testing.B, c client.Client, n int, build func(int) api.Object) {
	var objs []api.Object
	for i := range n {
		objs = append(objs, build(i))
	}
	for _, r := range c.CreateMany(context.Background(), objs) {
		if r.Err != nil {
			b.Fatal(r.Err)
		}
	}
}

func benchNode(i int) *corev1.Node {
	name := fmt.Sprintf("node-%d", i)
	list := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("64"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%3)}},
		Status:     corev1.NodeStatus{Capacity: list, Allocatable: list},
	}
}
