package dev

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

func imageCommand(dir *string) *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Bring container images to the nodes"}
	var name string
	imports := &cobra.Command{
		Use: "import FILE...", Short: "Import images from archives (docker save, OCI layout) on every node that has a runtime; nodes that come later need it again", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := existing(*dir, false)
			if err != nil {
				return err
			}
			defer c.close()
			return c.importImages(cmd.Context(), cmd.OutOrStdout(), args, "--name", name)
		},
	}
	imports.Flags().StringVar(&name, "name", "", "name of the archive's only image, whatever the archive calls it")
	cmd.AddCommand(imports)
	return cmd
}

// importImages imports archives on all nodes at the same time, with flags of knarr image import.
func (c *Cluster) importImages(ctx context.Context, out io.Writer, files []string, flags ...string) error {
	g, ctx := errgroup.WithContext(ctx)
	count := 0
	for _, n := range c.Nodes {
		if n.Server && c.withoutAgent() {
			continue
		}
		count++
		g.Go(func() error {
			cmd := c.knarr(slices.Concat([]string{"image", "import", "--data-dir", c.nodeDir(n)}, flags, []string{"--"}, files)...)
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
