package dev

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

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
	nodes, err := c.leftovers()
	if err != nil {
		return err
	}
	var g errgroup.Group
	for _, n := range nodes {
		g.Go(func() error { return c.end(n, n.Server && deleteData) })
	}
	err = g.Wait()
	for _, n := range nodes {
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
	fmt.Fprintf(out, "removed processes, containers, mounts, cgroups, network namespaces, links and nftables tables of %d nodes\n", len(nodes))
	if deleteData {
		if err := os.RemoveAll(c.dir); err != nil {
			return fmt.Errorf("deleting the data: %w", err)
		}
		fmt.Fprintf(out, "deleted %s\n", c.dir)
	}
	return nil
}

// leftovers are the cluster's nodes, also those that only have a directory or a network namespace: the settings may be lost.
func (c *Cluster) leftovers() ([]Node, error) {
	nodes := slices.Clone(c.Nodes)
	for _, dir := range []string{c.dir, c.namespaces()} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			number, err := strconv.Atoi(strings.TrimPrefix(e.Name(), "node-"))
			known := slices.ContainsFunc(nodes, func(n Node) bool { return n.Name == e.Name() })
			if err == nil && e.Name() == nodeName(number) && !known {
				nodes = append(nodes, Node{Name: e.Name(), Number: number})
			}
		}
	}
	return nodes, nil
}
