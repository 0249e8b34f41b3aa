package sim

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/node/hollow"
	"github.com/knarr-io/knarr/internal/store"
)

// world is a cluster in virtual time.
type world struct {
	client.Client
	agents  func(node string) client.Client
	t       *testing.T
	ctx     context.Context
	backend *faulty
	wg      sync.WaitGroup
}

// simulate runs f in a world of its own, whose control plane is ready.
func simulate(t *testing.T, seed uint64, f func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		w := &world{t: t, ctx: ctx, backend: newFaulty(store.NewMem(), seed)}
		defer w.wg.Wait()
		defer cancel()
		services := netip.MustParsePrefix("10.96.0.0/16")
		plane, err := controlplane.New(controlplane.Config{
			Backend: w.backend, ServiceCIDR: services, ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), CA: []byte("CA"),
			Initial: controlplane.Params{ServiceCIDR: services, ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")},
			Log:     slog.New(slog.DiscardHandler),
		})
		if err != nil {
			t.Fatal(err)
		}
		w.Client, w.agents = plane.Client, plane.NodeClient
		w.wg.Go(func() {
			if err := plane.Run(ctx); err != nil {
				t.Errorf("the control plane failed: %v", err)
			}
		})
		<-plane.Ready()
		f(w)
	})
}

// nodes starts count nodes, numbered from first, and waits until they are ready. The returned function makes them fall silent.
func (w *world) nodes(first, count int) (stop func()) {
	w.t.Helper()
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan struct{})
	w.wg.Go(func() {
		defer close(done)
		cfg := hollow.Config{First: first, Count: count, Client: w.agents, Version: "v1.37.2+knarr", SandboxDelay: time.Second, Log: slog.New(slog.DiscardHandler)}
		if err := hollow.Run(ctx, cfg); err != nil {
			w.t.Errorf("the nodes failed: %v", err)
		}
	})
	w.until(fmt.Sprintf("%d nodes to be ready", count), time.Minute, func() (bool, any) {
		n := 0
		for i := first; i < first+count; i++ {
			if node, err := client.Get[*corev1.Node](w.ctx, w.Client, api.Key{Name: hollow.Name(i)}); err == nil && nodeReady(node) {
				n++
			}
		}
		return n == count, n
	})
	return func() { cancel(); <-done }
}

// pass lets time pass, and what follows from it happen.
func (w *world) pass(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

// until lets time pass until cond holds, for at most limit; the time-out shows what cond saw last. It returns how long it took.
func (w *world) until(what string, limit time.Duration, cond func() (bool, any)) time.Duration {
	w.t.Helper()
	began := time.Now()
	for {
		synctest.Wait()
		ok, seen := cond()
		if ok {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			w.t.Fatalf("waited %v for %s, but: %v (faults of seed %d)", limit, what, seen, w.backend.seed)
		}
		w.pass(100 * time.Millisecond)
	}
}

// deploy creates a Deployment.
func (w *world) deploy(name string, replicas int32, change ...func(*appsv1.Deployment)) {
	w.t.Helper()
	labels := map[string]string{"app": name}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: labels},
				Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "docker.io/library/app:1"}}},
			},
		},
	}
	for _, c := range change {
		c(d)
	}
	// As a user would: again, if the store failed.
	w.until("the Deployment to be created", time.Minute, func() (bool, any) {
		_, err := w.Create(w.ctx, d.DeepCopy())
		return err == nil || apierrors.IsAlreadyExists(err), err
	})
}

// change changes a Deployment.
func (w *world) change(name string, change func(*appsv1.Deployment)) {
	w.t.Helper()
	w.until("the Deployment to be changed", time.Minute, func() (bool, any) {
		_, err := client.Mutate(w.ctx, w.Client, api.Key{Namespace: "default", Name: name}, "", func(d *appsv1.Deployment) bool { change(d); return true })
		return err == nil, err
	})
}

// settled reports whether exactly n pods of a Deployment are there and ready, all with image, and its status says so.
func (w *world) settled(name, image string, n int) func() (bool, any) {
	return func() (bool, any) {
		all, ready, current := 0, 0, 0
		for _, p := range w.pods(name) {
			all++
			if podReady(p) {
				ready++
			}
			if p.Spec.Containers[0].Image == image {
				current++
			}
		}
		d, err := client.Get[*appsv1.Deployment](w.ctx, w.Client, api.Key{Namespace: "default", Name: name})
		if err != nil {
			return false, err
		}
		s := d.Status
		ok := all == n && ready == n && current == n && s.ObservedGeneration == d.Generation &&
			int(s.ReadyReplicas) == n && int(s.UpdatedReplicas) == n && int(s.AvailableReplicas) == n && int(s.Replicas) == n
		return ok, fmt.Sprintf("%d pods, %d ready, %d of %s; the Deployment says %d, %d ready, %d updated", all, ready, current, image, s.Replicas, s.ReadyReplicas, s.UpdatedReplicas)
	}
}

// pods lists the pods of a Deployment.
func (w *world) pods(name string) []*corev1.Pod {
	w.t.Helper()
	all, err := client.List[*corev1.Pod](w.ctx, w.Client, client.ListOptions{Namespace: "default"})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []*corev1.Pod
	for _, p := range all {
		if p.Labels["app"] == name {
			out = append(out, p)
		}
	}
	return out
}

func podReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

func nodeReady(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

func atMost(n int) *intstr.IntOrString {
	v := intstr.FromInt(n)
	return &v
}
