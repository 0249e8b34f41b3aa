package dev

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cluster"
)

// nodeCommands do something to one node.
func nodeCommands(dir *string) []*cobra.Command {
	one := func(use, short, long string, do func(ctx context.Context, c *Cluster, n Node, out io.Writer) error) *cobra.Command {
		return &cobra.Command{
			Use: use + " NODE...", Short: short, Long: long, Args: cobra.MinimumNArgs(1),
			RunE: func(cmd *cobra.Command, args []string) error {
				c, err := existing(*dir, false)
				if err != nil {
					return err
				}
				defer c.close()
				var nodes []Node
				for _, name := range args {
					n, err := c.node(name)
					if err != nil {
						return err
					}
					nodes = append(nodes, n)
				}
				for _, n := range nodes {
					if err := do(cmd.Context(), c, n, cmd.OutOrStdout()); err != nil {
						return err
					}
				}
				return nil
			},
		}
	}
	var wait time.Duration
	start := one("start", "Start nodes that were stopped or killed", `Start nodes that do not run and wait until they are Ready. knarr dev up does it for all.`,
		func(ctx context.Context, c *Cluster, n Node, out io.Writer) error {
			return c.startNode(ctx, n, out, wait)
		})
	start.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait until a node is Ready; 0 does not wait")
	var hard bool
	stop := one("stop", "Stop the knarr process of nodes; their containers run on", `Stop the knarr process of nodes, as an upgrade does: runtime and containers run on, and the
next start takes them over. With --kill it has no time to end in good order.`,
		func(_ context.Context, c *Cluster, n Node, _ io.Writer) error { return c.end(n, hard) })
	stop.Flags().BoolVar(&hard, "kill", false, "end it with SIGKILL")
	return []*cobra.Command{start, stop,
		one("kill", "Kill nodes as a power failure does: knarr, runtime and all containers, without a word to the others", `Kill nodes as a power failure does: they go off the network in the middle of what they do, and then knarr,
the runtime and all containers end. What is on their disks stays. knarr dev start starts them again.`,
			func(_ context.Context, c *Cluster, n Node, _ io.Writer) error { return c.kill(n) }),
		one("cut", "Take nodes off the network", `Take nodes off the network: everything on them runs on, but reaches nobody. knarr dev heal puts them back.`,
			func(_ context.Context, c *Cluster, n Node, _ io.Writer) error { return c.cut(n) }),
		one("heal", "Put nodes back on the network that were cut off", "",
			func(_ context.Context, c *Cluster, n Node, _ io.Writer) error { return c.heal(n) }),
	}
}

// kill lets a node end as if its power had failed.
func (c *Cluster) kill(n Node) error {
	if !isNamespace(c.namespace(n.Name)) {
		return nil
	}
	// First, or the kernel would close connections in good order for processes that die.
	if err := c.cut(n); err != nil {
		return err
	}
	if err := c.end(n, true); err != nil {
		return err
	}
	if err := c.purge(n); err != nil {
		return err
	}
	return removeNamespace(c.namespace(n.Name))
}

// startNode starts a node that does not run.
func (c *Cluster) startNode(ctx context.Context, n Node, out io.Writer, wait time.Duration) error {
	if pid := cluster.RunningServer(c.nodeDir(n)); pid != 0 {
		fmt.Fprintf(out, "%s is running already (process %d)\n", n.Name, pid)
		return nil
	}
	if !isNamespace(c.namespace(switchName)) {
		return fmt.Errorf("the cluster has no network, as after a restart of this machine: knarr dev up makes it")
	}
	if !isNamespace(c.namespace(n.Name)) {
		if err := c.ensureNode(n); err != nil {
			return err
		}
	}
	if !c.joined(n) {
		return fmt.Errorf("%s is no member of the cluster: knarr dev up lets it join", n.Name)
	}
	s := &session{Cluster: c, out: out, began: time.Now()}
	if err := s.start(n); err != nil || wait == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	return s.awaitReady(ctx, []Node{n})
}
