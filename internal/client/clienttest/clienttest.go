// Package clienttest gives tests a real front door over a memory store: what they create is defaulted, validated and watched
// exactly as in a cluster, without a network or a disk.
//
// What flows through it: nothing but what the test writes. What must stay true: it works inside a testing/synctest bubble, and
// leaves no goroutine behind when the test ends. Tests: TestRunnerRetriesAndLooksAgain (internal/controller), which would not
// end otherwise.
package clienttest

import (
	"context"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

// New returns a client of an empty cluster that has the namespace "default".
func New(t testing.TB) *client.Local {
	t.Helper()
	c, _ := NewRegistry(t)
	return c
}

// NewRegistry is New for tests that need the registry itself, or another one than usual: change is applied to its settings.
func NewRegistry(t testing.TB, change ...func(*registry.Config)) (*client.Local, *registry.Registry) {
	t.Helper()
	cfg := registry.Config{Store: RunStore(t, store.NewMem()), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), Log: quiet()}
	for _, c := range change {
		c(&cfg)
	}
	r := registry.New(cfg)
	c := client.NewLocal(r)
	Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}})
	return c, r
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// RunStore runs a store of all resources over backend until the test ends, and returns it when it is ready.
func RunStore(t testing.TB, backend store.Backend) *store.Store {
	t.Helper()
	s := store.New(backend, quiet(), registry.Specs(api.Builtin)...)
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("the store failed: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-s.Ready()
	return s
}

// Create creates obj or fails the test.
func Create[T api.Object](t testing.TB, c client.Client, obj T) T {
	t.Helper()
	out, err := c.Create(context.Background(), obj)
	if err != nil {
		t.Fatalf("creating %T %s: %v", obj, api.KeyOf(obj), err)
	}
	return out.(T)
}

// Watch watches the objects of type T that opts choose, for tests that look at one batch after the other.
func Watch[T api.Object](ctx context.Context, c client.Client, opts client.ListOptions) (client.Watcher, error) {
	return c.Watch(ctx, client.ResourceOf[T](), opts)
}
