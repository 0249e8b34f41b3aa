package e2e

import (
	"fmt"
	"net/url"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// runEtcd runs an etcd as somebody might have it already, in this process, and returns its URL.
func runEtcd(t testing.TB) string {
	t.Helper()
	clients := url.URL{Scheme: "http", Host: machineAddr + ":2379"}
	peers := url.URL{Scheme: "http", Host: "127.0.0.1:2380"}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir, cfg.LogLevel = "theirs", t.TempDir(), "error"
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{clients}, []url.URL{clients}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{peers}, []url.URL{peers}
	cfg.InitialCluster = cfg.Name + "=" + peers.String()
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	select {
	case <-e.Server.ReadyNotify():
	case <-time.After(time.Minute):
		t.Fatal("etcd was not ready within a minute")
	}
	return clients.String()
}

// TestServersShareAnExternalEtcd has two servers over an etcd that is not Knarr's. Whichever leads dies, and the other one goes on.
func TestServersShareAnExternalEtcd(t *testing.T) {
	t.Parallel()
	var flags []string
	if os.Getenv(envStage) == stageDev {
		flags = []string{"--no-agent", "--etcd-endpoints", runEtcd(t)}
	}
	dev := devCluster(t, 2, 2, flags...)
	if dev == nil {
		return
	}
	s := &servers{dev, 2}
	w := startClients(t, "default", s.all(t)...)
	d := &drill{servers: s, namespace: "default", clients: w, resumed: map[string][]time.Duration{}}
	for i := range 4 {
		w.waitMore(t, 50)
		const what = "kill -9 of one of two servers"
		at := w.Recorder.Now()
		d.crashed(t, i%2+1)
		d.resume(t, what, w.Recorder.Mark(fmt.Sprintf("%s (node-%d)", what, i%2+1), at))
		// The one that is left leads: what controllers do is done.
		name := fmt.Sprintf("drill-%d", i)
		d.must(t, "the Deployment is created", func() error { return d.create(t, name) })
		d.must(t, "the Deployment has its pod", func() error { return d.hasPods(t, name, 1) })
		d.ready = append(d.ready, w.Recorder.Now()-at)
		s.node(i%2 + 1).start(t)
	}
	w.waitMore(t, 50)
	w.check(t)
	d.report(t)
}
