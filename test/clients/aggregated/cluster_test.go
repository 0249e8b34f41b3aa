// Package aggregated runs Kubernetes' own example of an aggregated API server, k8s.io/sample-apiserver, behind Knarr: it takes its users and
// rights from Knarr, and Knarr's clients use its resources like any other.
package aggregated

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/store"
)

// knarr runs a whole control plane over memory, and returns the administrator's kubeconfig.
func knarr(t *testing.T) (kubeconfig string) {
	t.Helper()
	keys, err := pki.Ensure(t.TempDir(), pki.Params{})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	services, pods := netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")
	plane, err := controlplane.New(controlplane.Config{
		Backend: store.NewMem(), ServiceCIDR: services, ClusterCIDR: pods, CA: keys.CAPEM(), Sign: keys.SignRequest, Log: log,
		FrontProxy: keys.FrontProxy, FrontProxyCA: keys.FrontProxyCAPEM(),
		Initial: controlplane.Params{ServiceCIDR: services, ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443")},
	})
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := authn.NewTokens(authn.TokensConfig{Key: keys.TokenKey(), Reader: plane.Registry.Reader()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := plane.Run(ctx); err != nil {
			t.Errorf("the control plane ended: %v", err)
		}
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := server.HTTPServer(keys.VerifyClients(server.New(server.Config{
		Registry: plane.Registry, Authorizer: plane.Authorizer(), Aggregator: plane.Aggregator, Tokens: tokens, Log: log,
		Authenticator: authn.Union{authn.NewRequestHeader(keys.FrontProxyPool(), []string{pki.FrontProxyName}, nil), authn.NewClientCert(nil), tokens},
	})), log)
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	wg.Go(func() { _ = srv.Serve(tls.NewListener(l, keys.ServerTLS())) })
	t.Cleanup(func() { cancel(); _ = srv.Close(); wg.Wait() })
	<-plane.Ready()
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := keys.WriteAdminKubeconfig(kubeconfig, "knarr", "https://"+l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

func clientConfig(t *testing.T, kubeconfig string) *rest.Config {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	return cfg
}

// etcd runs an etcd for the example, and returns its URL.
func etcd(t *testing.T) string {
	t.Helper()
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = t.TempDir(), "error"
	at := func() url.URL { return url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(freePort(t))} }
	cfg.ListenClientUrls, cfg.ListenPeerUrls = []url.URL{at()}, []url.URL{at()}
	cfg.AdvertiseClientUrls, cfg.AdvertisePeerUrls = cfg.ListenClientUrls, cfg.ListenPeerUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	<-e.Server.ReadyNotify()
	return cfg.ListenClientUrls[0].String()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// wardle is the example, built from its module.
type wardle struct {
	port int32
	ca   []byte
	stop func()
}

// startWardle builds and runs the example with Knarr as its cluster.
func startWardle(t *testing.T, kubeconfig string) *wardle {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "sample-apiserver")
	if out, err := exec.Command("go", "build", "-o", bin, "k8s.io/sample-apiserver").CombinedOutput(); err != nil {
		t.Fatalf("building the example: %v\n%s", err, out)
	}
	dir := t.TempDir()
	served, err := pki.Ensure(dir, pki.Params{Names: []string{"api.wardle.svc"}})
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	cmd := exec.Command(bin, "--secure-port="+strconv.Itoa(port), "--bind-address=127.0.0.1", "--etcd-servers="+etcd(t), "--kubeconfig="+kubeconfig,
		"--authentication-kubeconfig="+kubeconfig, "--authorization-kubeconfig="+kubeconfig, "--tls-cert-file="+filepath.Join(dir, "apiserver.crt"),
		"--tls-private-key-file="+filepath.Join(dir, "apiserver.key"), "--v=2")
	logs, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = logs, logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stop := sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		_ = cmd.Wait() // it was told to end
	})
	t.Cleanup(func() {
		stop()
		if b, err := os.ReadFile(logs.Name()); err == nil && t.Failed() {
			t.Logf("the example says:\n%s", b[max(0, len(b)-8000):])
		}
	})
	return &wardle{int32(port), served.CAPEM(), stop}
}
