package cluster

import (
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/knarr-io/knarr/internal/store"
)

// startEtcd starts an etcd without other members.
func startEtcd(t *testing.T, dir string) *Etcd {
	t.Helper()
	e, err := OpenEtcd(EtcdConfig{Dir: dir, Name: "n1", PeerURL: "http://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEtcdKeepsWhatItWasGiven(t *testing.T) {
	dir := t.TempDir() + "/etcd"
	start := time.Now()
	e := startEtcd(t, dir)
	t.Logf("first start: %v", time.Since(start))
	if _, err := e.Client().Put(t.Context(), "/registry/x", "y"); err != nil {
		t.Fatal(err)
	}
	e.Close()
	start = time.Now()
	e = startEtcd(t, dir)
	defer e.Close()
	t.Logf("second start: %v", time.Since(start))
	got, err := e.Client().Get(t.Context(), "/registry/x")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "y" {
		t.Errorf("after a restart: %v %v", got, err)
	}
}

func TestRefusedTransactionsSayWhichConditionsFailed(t *testing.T) {
	e := startEtcd(t, t.TempDir()+"/etcd")
	defer e.Close()
	s := store.NewEtcd(e.Client())
	rev, err := s.Commit(t.Context(), []store.Op{{Key: "/registry/a", Value: []byte("1")}, {Key: "/registry/b", Value: []byte("1")}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Commit(t.Context(), []store.Op{
		{Key: "/registry/a", Value: []byte("2"), If: rev},
		{Key: "/registry/b", Value: []byte("2"), If: 0},
		{Key: "/registry/c", If: rev},
		{Key: "/registry/d", Value: []byte("2"), If: store.Any},
	})
	var conflict *store.ConflictError
	if !errors.As(err, &conflict) || !slices.Equal(conflict.Ops, []int{1, 2}) {
		t.Fatalf("got %v, want a conflict of ops 1 and 2", err)
	}
	if now, err := s.Revision(t.Context()); err != nil || now != rev {
		t.Errorf("a refused transaction moved the revision from %d to %d (%v)", rev, now, err)
	}
}
