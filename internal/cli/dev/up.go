package dev

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/cli"
	"github.com/knarr-io/knarr/internal/cluster"
)

func upCommand(dir *string) *cobra.Command {
	var w wish
	var subnet string
	var images []string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "up [-- flags of knarr server]",
		Short: "Start a cluster of several nodes on this machine, or what is missing of it, and wait until all are Ready",
		Long: `Start nodes node-1, node-2 and so on; the first ones are servers, the others agents. Doing it again starts those that do not run, also
after this machine was restarted, puts cut ones back on the network, and adds nodes if --nodes is more than there are.

The nodes have addresses in a /24 that this machine has no route to, and this machine is in it too: kubectl, and programs that want a
NodePort, reach every node. Pods reach what this machine reaches. That takes, on this machine, a link, an nftables table and
net.ipv4.ip_forward=1; knarr dev down takes them back. A firewall that drops forwarded packets also drops those of the nodes.

Every node believes that it has all of this machine's memory and processors. Settings are kept: what is not given is as it was; what
is given, but for --nodes and --servers, takes effect where a node is started.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); len(args) > 0 && n != 0 {
				return fmt.Errorf("%q is no flag of knarr dev up; flags of knarr server come after --", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			w.serverArgs = args
			c, err := open(*dir, true)
			if err != nil {
				return err
			}
			defer c.close()
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			if err := c.up(ctx, cmd.OutOrStdout(), w, subnet); err != nil {
				return err
			}
			if len(images) > 0 {
				return c.importImages(cmd.Context(), cmd.OutOrStdout(), images)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.IntVar(&w.nodes, "nodes", 0, "how many nodes there shall be, servers included (default: as many as there are, or one)")
	f.IntVar(&w.servers, "servers", 0, "how many of them are servers; an odd number, for they decide by majority (default: as many as there are, or one)")
	f.StringVar(&w.overlay, "overlay", "", "how packets travel between nodes: auto, vxlan, routes or none, as of knarr server")
	f.StringVar(&subnet, "subnet", "", "an IPv4 /24 for the nodes of a new cluster (default: a free one of 10.77.0.0/16)")
	f.StringSliceVar(&w.upstreamDNS, "upstream-dns", nil, "DNS servers for names outside the cluster (default: those of this machine)")
	f.StringSliceVar(&images, "image", nil, "archive of images to import on every node")
	f.DurationVar(&wait, "wait", 3*time.Minute, "how long to wait until all nodes are ready")
	return cmd
}

// up makes what the wish asks for and waits until it works.
func (c *Cluster) up(ctx context.Context, out io.Writer, w wish, subnet string) (err error) {
	began := time.Now()
	if c.Settings, err = planNodes(c.Settings, w); err != nil {
		return err
	}
	if err := c.chooseSubnet(subnet); err != nil {
		return err
	}
	if err := c.write(c.settingsFile()); err != nil {
		return err
	}
	if err := c.ensureSwitch(); err != nil {
		return err
	}
	if err := c.ensureUplink(out); err != nil {
		return err
	}
	var g errgroup.Group
	for _, n := range c.Nodes {
		g.Go(func() error { return c.ensureNode(n) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s := &session{Cluster: c, out: out, began: began}
	if err := s.members(ctx); err != nil {
		return err
	}
	if err := s.newcomers(ctx); err != nil {
		return err
	}
	if err := s.awaitReady(ctx, c.Nodes); err != nil {
		return err
	}
	first := c.servers()[0]
	fmt.Fprintf(out, "kubeconfig: %s\nNodePorts and the API answer at the nodes' addresses, such as %v\n", c.kubeconfig(), c.Address(first))
	return nil
}

// session is one run of up, with the processes that it started.
type session struct {
	*Cluster
	out       io.Writer
	began     time.Time
	processes []process
}

type process struct {
	node    Node
	started time.Time
	ended   <-chan error
}

// members starts those that belong to the cluster already - or the first server, which is a cluster - and waits until an API answers.
func (s *session) members(ctx context.Context) error {
	var anew []Node
	for _, n := range s.Nodes {
		if s.joined(n) {
			anew = append(anew, n)
		}
	}
	if len(anew) == 0 {
		anew = s.servers()[:1]
	}
	for _, n := range anew {
		if err := s.start(n); err != nil {
			return err
		}
	}
	err := s.until(ctx, "an API", func() error { _, err := s.api(ctx); return err })
	if err != nil {
		return err
	}
	// A link, for the server writes it anew now and then.
	if err := os.Symlink(filepath.Join(s.servers()[0].Name, "kubeconfig"), s.kubeconfig()); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// newcomers lets those join that do not belong to the cluster yet: servers one after the other, for each one changes the majority, then all agents.
func (s *session) newcomers(ctx context.Context) error {
	var agents []Node
	for _, n := range s.Nodes {
		switch {
		case s.joined(n):
		case !n.Server:
			agents = append(agents, n)
		case n.Name != s.servers()[0].Name || s.anyJoined():
			if err := s.join(ctx, n); err != nil {
				return err
			}
			if err := s.until(ctx, "the API of "+n.Name, func() error { return s.serverReady(ctx, n) }); err != nil {
				return err
			}
		}
	}
	if len(agents) == 0 {
		return nil
	}
	token, err := s.token(ctx, false)
	if err != nil {
		return err
	}
	for _, n := range agents {
		if err := s.startWith(n, token); err != nil {
			return err
		}
	}
	return nil
}

// join starts a further server.
func (s *session) join(ctx context.Context, n Node) error {
	token, err := s.token(ctx, true)
	if err != nil {
		return err
	}
	return s.startWith(n, token)
}

// joined reports whether a node belongs to the cluster.
func (c *Cluster) joined(n Node) bool {
	proofs := []string{filepath.Join("agent", "client.pem")}
	if n.Server {
		// One that uses an external etcd has no data of its own; it has served its API, though.
		proofs = []string{filepath.Join("etcd", "member"), "kubeconfig"}
	}
	return slices.ContainsFunc(proofs, func(name string) bool {
		_, err := os.Stat(filepath.Join(c.nodeDir(n), name))
		return err == nil
	})
}

func (c *Cluster) anyJoined() bool {
	for _, n := range c.servers() {
		if c.joined(n) {
			return true
		}
	}
	return false
}

func (s *session) start(n Node) error { return s.startWith(n, "") }

// startWith starts a node unless it runs.
func (s *session) startWith(n Node, token string) error {
	if pid := cluster.RunningServer(s.nodeDir(n)); pid != 0 {
		if token == "" {
			fmt.Fprintf(s.out, "%s is running already (process %d)\n", n.Name, pid)
			return nil
		}
		// It runs, but no longer belongs to the cluster: kubectl delete node took it out.
		if err := s.end(n, false); err != nil {
			return err
		}
	}
	p := process{node: n, started: time.Now()}
	var err error
	if p.ended, err = s.run(n, token); err != nil {
		return err
	}
	s.processes = append(s.processes, p)
	fmt.Fprintf(s.out, "started %s (%s, %v), logging to %s\n", n.Name, n.Role(), s.Address(n), s.logFile(n))
	return nil
}

// until waits for check to succeed, or for one of the processes to end.
func (s *session) until(ctx context.Context, what string, check func() error) error {
	for {
		err := check()
		if err == nil {
			return nil
		}
		for _, p := range s.processes {
			select {
			case end := <-p.ended:
				return fmt.Errorf("%s ended: %w\nthe last lines of %s:\n%s", p.node.Name, end, s.logFile(p.node), cli.Tail(s.logFile(p.node), 10))
			default:
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w; %w%s", what, ctx.Err(), err, s.tails())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tails are the ends of the nodes' logs.
func (s *session) tails() string {
	var b strings.Builder
	for _, p := range s.processes {
		fmt.Fprintf(&b, "\nthe last lines of %s:\n%s", s.logFile(p.node), cli.Tail(s.logFile(p.node), 4))
	}
	return b.String()
}
