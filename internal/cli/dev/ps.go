package dev

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cluster"
)

func psCommand(dir *string) *cobra.Command {
	return &cobra.Command{
		Use: "ps", Aliases: []string{"ls"}, Short: "Show the nodes: their processes, whether they are on the network, and what the API says of them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := existing(*dir, false)
			if err != nil {
				return err
			}
			defer c.close()
			ctx, cancel := context.WithTimeout(cmd.Context(), 20*time.Second)
			defer cancel()
			return c.ps(ctx, cmd.OutOrStdout())
		},
	}
}

func (c *Cluster) ps(ctx context.Context, out io.Writer) error {
	st, apiErr := c.states(ctx)
	w := tabwriter.NewWriter(out, 0, 4, 3, ' ', 0)
	fmt.Fprintln(w, "NAME\tROLE\tADDRESS\tPROCESS\tNETWORK\tSTATUS")
	for _, n := range c.Nodes {
		process, network, status := "none", "connected", st.ready[n.Name]
		if pid := cluster.RunningServer(c.nodeDir(n)); pid != 0 {
			process = strconv.Itoa(pid)
		}
		if !isNamespace(c.namespace(n.Name)) {
			network = "none"
		} else if c.isCut(n) {
			network = "cut"
		}
		switch {
		case status != "":
		case apiErr != nil:
			status = "unknown: no API answers"
		case n.Server && c.withoutAgent():
			status = "control plane only"
		default:
			status = "not registered"
		}
		fmt.Fprintf(w, "%s\t%s\t%v\t%s\t%s\t%s\n", n.Name, n.Role(), c.Address(n), process, network, status)
	}
	return w.Flush()
}
