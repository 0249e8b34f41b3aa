package controlplane_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/store"
)

var log = slog.New(slog.DiscardHandler)

// controlPlane runs a whole control plane over memory and returns its URL, keys and local client.
func controlPlane(t *testing.T) (string, *pki.PKI, client.Client) {
	t.Helper()
	keys, err := pki.Ensure(t.TempDir(), pki.Params{})
	if err != nil {
		t.Fatal(err)
	}
	services, pods := netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")
	plane, err := controlplane.New(controlplane.Config{
		Backend: store.NewMem(), ServiceCIDR: services, ClusterCIDR: pods, CA: keys.CAPEM(), Sign: keys.SignAsRequested, Log: log,
		Initial: controlplane.Params{ServiceCIDR: services, ClusterDNS: netip.MustParseAddr("10.96.0.10"), API: netip.MustParseAddrPort("192.0.2.1:6443"),
			Agents: cluster.AgentSettings{ServiceCIDR: services, ClusterCIDR: pods, ClusterDNS: netip.MustParseAddr("10.96.0.10"), ClusterDomain: "cluster.local"}},
	})
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
	h := server.New(server.Config{
		Registry: plane.Registry, Authorizer: plane.Authorizer(), Log: log,
		Authenticator: authn.Union{authn.NewClientCert(nil), authn.NewBootstrapTokens(plane.Registry.Reader(), nil)},
	})
	srv := server.HTTPServer(keys.VerifyClients(h), log)
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	wg.Go(func() { _ = srv.Serve(tls.NewListener(l, keys.ServerTLS())) })
	t.Cleanup(func() { cancel(); _ = srv.Close(); wg.Wait() })
	<-plane.Ready()
	return "https://" + l.Addr().String(), keys, plane.Client
}

func newToken(t *testing.T, keys *pki.PKI, c client.Client, expires time.Time) join.Token {
	t.Helper()
	token := join.NewToken(join.Pin(keys.CA()))
	if _, err := c.Create(t.Context(), token.BootstrapSecret("test", expires)); err != nil {
		t.Fatal(err)
	}
	return token
}

func TestJoinedMachineMayTouchOnlyItsOwn(t *testing.T) {
	url, keys, local := controlPlane(t)
	ctx := t.Context()
	dir := filepath.Join(t.TempDir(), "agent")
	id, err := join.Join(ctx, join.Config{Dir: dir, Server: url, Token: newToken(t, keys, local, time.Time{}), NodeName: "n1", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	if id.NodeName() != "n1" || id.Server != url || id.Expired(time.Now()) {
		t.Errorf("the identity: %s %s", id.NodeName(), id.Server)
	}
	if id, err = join.Load(dir, log); err != nil {
		t.Fatalf("the next start: %v", err)
	}
	c, err := client.NewRemote(client.RemoteConfig{Server: url, Transport: id, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s, err := cluster.ReadAgentSettings(ctx, c); err != nil || s.ClusterDomain != "cluster.local" || s.ClusterDNS.String() != "10.96.0.10" {
		t.Errorf("settings: %v %+v", err, s)
	}
	node := func(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }
	if _, err := c.Create(ctx, node("n1")); err != nil {
		t.Errorf("its own node: %v", err)
	}
	if _, err := c.Create(ctx, node("n2")); !apierrors.IsForbidden(err) {
		t.Errorf("another node: %v", err)
	}
	if _, err := local.Create(ctx, node("n2")); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Mutate(ctx, c, api.Key{Name: "n2"}, "status", func(n *corev1.Node) bool { n.Status.Phase = "x"; return true }); !apierrors.IsForbidden(err) {
		t.Errorf("another node's status: %v", err)
	}
	if nodes, err := client.List[*corev1.Node](ctx, c, client.ListOptions{}); err != nil || len(nodes) != 2 {
		t.Errorf("the nodes that its network needs to know: %v %d", err, len(nodes))
	}
	if _, err := client.Get[*corev1.Node](ctx, c, api.Key{Name: "n1"}); err != nil {
		t.Errorf("reading its own node: %v", err)
	}
	if _, err := client.Get[*corev1.Node](ctx, c, api.Key{Name: "n2"}); !apierrors.IsForbidden(err) {
		t.Errorf("reading another node: %v", err)
	}
	if _, err := client.List[*corev1.Secret](ctx, c, client.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("all secrets: %v", err)
	}
	// Of all pods it learns what network policies depend on: TestNodesSeeOfOtherPodsOnlyWhoReachesWhom.
	if _, err := client.List[*corev1.Pod](ctx, c, client.ListOptions{}); err != nil {
		t.Errorf("who reaches whom: %v", err)
	}
	if _, err := client.List[*corev1.Pod](ctx, c, client.ListOptions{Index: client.IndexNode, Value: "n1"}); err != nil {
		t.Errorf("its own pods: %v", err)
	}
	if err := id.Leave(); err != nil {
		t.Error(err)
	}
	if _, err := join.Load(dir, log); err == nil || !strings.Contains(err.Error(), "has not joined") {
		t.Errorf("after leaving: %v", err)
	}
}

func TestWhoMayNotJoin(t *testing.T) {
	url, keys, local := controlPlane(t)
	good := newToken(t, keys, local, time.Time{})
	over := newToken(t, keys, local, time.Now().Add(time.Hour))
	if _, err := client.Mutate(t.Context(), local, api.Key{Namespace: "kube-system", Name: "bootstrap-token-" + over.ID}, "", func(s *corev1.Secret) bool {
		s.Data["usage-bootstrap-authentication"] = []byte("false")
		return true
	}); err != nil {
		t.Fatal(err)
	}
	otherCluster, guessed := good, good
	otherCluster.Pin[0]++
	guessed.Secret = strings.Repeat("0", 16)
	port := url[strings.LastIndex(url, ":"):]
	for _, tc := range []struct {
		name, url string
		token     join.Token
		want      string
	}{
		{"another cluster's token", url, otherCluster, "another fingerprint"},
		{"a guessed secret", url, guessed, "nauthorized"},
		{"a token that is not for this", url, over, "nauthorized"},
		{"a name that the server does not have", "https://localhost.localdomain" + port, good, "localhost.localdomain"},
		{"no encryption", "http://127.0.0.1" + port, good, "want https"},
	} {
		dir := t.TempDir()
		_, err := join.Join(t.Context(), join.Config{Dir: dir, Server: tc.url, Token: tc.token, NodeName: "n", Log: log})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if files, err := os.ReadDir(dir); err != nil || len(files) > 0 {
			t.Errorf("%s left %d files: %v", tc.name, len(files), err)
		}
	}
}

var _ http.RoundTripper = (*join.Identity)(nil)
