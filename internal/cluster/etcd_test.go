package cluster

import (
	"testing"
	"time"
)

func TestEtcdKeepsWhatItWasGiven(t *testing.T) {
	dir := t.TempDir() + "/etcd"
	start := time.Now()
	e, err := StartEtcd(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("first start: %v", time.Since(start))
	if _, err := e.Client().Put(t.Context(), "/registry/x", "y"); err != nil {
		t.Fatal(err)
	}
	e.Close()
	start = time.Now()
	if e, err = StartEtcd(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	t.Logf("second start: %v", time.Since(start))
	got, err := e.Client().Get(t.Context(), "/registry/x")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "y" {
		t.Errorf("after a restart: %v %v", got, err)
	}
}
