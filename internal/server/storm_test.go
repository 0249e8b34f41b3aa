package server_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/version"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

// onDisk returns a store's backend over an etcd in this process that waits for the disk, as a cluster's does.
func onDisk(t testing.TB) store.Backend {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "test", t.TempDir()+"/etcd"
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.AdvertiseClientUrls = nil, nil, nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "http", Host: "localhost:2380"}}
	cfg.InitialCluster = "test=http://localhost:2380"
	cfg.TickMs, cfg.ElectionMs, cfg.MaxTxnOps = 20, 100, 8192
	cfg.LogLevel, cfg.LogOutputs = "error", []string{cfg.Dir + ".log"}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	<-e.Server.ReadyNotify()
	c := v3client.New(e.Server)
	t.Cleanup(func() { _ = c.Close(); e.Close() })
	return store.NewEtcd(c)
}

// storm returns a server over backend with the one object that all change.
func storm(t testing.TB, backend store.Backend) (*registry.Registry, http.Handler) {
	t.Helper()
	reg := registry.New(registry.Config{Store: clienttest.RunStore(t, backend), Log: slog.New(slog.DiscardHandler)})
	c := client.NewLocal(reg)
	clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: metav1.NamespaceDefault}})
	clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "one"}})
	return reg, server.New(server.Config{
		Registry: reg, Authenticator: byHeader{}, Authorizer: authz.Union{authz.Masters{}},
		Version: version.Info{Major: "1", Minor: "37", GitVersion: "v1.37.2+knarr"}, Log: slog.New(slog.DiscardHandler),
	})
}

// writers carries out n patches of one object by as many writers at a time, and returns how long the slowest took.
func writers(t testing.TB, count, n int, patch func(writer, i int) error) (slowest time.Duration) {
	var next, worst atomic.Int64
	var wg sync.WaitGroup
	for w := range count {
		wg.Go(func() {
			for {
				i := int(next.Add(1))
				if i > n {
					return
				}
				began := time.Now()
				if err := patch(w, i); err != nil {
					t.Errorf("patch %d: %v", i, err)
					return
				}
				for took := int64(time.Since(began)); ; {
					if have := worst.Load(); took <= have || worst.CompareAndSwap(have, took) {
						break
					}
				}
			}
		})
	}
	wg.Wait()
	return time.Duration(worst.Load())
}

// overHTTP returns a patch of the one object by a client of url.
func overHTTP(c *http.Client, url string) func(writer, i int) error {
	return func(writer, i int) error {
		req, err := http.NewRequest("PATCH", url+"/api/v1/namespaces/default/configmaps/one", strings.NewReader(fmt.Sprintf(`{"data":{"w%d":"%d"}}`, writer, i)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/merge-patch+json")
		resp, err := c.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("%d %s", resp.StatusCode, b)
		}
		return err
	}
}

// inProcess is overHTTP for callers in this process.
func inProcess(reg *registry.Registry) func(writer, i int) error {
	return func(writer, i int) error {
		_, _, err := reg.Update(context.Background(), api.ConfigMaps, api.Key{Namespace: "default", Name: "one"}, "", func(o api.Object) (api.Object, error) {
			m := o.DeepCopyObject().(*corev1.ConfigMap)
			if m.Data == nil {
				m.Data = map[string]string{}
			}
			m.Data[fmt.Sprint("w", writer)] = fmt.Sprint(i)
			return m, nil
		}, registry.UpdateOptions{})
		return err
	}
}

// BenchmarkPatchesOfOneObject is a storm: many writers of one object.
func BenchmarkPatchesOfOneObject(b *testing.B) {
	for name, backend := range map[string]func(testing.TB) store.Backend{"mem": func(testing.TB) store.Backend { return store.NewMem() }, "etcd": onDisk} {
		for _, count := range []int{8, 64} {
			reg, handler := storm(b, backend(b))
			h := httptest.NewServer(handler)
			b.Cleanup(h.Close)
			c := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: count}}
			for how, patch := range map[string]func(writer, i int) error{"in process": inProcess(reg), "http": overHTTP(c, h.URL)} {
				b.Run(fmt.Sprintf("%s/%d writers/%s", name, count, how), func(b *testing.B) {
					slowest := writers(b, count, b.N, patch)
					b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "patches/s")
					b.ReportMetric(float64(slowest.Milliseconds()), "slowest-ms")
				})
			}
		}
	}
}

func TestAStormOfPatchesLosesNone(t *testing.T) {
	reg, handler := storm(t, store.NewMem())
	h := httptest.NewServer(handler)
	defer h.Close()
	before := reg.Store().Revision()
	const count, n = 32, 400
	writers(t, count, n, overHTTP(h.Client(), h.URL))
	one, err := reg.Get(t.Context(), api.ConfigMaps, api.Key{Namespace: "default", Name: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if used := reg.Store().Revision() - before; used != n {
		t.Errorf("%d patches are %d revisions of %s", n, used, one.Object.GetName())
	}
}
