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

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/store"
)

// frozen is the backend of a server that stops now and then, as a machine that is suspended or a process that gets no processor: what it has sent
// arrives when it goes on, and it sees nothing in between.
type frozen struct {
	store.Backend
	mu   sync.Mutex
	ice  chan struct{} // closed when the server goes on; nil while it does
	late int           // transactions that arrived late
}

func (f *frozen) freeze() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ice = make(chan struct{})
}

func (f *frozen) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.ice)
	f.ice = nil
}

func (f *frozen) wait() (waited bool) {
	f.mu.Lock()
	ice := f.ice
	f.mu.Unlock()
	if ice != nil {
		<-ice
	}
	return ice != nil
}

func (f *frozen) Commit(ctx context.Context, ops []store.Op) (int64, error) {
	if f.wait() {
		f.mu.Lock()
		f.late++
		f.mu.Unlock()
		ctx = context.WithoutCancel(ctx) // what is on its way cannot be called back
	}
	return f.Backend.Commit(ctx, ops)
}

func (f *frozen) Watch(ctx context.Context, prefix string, from int64, apply func(int64, []store.Change)) error {
	return f.Backend.Watch(ctx, prefix, from, func(rev int64, changes []store.Change) {
		f.wait()
		if ctx.Err() == nil {
			apply(rev, changes)
		}
	})
}

// rival is one of two servers over one backend. It leads for each of the terms that it gets or, once lead is closed, for good, and nobody
// ever tells it that it no longer does.
type rival struct {
	*controlplane.Plane
	backend *frozen
	lead    chan struct{}
	terms   chan context.Context
}

// rivals runs f in a world with two servers. The world's own client is the second one's.
func rivals(t *testing.T, f func(w *world, first, second *rival)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		mem := newFaulty(store.NewMem(), 0)
		w := &world{t: t, ctx: ctx, backend: mem}
		defer w.wg.Wait()
		defer cancel()
		var both [2]*rival
		for i := range both {
			both[i] = w.rival(i, mem)
		}
		w.Client, w.agents = both[1].Client, both[1].NodeClient
		f(w, both[0], both[1])
	})
}

// rival starts server i of several over a backend.
func (w *world) rival(i int, backend store.Backend) *rival {
	w.t.Helper()
	r := &rival{backend: &frozen{Backend: backend}, lead: make(chan struct{}), terms: make(chan context.Context)}
	services := netip.MustParsePrefix("10.96.0.0/16")
	plane, err := controlplane.New(controlplane.Config{
		Backend: r.backend, ServiceCIDR: services, ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), CA: []byte("CA"),
		Initial: controlplane.Params{ServiceCIDR: services, ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")},
		Lead:    r.leads, Several: func() bool { return true }, Name: fmt.Sprintf("server-%d", i), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		w.t.Fatal(err)
	}
	r.Plane = plane
	w.wg.Go(func() {
		if err := plane.Run(w.ctx); err != nil {
			w.t.Errorf("a control plane failed: %v", err)
		}
	})
	<-plane.Ready()
	return r
}

// leads calls act for each of the server's terms.
func (r *rival) leads(ctx context.Context, act func(context.Context) error) error {
	for {
		select {
		case <-r.lead:
			return act(ctx)
		case term := <-r.terms:
			limited, cancel := context.WithCancel(ctx)
			stop := context.AfterFunc(term, cancel)
			err := act(limited)
			stop()
			cancel()
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// created counts the pods that are ever made, by their UIDs, until the world ends.
func (w *world) created() (count func() int) {
	w.t.Helper()
	pods, err := clienttest.Watch[*corev1.Pod](w.ctx, w.Client, client.ListOptions{Namespace: "default"})
	if err != nil {
		w.t.Fatal(err)
	}
	var mu sync.Mutex
	uids, bound := map[string]bool{}, map[string]string{}
	w.wg.Go(func() {
		defer pods.Stop()
		for {
			batch, err := pods.Next(w.ctx)
			if err != nil {
				return
			}
			mu.Lock()
			for _, e := range batch.Events {
				p := e.Object.(*corev1.Pod)
				uid := string(p.UID)
				uids[uid] = true
				if before := bound[uid]; before != "" && before != p.Spec.NodeName {
					w.t.Errorf("pod %s was bound to %s and then to %s", p.Name, before, p.Spec.NodeName)
				}
				bound[uid] = p.Spec.NodeName
			}
			mu.Unlock()
		}
	})
	return func() int { mu.Lock(); defer mu.Unlock(); return len(uids) }
}

// TestTheLeaderThatWasSuspendedIsRefused freezes the leader in the middle of a roll-out. Another server takes over and finishes it; when the first one goes
// on, still taking itself for the leader, nothing of what it had on its way is done.
func TestTheLeaderThatWasSuspendedIsRefused(t *testing.T) {
	for _, after := range []time.Duration{0, time.Millisecond, 20 * time.Millisecond, 200 * time.Millisecond} {
		t.Run(after.String(), func(t *testing.T) {
			rivals(t, func(w *world, first, second *rival) {
				close(first.lead)
				w.nodes(0, 4)
				created := w.created()
				w.deploy("web", 10)
				w.until("10 pods", time.Minute, w.settled("web", "docker.io/library/app:1", 10))

				key := api.Key{Namespace: "default", Name: "web"}
				// At the first server, which so knows of it when it is frozen.
				if _, err := client.Mutate(w.ctx, first.Client, key, "", func(d *appsv1.Deployment) bool { *d.Spec.Replicas = 30; return true }); err != nil {
					t.Fatal(err)
				}
				time.Sleep(after)
				first.backend.freeze()
				w.pass(time.Second)
				close(second.lead)
				w.until("30 pods, by the second server", time.Minute, w.settled("web", "docker.io/library/app:1", 30))
				if n := created(); n != 30 {
					t.Errorf("%d pods were made for a Deployment of 30", n)
				}

				// Neither is told to stop: they take over from each other for as long as they meet, and still do everything once.
				first.backend.thaw()
				w.change("web", func(d *appsv1.Deployment) { *d.Spec.Replicas = 40 })
				w.until("40 pods, with two who want to lead", 5*time.Minute, w.settled("web", "docker.io/library/app:1", 40))
				w.pass(time.Minute)
				if ok, seen := w.settled("web", "docker.io/library/app:1", 40)(); !ok {
					t.Errorf("a minute later: %v", seen)
				}
				if n := created(); n != 40 {
					t.Errorf("%d pods were made for a Deployment of 40", n)
				}
				if after == 0 && first.backend.late == 0 {
					t.Error("the frozen server had nothing on its way")
				}
			})
		})
	}
}
