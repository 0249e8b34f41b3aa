package dev

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func imageCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Bring container images to the nodes"}
	cmd.AddCommand(&cobra.Command{
		Use: "import FILE...", Short: "Import images from archives (docker save, OCI layout) on every node that has a runtime; nodes that come later need it again", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := existing(*dir, false)
			if err != nil {
				return err
			}
			defer c.close()
			return c.importImages(cmd.Context(), cmd.OutOrStdout(), args)
		},
	})
	return cmd
}

// importImages imports archives on all nodes at the same time.
func (c *Cluster) importImages(ctx context.Context, out io.Writer, files []string) error {
	g, ctx := errgroup.WithContext(ctx)
	count := 0
	for _, n := range c.Nodes {
		if n.Server && c.withoutAgent() {
			continue
		}
		count++
		g.Go(func() error {
			cmd := c.knarr(append([]string{"image", "import", "--data-dir", c.nodeDir(n)}, files...)...)
			if msg, err := cmd.CombinedOutput(); err != nil && ctx.Err() == nil {
				return fmt.Errorf("importing on %s: %w\n%s", n.Name, err, msg)
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	fmt.Fprintf(out, "imported %d archives on %d nodes\n", len(files), count)
	return nil
}
