package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/test/history"
)

// clients write, read and follow ConfigMaps at one or more servers while the test breaks them.
type clients struct {
	*history.Load
	cancel context.CancelFunc
	ended  chan error
}

// startClients lets clients work in a namespace until their history is checked.
func startClients(t testing.TB, namespace string, servers ...history.Server) *clients {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	t.Logf("the clients' seed is %d", seed)
	ctx, cancel := context.WithCancel(context.Background())
	c := &clients{cancel: cancel, ended: make(chan error, 1), Load: history.NewLoad(history.Config{
		Servers: servers, Namespace: namespace, Writers: 8, Readers: 3, Followers: max(2, len(servers)), Seed: seed, Pause: 10 * time.Millisecond,
	})}
	go func() { c.ended <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if c.ended != nil {
			<-c.ended
		}
	})
	return c
}

// check stops the clients; what they saw must be possible.
func (c *clients) check(t testing.TB) *history.History {
	t.Helper()
	c.cancel()
	err := <-c.ended
	c.ended = nil
	h := c.Recorder.History()
	t.Log(history.Report(h))
	if err != nil {
		t.Error(err)
	}
	began := time.Now()
	if err := history.Check(h); err != nil {
		t.Error(err)
	}
	t.Logf("the check took %v", time.Since(began).Round(time.Millisecond))
	return h
}

// waitMore waits until n more writes were acknowledged.
func (c *clients) waitMore(t testing.TB, n int) {
	t.Helper()
	want := c.Recorder.Acked() + n
	eventually(t, 60*time.Second, fmt.Sprintf("%d more writes", n), func() error {
		if got := c.Recorder.Acked(); got < want {
			return fmt.Errorf("%d to go", want-got)
		}
		return nil
	})
}

// adminConfig is the administrator's way to the API, by a kubeconfig.
func adminConfig(t testing.TB, kubeconfig string) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// serverAt is a server for clients, with the administrator's certificate; url may be empty for the kubeconfig's own.
func serverAt(t testing.TB, name, kubeconfig, url string) history.Server {
	t.Helper()
	config := adminConfig(t, kubeconfig)
	conf, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	if url == "" {
		url = config.Host
	}
	return history.NewServer(name, url, conf)
}

// theServer is the only server of the tests' cluster.
func theServer(t testing.TB) history.Server {
	t.Helper()
	return serverAt(t, "server", filepath.Join(cluster.dataDir, "kubeconfig"), "")
}
