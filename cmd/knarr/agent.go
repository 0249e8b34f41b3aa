package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/cli"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/network/overlay"
	"github.com/knarr-io/knarr/internal/node"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// agentOptions are the flags of knarr agent.
type agentOptions struct {
	host
	servers          []string
	token, tokenFile string
	nodeIP, logLevel string
}

func agentCommand() *cobra.Command {
	var o agentOptions
	var config string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Join this machine to a cluster and run its pods",
		Long: `Run this machine as a node of a cluster whose server is on another machine. The first start needs a token, which knarr token
create makes on the server; later ones use the certificate that the machine was given for it. The agent only dials out.

kubectl delete node takes the machine out of the cluster: it then needs a token to come back. knarr down removes what it had.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.ReadConfigFile(config, cmd.Flags()); err != nil {
				return err
			}
			if err := o.complete(); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "YAML file with flags, by their names; flags on the command line win")
	f.StringSliceVar(&o.servers, "server", nil, "URL of a server, https://HOST:6443; may be given several times (default: those that were joined). The agent finds the cluster's other servers by itself")
	f.StringVar(&o.token, "token", os.Getenv("KNARR_TOKEN"), "token from knarr token create (default: $KNARR_TOKEN)")
	f.Lookup("token").DefValue = ""
	f.StringVar(&o.tokenFile, "token-file", "", "file with the token, which others on this machine cannot see as they can a command line")
	f.StringVar(&o.dataDir, "data-dir", cli.DefaultDataDir, "directory for everything Knarr keeps")
	f.StringVar(&o.nodeName, "node-name", "", "name of this machine in the cluster (default: its host name)")
	f.StringVar(&o.nodeIP, "node-ip", "", "address by which other machines and pods reach this one (default: that of the default route)")
	f.StringVar(&o.criEndpoint, "cri-endpoint", "", "socket of a container runtime to use (default: the containerd that comes with Knarr)")
	f.StringVar(&o.libexec, "libexec", "", "directory with the executables that come with Knarr (default: libexec beside the knarr executable)")
	f.IntVar(&o.maxPods, "max-pods", 250, "how many pods this machine runs at most")
	f.StringSliceVar(&o.upstreamDNS, "upstream-dns", nil, "DNS servers for names outside the cluster (default: those of /etc/resolv.conf)")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// complete checks the options and fills in what was not given.
func (o *agentOptions) complete() (err error) {
	if os.Geteuid() != 0 {
		return errors.New("running containers needs root: start knarr as root (sudo)")
	}
	if o.dataDir, err = filepath.Abs(o.dataDir); err != nil {
		return fmt.Errorf("--data-dir: %w", err)
	}
	if o.nodeName == "" {
		if o.nodeName, err = cli.HostName(); err != nil {
			return err
		}
	}
	if o.nodeAddr, err = nodeAddress(o.nodeIP); err != nil {
		return err
	}
	if o.log, err = cli.NewLogger(o.logLevel); err != nil {
		return err
	}
	for _, server := range o.servers {
		if u, err := url.Parse(server); err != nil || u.Scheme != "https" || u.Port() == "" {
			return fmt.Errorf("--server %q: want https://HOST:PORT", server)
		}
	}
	if o.tokenFile != "" {
		b, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
		o.token = strings.TrimSpace(string(b))
	}
	return checkRuntime(o.criEndpoint, o.dataDir, o.libexec)
}

// run is the life of the agent process.
func (o *agentOptions) run(ctx context.Context) error {
	lock, err := cluster.TakeLock(o.dataDir)
	if err != nil {
		return err
	}
	defer lock.Release()
	if _, err := os.Stat(filepath.Join(o.dataDir, "etcd")); err == nil {
		return fmt.Errorf("%s is the data directory of a server, which is a node already: give the agent another --data-dir", o.dataDir)
	}
	id, err := o.identity(ctx)
	if err != nil {
		return err
	}
	api, err := client.NewRemote(client.RemoteConfig{Server: id.Server, Transport: id, UserAgent: "knarr-agent", Log: o.log})
	if err != nil {
		return err
	}
	defer api.Close()
	settings, err := o.settings(ctx, api)
	if err != nil {
		return ignoreCancelled(ctx, err)
	}
	o.clusterNet, o.serviceNet, o.dnsAddr, o.domain = settings.ClusterCIDR, settings.ServiceCIDR, settings.ClusterDNS, settings.ClusterDomain
	if o.overlayMode, err = overlay.ParseMode(settings.Overlay); err != nil {
		return fmt.Errorf("the cluster's settings: %w", err)
	}
	m := &machine{host: o.host, client: api, tokens: api.RequestToken, links: make(chan struct{}, 1), deleted: func() {
		o.log.Warn("this machine's Node was deleted: its pods end, and it needs a token to join again; knarr down removes what it had", "node", o.nodeName)
		if err := id.Leave(); err != nil {
			o.log.Error("leaving the cluster", "err", err)
		}
	}}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return id.Run(ctx) })
	g.Go(func() error { return m.run(ctx) })
	g.Go(func() error {
		return agentlink.RunAgent(ctx, agentlink.AgentConfig{
			Servers: id.Servers().All, TLS: id.TLS, Agent: m.loaded, Log: o.log,
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
	o.log.Info("stopped; containers keep running and are taken over by the next start")
	return err
}

// loaded is the machine's agent, once it runs.
func (m *machine) loaded() agentlink.Agent {
	if a := m.agent.Load(); a != nil {
		return a
	}
	return nil
}

var _ agentlink.Agent = (*node.Agent)(nil)

// identity is this machine's membership: the one it has, or a new one for the token.
func (o *agentOptions) identity(ctx context.Context) (*join.Identity, error) {
	dir := filepath.Join(o.dataDir, "agent")
	id, err := join.Load(dir, o.log, o.servers...)
	switch {
	case err == nil && id.NodeName() == o.nodeName && !id.Expired(time.Now()):
		return id, nil
	case err == nil && id.NodeName() != o.nodeName:
		return nil, fmt.Errorf("this machine has joined as node %s: start it with --node-name %s, or run knarr down --delete-data first", id.NodeName(), id.NodeName())
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return nil, err
	case o.token == "" || len(o.servers) == 0:
		return nil, errors.New("this machine is no member of a cluster: give --server https://HOST:6443 and --token, which knarr token create on the server prints")
	}
	var failed []error
	token, err := join.ParseToken(o.token)
	if err != nil {
		return nil, fmt.Errorf("--token: %w", err)
	}
	for _, server := range o.servers { // the first one that answers
		if id, err = join.Join(ctx, join.Config{Dir: dir, Server: server, Others: o.servers, Token: token, NodeName: o.nodeName, Log: o.log}); err == nil {
			o.log.Info("joined the cluster", "server", server, "node", o.nodeName)
			return id, nil
		}
		failed = append(failed, err)
	}
	return nil, errors.Join(failed...)
}

// settings asks for the cluster's settings until the server answers.
func (o *agentOptions) settings(ctx context.Context, api client.Client) (cluster.AgentSettings, error) {
	for told := false; ; told = true {
		s, err := cluster.ReadAgentSettings(ctx, api)
		if err == nil || ctx.Err() != nil {
			return s, err
		}
		if !told {
			o.log.Warn("waiting for the server", "err", err)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return s, ctx.Err()
		}
	}
}
