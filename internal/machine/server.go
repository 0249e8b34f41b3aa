package machine

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/backup"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/network/overlay"
	"github.com/knarr-io/knarr/internal/node/hollow"
	"github.com/knarr-io/knarr/internal/pki"
	apiserver "github.com/knarr-io/knarr/internal/server"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
	"github.com/knarr-io/knarr/internal/server/agentlink"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/usage"
	"github.com/knarr-io/knarr/internal/store"
)

// server is knarr server with its options understood.
type server struct {
	ServerOptions
	listenAddr  netip.AddrPort
	nodeAddr    netip.Addr
	clusterNet  netip.Prefix
	serviceNet  netip.Prefix
	dnsAddr     netip.Addr
	overlayMode overlay.Mode
	log         *slog.Logger
	// manifestDirs are the directories of webhooks and policies, by admission plugin.
	manifestDirs map[string]string
}

// shutdownGrace is how long requests under way may take when the server stops.
const shutdownGrace = 5 * time.Second

// run is the life of the server process.
func (s *server) run(ctx context.Context) error {
	began := time.Now()
	lock, err := cluster.TakeLock(s.DataDir)
	if err != nil {
		return err
	}
	defer lock.Release()
	if err := lock.SetNode(!s.NoAgent); err != nil {
		return err
	}
	listener, err := listen(s.listenAddr)
	if err != nil {
		return err
	}
	defer listener.Close()
	membership, err := s.membership(ctx)
	if err != nil {
		return ignoreCancelled(ctx, err)
	}
	keys, err := s.keys()
	if err != nil {
		return err
	}
	data, err := s.openData(ctx, keys, membership)
	if err != nil {
		return err
	}
	p := &parts{keys: keys, data: data, agents: agentlink.NewHub(s.log), closeData: sync.OnceFunc(data.Close), metrics: prometheus.NewRegistry()}
	defer p.closeData()
	if p.plane, err = s.newPlane(p); err != nil {
		return err
	}
	if p.tokens, err = authn.NewTokens(authn.TokensConfig{Key: keys.TokenKey(), Reader: p.plane.Registry.Reader()}); err != nil {
		return err
	}
	p.node = s.newMachine(p.plane, p.tokens, keys)
	err = s.runParts(ctx, p, listener, began)
	s.log.Info("stopped; containers keep running and are taken over by the next start")
	return err
}

// parts are what a server consists of.
type parts struct {
	keys      *pki.PKI
	data      datastore
	closeData func() // may be called again
	agents    *agentlink.Hub
	plane     *controlplane.Plane
	tokens    *authn.Tokens
	metrics   *prometheus.Registry // what the API shows at /metrics
	node      *machine
}

// newPlane wires up the control plane over the datastore.
func (s *server) newPlane(p *parts) (*controlplane.Plane, error) {
	backend := store.NewEtcd(p.data.Client()).WithLeader(p.data.Leader)
	if len(s.EtcdEndpoints) > 0 {
		backend = backend.WithMaxOps(cluster.ExternalMaxOps)
	}
	var room registry.Space
	if etcd, ok := p.data.(*cluster.Etcd); ok {
		room = etcd.Space()
		p.metrics.MustRegister(etcd.Space())
	}
	rules, err := manifests.Open(manifests.Config{Dirs: s.manifestDirs, Server: s.NodeName, Metrics: p.metrics, Log: s.log})
	if err != nil {
		return nil, fmt.Errorf("--admission-control-config-file: %w", err)
	}
	return controlplane.New(controlplane.Config{
		Backend:      backend,
		Manifests:    rules,
		Space:        room,
		ServiceCIDR:  s.serviceNet,
		ClusterCIDR:  s.clusterNet,
		CA:           p.keys.CAPEM(),
		FrontProxy:   p.keys.FrontProxy,
		FrontProxyCA: p.keys.FrontProxyCAPEM(),
		Sign:         p.keys.SignAsRequested,
		Links:        p.agents,
		Initial: controlplane.Params{
			ServiceCIDR: s.serviceNet, ClusterDNS: s.dnsAddr, API: s.reached(), Agents: s.settings(),
		},
		Lead: p.data.Lead, Several: p.data.Several, Name: s.NodeName,
		Metrics: p.metrics, Log: s.log,
		Ask: newAsk(p.keys, listened(s.listenAddr)), Nodes: nodesOf(p),
	})
}

// gate is what stands before the API: who may be let in, the other servers' requests, and the API itself.
func (s *server) gate(p *parts) *cluster.Gate {
	certs := authn.NewClientCert(time.Now)
	servers := &cluster.Servers{Keys: p.keys, Settings: s.settings(), Client: p.plane.Client}
	gate := &cluster.Gate{Contact: p.data.Contact(), Several: p.data.Several, Ready: p.plane.Ready()}
	ready := []apiserver.Check{
		{Name: "etcd", Check: checkData(p.data, p.plane)},
		{Name: "initial-objects", Check: p.plane.CheckReady},
	}
	if etcd, ok := p.data.(*cluster.Etcd); ok {
		servers.Etcd, gate.Peers = etcd, etcd.PeerHandler()
		ready = append(ready, apiserver.Check{Name: "disk", Check: etcd.Space().Check})
	}
	handlers := servers.Handlers()
	handlers[backup.Path] = backup.Handler(p.data.Client())
	gate.API = p.agents.Handler(nodeOf(certs), apiserver.New(apiserver.Config{
		Registry: p.plane.Registry,
		Authenticator: authn.Union{
			authn.NewRequestHeader(p.keys.FrontProxyPool(), []string{pki.FrontProxyName}, time.Now), certs, p.tokens, authn.NewBootstrapTokens(p.plane.Registry.Reader(), time.Now),
		},
		Tokens:     p.tokens,
		Authorizer: p.plane.Authorizer(),
		Aggregator: p.plane.Aggregator,
		Issuer:     p.tokens,
		Ready:      ready,
		Documents:  s.documents(p.tokens),
		Handlers:   handlers,
		Streams:    streamsOf(p.node, p.agents),
		Version:    KubernetesVersion(),
		Address:    s.reached().String(),
		Metrics:    p.metrics,
		Log:        s.log,
	}))
	return gate
}

// runParts runs all parts until ctx ends. The datastore is closed once nothing is written any longer, while the other servers can still be
// answered.
func (s *server) runParts(ctx context.Context, p *parts, listener net.Listener, began time.Time) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return p.keys.Run(ctx) })
	g.Go(func() error { return serve(ctx, listener, s.gate(p), p.keys, s.log) })
	g.Go(func() error { return p.data.Run(ctx) })
	written := make(chan struct{})
	g.Go(func() error {
		<-written
		<-ctx.Done()
		p.closeData()
		return nil
	})
	g.Go(func() error {
		defer close(written)
		if err := p.data.WaitReady(ctx); err != nil {
			return ignoreCancelled(ctx, err)
		}
		return p.plane.Run(ctx)
	})
	g.Go(func() error {
		select {
		case <-p.plane.Ready():
		case <-ctx.Done():
			return nil
		}
		if err := p.keys.WriteAdminKubeconfig(s.Kubeconfig, "knarr", s.apiURL()); err != nil {
			return err
		}
		s.log.Info("the API is ready", "url", s.apiURL(), "kubeconfig", s.Kubeconfig, "after", time.Since(began).Round(time.Millisecond))
		if _, err := forgetStart(); err != nil {
			s.log.Debug("keeping the memory that only the start needed", "err", err)
		}
		if !s.NoAgent {
			g.Go(func() error { return p.node.run(ctx) })
			g.Go(func() error { return s.linkOthers(ctx, p.node, p.keys) })
		}
		return hollow.Run(ctx, hollow.Config{Count: s.HollowNodes, Client: p.plane.NodeClient, Version: KubernetesVersion().GitVersion, Log: s.log})
	})
	return g.Wait()
}

// streamsOf is the API server's way to the containers of a node: this machine's agent, or the connection of another's.
func streamsOf(local *machine, agents *agentlink.Hub) func(context.Context, string) (apiserver.Streams, error) {
	return func(_ context.Context, name string) (apiserver.Streams, error) {
		if a := local.agent.Load(); a != nil && name == local.nodeName {
			return a, nil
		}
		n, err := agents.Node(name)
		if err != nil {
			return nil, err
		}
		return n, nil
	}
}

// nodesOf is the leader's way to what nodes answer for themselves. What p has of this machine's agent is asked for when it is needed.
func nodesOf(p *parts) func(context.Context, string) (usage.Node, error) {
	return func(ctx context.Context, name string) (usage.Node, error) {
		streams, err := streamsOf(p.node, p.agents)(ctx, name)
		if err != nil {
			return nil, err
		}
		node, ok := streams.(usage.Node)
		if !ok {
			return nil, fmt.Errorf("the agent of node %q does not answer for itself", name)
		}
		return node, nil
	}
}

// nodeOf tells which node's agent sends a request, by its certificate.
func nodeOf(certs *authn.ClientCert) func(*http.Request) (string, bool) {
	return func(r *http.Request) (string, bool) {
		who, ok, err := certs.Authenticate(r)
		if !ok || err != nil {
			return "", false
		}
		return authz.NodeName(who)
	}
}

// documents are what verifiers of service account tokens elsewhere read (OpenID Connect discovery).
func (s *server) documents(tokens *authn.Tokens) map[string]func() ([]byte, error) {
	// Pods read it, too: the address is the node's, as in the endpoints of the API.
	reached := "https://" + s.reached().String()
	return map[string]func() ([]byte, error){
		authn.OpenIDConfigurationPath: func() ([]byte, error) { return tokens.OpenIDConfiguration(reached) },
		authn.JWKSPath:                tokens.JWKS,
	}
}

// keys makes or reads the cluster's keys and certificates.
func (s *server) keys() (*pki.PKI, error) {
	names := append([]string{s.NodeName}, s.TLSNames...)
	ips := []netip.Addr{s.nodeAddr}
	if a := s.listenAddr.Addr(); !a.IsUnspecified() {
		ips = append(ips, a)
	}
	return pki.Ensure(cluster.PKIDir(s.DataDir), pki.Params{
		Server: s.NodeName, Names: names, NodeIPs: ips, ServiceIPs: []netip.Addr{controlplane.FirstServiceIP(s.serviceNet)}, ClusterDomain: s.ClusterDomain,
		Renewed: func(p *pki.PKI) error { return p.WriteAdminKubeconfig(s.Kubeconfig, "knarr", s.apiURL()) },
	})
}

// apiURL is where clients on this machine reach the API.
func (s *server) apiURL() string {
	addr := s.listenAddr.Addr()
	if addr.IsUnspecified() {
		addr = netip.MustParseAddr("127.0.0.1")
	}
	return "https://" + netip.AddrPortFrom(addr, s.listenAddr.Port()).String()
}

func listen(addr netip.AddrPort) (net.Listener, error) {
	l, err := net.Listen("tcp", addr.String())
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("port %d is taken by another program: stop it, or choose another port with --listen %s:PORT", addr.Port(), addr.Addr())
	}
	if err != nil {
		return nil, fmt.Errorf("listening on %s: %w", addr, err)
	}
	return l, nil
}

// serve answers HTTPS requests until ctx ends.
func serve(ctx context.Context, l net.Listener, h http.Handler, keys *pki.PKI, log *slog.Logger) error {
	srv := apiserver.HTTPServer(keys.VerifyClients(h), log)
	conf := keys.ServerTLS()
	conf.NextProtos = []string{"h2", "http/1.1"}
	srv.BaseContext = func(net.Listener) context.Context { return ctx }
	stopped := make(chan error, 1)
	go func() { stopped <- srv.Serve(tls.NewListener(l, conf)) }()
	select {
	case err := <-stopped:
		return fmt.Errorf("serving the API: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), shutdownGrace)
	defer cancel()
	if err := srv.Shutdown(grace); err != nil {
		_ = srv.Close() // what has not ended by now is watches and streams
	}
	<-stopped
	return nil
}
