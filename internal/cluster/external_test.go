package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/server/v3/embed"

	"github.com/knarr-io/knarr/internal/store"
)

// listeningEtcd starts an etcd as somebody else runs one, with its own limits, and returns its URL.
func listeningEtcd(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := url.URL{Scheme: "http", Host: l.Addr().String()}
	_ = l.Close() // etcd takes it
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "theirs", filepath.Join(t.TempDir(), "etcd")
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenPeerUrls = []url.URL{at}, []url.URL{at}, nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:1"}}
	cfg.InitialCluster = "theirs=http://127.0.0.1:1"
	cfg.LogLevel, cfg.LogOutputs = "error", []string{filepath.Join(t.TempDir(), "etcd.log")}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return at.String()
}

func TestServersThatShareAnExternalEtcdTakeTurns(t *testing.T) {
	t.Parallel()
	endpoint := listeningEtcd(t)
	var leading atomic.Int64
	start := func(name string) (e *External, led *atomic.Int64, stop func()) {
		e, err := OpenExternal(ExternalConfig{Endpoints: []string{endpoint}, Name: name, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		led = &atomic.Int64{}
		wg.Go(func() {
			if err := e.Run(ctx); err != nil {
				t.Errorf("%s ended: %v", name, err)
			}
		})
		wg.Go(func() {
			_ = e.Lead(ctx, func(ctx context.Context) error {
				if leading.Add(1) > 1 {
					t.Error("two lead")
				}
				led.Add(1)
				<-ctx.Done()
				leading.Add(-1)
				return nil
			})
		})
		stop = sync.OnceFunc(func() { cancel(); wg.Wait(); e.Close() })
		t.Cleanup(stop)
		if err := e.WaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
		return e, led, stop
	}
	leads := func(name string, led *atomic.Int64) {
		t.Helper()
		within(t, name+" leads", func(context.Context) error {
			if led.Load() == 0 {
				return errors.New("it does not")
			}
			return nil
		})
	}
	a, ledA, stopA := start("a")
	leads("a", ledA)
	b, ledB, _ := start("b")

	// Their etcd takes 128 operations in a transaction.
	s := store.New(store.NewEtcd(b.Client()).WithMaxOps(ExternalMaxOps).WithLeader(b.Leader), slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { _ = s.Run(ctx) })
	<-s.Ready()
	fence, err := s.TakeFence(ctx, store.LeaderKey, nil)
	if err != nil {
		t.Fatal(err)
	}
	groups := make([][]store.Mutation, 500)
	for i := range groups {
		groups[i] = []store.Mutation{{Key: fmt.Sprintf("/registry/knarr/x%d", i), Raw: []byte("x"), If: 0}}
	}
	for i, err := range s.CommitEach(store.WithFence(ctx, fence), groups) {
		if err != nil {
			t.Fatalf("write %d of many: %v", i, err)
		}
	}
	if _, err := a.Contact().Epoch(); err != nil || !a.Several() {
		t.Errorf("a has no contact: %v", err)
	}
	if ledB.Load() != 0 {
		t.Error("b leads beside a")
	}
	stopA()
	leads("b", ledB)
}
