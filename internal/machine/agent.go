package machine

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/controlplane"
	"github.com/knarr-io/knarr/internal/network/overlay"
	"github.com/knarr-io/knarr/internal/node"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// AgentOptions are the settings of a machine that joins a cluster; knarr agent --help describes them.
type AgentOptions struct {
	Servers          []string // https://HOST:PORT; empty: those that were joined
	Token, TokenFile string
	DataDir          string
	NodeName         string // empty: the machine's host name
	NodeIP           string // empty: the address of the default route
	CRIEndpoint      string // empty: the containerd that comes with Knarr
	Libexec          string // empty: libexec beside the executable
	MaxPods          int
	KubeletPort      int      // 0: none
	UpstreamDNS      []string // empty: those of /etc/resolv.conf
	LogLevel         string
}

// RunAgent joins this machine to a cluster, if it is no member yet, and runs it as a node until ctx ends. It checks the options before
// anything is made.
func RunAgent(ctx context.Context, o AgentOptions) error {
	a, err := o.complete()
	if err != nil {
		return err
	}
	return a.run(ctx)
}

// agent is a machine whose server is elsewhere, with its options checked.
type agent struct {
	host
	servers []string
	token   string
}

// complete checks the options and fills in what was not given.
func (o AgentOptions) complete() (*agent, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("running containers needs root: start knarr as root (sudo)")
	}
	a := &agent{servers: o.Servers, host: host{
		nodeName: o.NodeName, criEndpoint: o.CRIEndpoint, libexec: o.Libexec, upstreamDNS: o.UpstreamDNS, maxPods: o.MaxPods, kubeletPort: o.KubeletPort,
	}}
	var err error
	if a.dataDir, err = filepath.Abs(o.DataDir); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if a.nodeName == "" {
		if a.nodeName, err = hostName(); err != nil {
			return nil, err
		}
	}
	if a.nodeAddr, err = nodeAddress(o.NodeIP); err != nil {
		return nil, err
	}
	if err = checkKubeletPort(o.KubeletPort); err != nil {
		return nil, err
	}
	if a.log, err = newLogger(o.LogLevel); err != nil {
		return nil, err
	}
	for _, server := range o.Servers {
		if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Port() == "" {
			return nil, fmt.Errorf("--server %q: want https://HOST:PORT", server)
		}
	}
	if a.token, err = readToken(o.Token, o.TokenFile); err != nil {
		return nil, err
	}
	return a, checkRuntime(a.criEndpoint, a.dataDir, a.libexec)
}

// run is the life of the agent process.
func (a *agent) run(ctx context.Context) error {
	lock, err := cluster.TakeLock(a.dataDir)
	if err != nil {
		return err
	}
	defer lock.Release()
	if _, err := os.Stat(filepath.Join(a.dataDir, "etcd")); err == nil {
		return fmt.Errorf("%s is the data directory of a server, which is a node already: give the agent another --data-dir", a.dataDir)
	}
	id, err := a.identity(ctx)
	if err != nil {
		return err
	}
	figures := prometheus.NewRegistry()
	api, err := client.NewRemote(client.RemoteConfig{Server: id.Server, Transport: client.Counted(id, figures), UserAgent: controlplane.AgentManager, Log: a.log})
	if err != nil {
		return err
	}
	defer api.Close()
	settings, err := a.settings(ctx, api)
	if err != nil {
		return ignoreCancelled(ctx, err)
	}
	a.clusterNet, a.serviceNet, a.dnsAddr, a.domain = settings.ClusterCIDR, settings.ServiceCIDR, settings.ClusterDNS, settings.ClusterDomain
	if a.overlayMode, err = overlay.ParseMode(settings.Overlay); err != nil {
		return fmt.Errorf("the cluster's settings: %w", err)
	}
	m := &machine{host: a.host, client: api, figures: figures, joined: true, tokens: api.RequestToken, reviewer: api, authorities: id.Authorities(), links: make(chan struct{}, 1), deleted: func() {
		a.log.Warn("this machine's Node was deleted: its pods end, and it needs a token to join again; knarr down removes what it had", "node", a.nodeName)
		if err := id.Leave(); err != nil {
			a.log.Error("leaving the cluster", "err", err)
		}
	}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return id.Run(ctx) })
	g.Go(func() error { return m.run(ctx) })
	g.Go(func() error {
		return agentlink.RunAgent(ctx, agentlink.AgentConfig{
			Servers: id.Servers().All, TLS: id.TLS, Agent: m.loaded, Log: a.log,
			Changed: func(server string, lost error) {
				if lost != nil {
					id.Servers().Fail(server, lost)
				}
				m.hasten()
			},
		})
	})
	g.Go(func() error { return id.Servers().Follow(ctx, api) })
	err = g.Wait()
	a.log.Info("stopped; containers keep running and are taken over by the next start")
	return err
}

// loaded is the machine's agent, once it runs.
func (m *machine) loaded() agentlink.Agent {
	if running := m.agent.Load(); running != nil {
		return running
	}
	return nil
}

var _ agentlink.Agent = (*node.Agent)(nil)

// identity is this machine's membership: the one it has, or a new one for the token.
func (a *agent) identity(ctx context.Context) (*join.Identity, error) {
	dir := filepath.Join(a.dataDir, "agent")
	id, err := join.Load(dir, a.log, a.servers...)
	switch {
	case err == nil && id.NodeName() == a.nodeName && !id.Expired(time.Now()):
		return id, nil
	case err == nil && id.NodeName() != a.nodeName:
		return nil, fmt.Errorf("this machine has joined as node %s: start it with --node-name %s, or run knarr down --delete-data first", id.NodeName(), id.NodeName())
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	case a.token == "" || len(a.servers) == 0:
		return nil, errors.New("this machine is no member of a cluster: give --server https://HOST:6443 and --token, which knarr token create on the server prints")
	}
	var failed []error
	token, err := join.ParseToken(a.token)
	if err != nil {
		return nil, fmt.Errorf("--token: %w", err)
	}
	for _, server := range a.servers { // the first one that answers
		if id, err = join.Join(ctx, join.Config{Dir: dir, Server: server, Others: a.servers, Token: token, NodeName: a.nodeName, Log: a.log}); err == nil {
			a.log.Info("joined the cluster", "server", server, "node", a.nodeName)
			return id, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// settings asks for the cluster's settings until the server answers.
func (a *agent) settings(ctx context.Context, api client.Client) (cluster.AgentSettings, error) {
	for told := false; ; told = true {
		s, err := cluster.ReadAgentSettings(ctx, api)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		if !told {
			a.log.Warn("waiting for the server", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}
