package store_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/knarr-io/knarr/internal/store"
)

// startEtcd starts an etcd in this process that listens nowhere.
func startEtcd(t testing.TB, dir string, fsync bool) (*clientv3.Client, func()) {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "test", dir
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil, nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = "test=http://localhost:2380"
	cfg.TickMs, cfg.ElectionMs = 20, 100
	cfg.MaxTxnOps = 8192
	cfg.UnsafeNoFsync = !fsync
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{dir + ".log"}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(30 * time.Second):
		t.Fatal("etcd was not ready in time")
	}
	c := v3client.New(e.Server)
	return c, func() { _ = c.Close(); e.Close() }
}

// backend is a Backend under test, with a way to make it forget.
type backend struct {
	store.Backend
	compact func(rev int64)
}

// forEachBackend runs a test over each kind of Backend.
func forEachBackend(t *testing.T, test func(t *testing.T, b backend)) {
	t.Run("mem", func(t *testing.T) {
		m := store.NewMem()
		test(t, backend{m, m.Compact})
	})
	t.Run("etcd", func(t *testing.T) {
		c, stop := startEtcd(t, t.TempDir()+"/etcd", false)
		t.Cleanup(stop)
		test(t, backend{store.NewEtcd(c), func(rev int64) {
			if _, err := c.Compact(context.Background(), rev); err != nil {
				t.Fatal(err)
			}
		}})
	})
}

func put(key, value string, cond int64) store.Op {
	return store.Op{Key: "/registry/" + key, Value: []byte(value), If: cond}
}

func del(key string, cond int64) store.Op { return store.Op{Key: "/registry/" + key, If: cond} }

func TestBackendTransactions(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		rev1, err := b.Commit(t.Context(), []store.Op{put("a", "1", 0), put("b", "1", 0)})
		if err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			name   string
			ops    []store.Op
			failed []int // nil: it is carried out
		}{
			{"a key that must not exist does", []store.Op{put("c", "x", 0), put("a", "x", 0)}, []int{1}},
			{"a key that must exist does not", []store.Op{put("z", "x", rev1)}, []int{0}},
			{"all failures are named", []store.Op{del("a", rev1+7), put("b", "x", rev1), del("z", 3)}, []int{0, 2}},
			{"nothing of a refused transaction is done", []store.Op{put("c", "2", 0)}, nil},
			{"a deletion of nothing", []store.Op{del("z", 0)}, nil},
			{"any revision will do", []store.Op{put("a", "2", store.Any), del("y", store.Any)}, nil},
			{"what changed has a new revision", []store.Op{put("a", "x", rev1)}, []int{0}},
			{"what did not has not", []store.Op{del("b", rev1)}, nil},
			{"what was deleted does not exist", []store.Op{put("b", "3", 0)}, nil},
		} {
			before, _ := b.Revision(t.Context())
			rev, err := b.Commit(t.Context(), tc.ops)
			var conflict *store.ConflictError
			switch {
			case tc.failed == nil && err != nil:
				t.Errorf("%s: %v", tc.name, err)
			case tc.failed != nil && (!errors.As(err, &conflict) || !slices.Equal(conflict.Ops, tc.failed)):
				t.Errorf("%s: %v (%+v), want conflicts at %v", tc.name, err, conflict, tc.failed)
			case tc.failed != nil && conflict.Rev < before:
				t.Errorf("%s: the conflict is seen at %d, which is before the transaction (%d)", tc.name, conflict.Rev, before)
			case tc.failed == nil && rev < before:
				t.Errorf("%s: revision %d after %d", tc.name, rev, before)
			}
		}
		got := ""
		rev, err := b.Load(t.Context(), "/registry/", func(kv store.KV) error {
			got += fmt.Sprintf("%s=%s ", kv.Key[len("/registry/"):], kv.Value)
			return nil
		})
		if want := "a=2 b=3 c=2 "; err != nil || got != want {
			t.Errorf("loaded %q at %d, %v; want %q", got, rev, err, want)
		}
		stop := errors.New("enough")
		if _, err := b.Load(t.Context(), "/registry/", func(store.KV) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("a visit's error: %v", err)
		}
	})
}

func TestBackendWatch(t *testing.T) {
	forEachBackend(t, func(t *testing.T, b backend) {
		commit := func(ops ...store.Op) int64 {
			rev, err := b.Commit(t.Context(), ops)
			if err != nil {
				t.Fatal(err)
			}
			return rev
		}
		first := commit(put("a", "1", 0))
		second := commit(put("a", "2", first), put("b", "1", 0))
		third := commit(del("a", second))

		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		var got []string
		var last int64
		fourth := int64(0)
		err := b.Watch(ctx, "/registry/", first, func(rev int64, changes []store.Change) {
			if rev < last {
				t.Errorf("revision %d after %d", rev, last)
			}
			last = rev
			for _, c := range changes {
				got = append(got, fmt.Sprintf("%d:%s=%s", rev-first, c.Key[len("/registry/"):], c.Value))
			}
			if rev == third && fourth == 0 {
				commit(store.Op{Key: "/elsewhere/x", Value: []byte("1"), If: 0}) // is not told, but reached
				fourth = commit(put("c", "1", 0))
				commit(store.Op{Key: "/elsewhere/y", Value: []byte("1"), If: 0})
				newest, err := b.Revision(ctx)
				if err != nil || newest != fourth+1 {
					t.Errorf("revision %d, %v; want %d", newest, err, fourth+1)
				}
			}
			if rev > fourth && fourth > 0 {
				cancel() // the newest revision is reached although nothing of ours happened at it
			}
		})
		want := []string{"1:a=2", "1:b=1", "2:a=", "4:c=1"}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("watched %v, %v; want %v", got, err, want)
		}

		b.compact(fourth)
		ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if err := b.Watch(ctx, "/registry/", first, func(int64, []store.Change) {}); !errors.Is(err, store.ErrTooOld) {
			t.Errorf("a watch from before the compaction: %v", err)
		}
	})
}

func TestEtcdLoadsInPages(t *testing.T) {
	c, stop := startEtcd(t, t.TempDir()+"/etcd", false)
	defer stop()
	b := store.NewEtcd(c)
	const n, step = 12_000, 500 // more than two pages, in transactions that a slow machine carries out in time
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for i := 0; i < n; i += step {
		var ops []store.Op
		for j := i; j < i+step; j++ {
			ops = append(ops, put(fmt.Sprintf("k/%05d", j), "v", store.Any))
		}
		for {
			_, err := b.Commit(ctx, ops)
			if err == nil {
				break
			}
			if !errors.Is(err, store.ErrUnavailable) || ctx.Err() != nil {
				t.Fatal(err)
			}
		}
	}
	seen := 0
	if _, err := b.Load(t.Context(), "/registry/", func(kv store.KV) error {
		if want := fmt.Sprintf("/registry/k/%05d", seen); kv.Key != want {
			t.Fatalf("key %s, want %s", kv.Key, want)
		}
		seen++
		return nil
	}); err != nil || seen != n {
		t.Errorf("loaded %d keys, %v", seen, err)
	}
}

func TestUnavailableEtcdIsNamedSo(t *testing.T) {
	c, stop := startEtcd(t, t.TempDir()+"/etcd", false)
	b := store.NewEtcd(c)
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := b.Commit(ctx, []store.Op{put("a", "1", 0)})
	if !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a write to an etcd that was stopped: %v", err)
	}
}
