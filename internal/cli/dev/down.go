package dev

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func downCommand(dir *string) *cobra.Command {
	var deleteData bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop all nodes and remove every trace of them from this machine",
		Long: `Stop all nodes, their runtimes and containers, and remove the network namespaces, links, nftables tables, mounts and control groups they
had, also what a crash has left. The data directory stays unless --delete-data: knarr dev up then starts the same cluster.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := os.Stat(*dir); errors.Is(err, os.ErrNotExist) {
				fmt.Fprintf(cmd.OutOrStdout(), "there is no cluster in %s\n", *dir)
				return nil
			}
			c, err := open(*dir, true)
			if err != nil {
				return err
			}
			defer c.close()
			return c.down(cmd.OutOrStdout(), deleteData)
		},
	}
	cmd.Flags().BoolVar(&deleteData, "delete-data", false, "delete the data directory too: the cluster's objects, images, volumes and certificates")
	return cmd
}

func (c *Cluster) down(out io.Writer, deleteData bool) error {
	// Without the servers first, agents are not told of the end of each other, and pods are not started anew elsewhere.
	var g errgroup.Group
	for _, n := range c.Nodes {
		g.Go(func() error { return c.end(n, n.Server && deleteData) })
	}
	err := g.Wait()
	for _, n := range c.Nodes {
		if _, statErr := os.Stat(c.nodeDir(n)); statErr == nil {
			g.Go(func() error { return c.purge(n) })
		}
	}
	if err := errors.Join(err, g.Wait()); err != nil {
		return err // what runs may need its network
	}
	if err := errors.Join(c.removeNetwork(), c.removeUplink()); err != nil {
		return fmt.Errorf("removing the network: %w", err)
	}
	fmt.Fprintf(out, "removed processes, containers, mounts, cgroups, network namespaces, links and nftables tables of %d nodes\n", len(c.Nodes))
	if deleteData {
		if err := os.RemoveAll(c.dir); err != nil {
			return fmt.Errorf("deleting the data: %w", err)
		}
		fmt.Fprintf(out, "deleted %s\n", c.dir)
	}
	return nil
}
