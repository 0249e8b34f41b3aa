package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/network"
	"github.com/knarr-io/knarr/internal/node/containerd"
)

// Down is knarr down: nothing of Knarr's is left running or set up on this machine.
func Down() *cobra.Command {
	var dataDir string
	var deleteData, force bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster and its containers and remove every trace from this machine",
		Long: `Stop knarr server, the runtime and all containers, and remove the links, nftables tables, mounts and cgroups they had. The data
directory stays unless --delete-data: the next start has the same cluster and starts its pods anew.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return down(cmd.Context(), cmd.OutOrStdout(), dataDir, deleteData, force)
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the cluster's data directory")
	cmd.Flags().BoolVar(&deleteData, "delete-data", false, "delete the data directory too: the cluster's objects, images, volumes and certificates; one of several servers leaves the others first")
	cmd.Flags().BoolVar(&force, "force", false, "with --delete-data: also where the other servers cannot go on without this one")
	return cmd
}

// stopWait is how long a server may take to stop by itself.
const stopWait = 15 * time.Second

func down(ctx context.Context, out io.Writer, dataDir string, deleteData, force bool) error {
	dataDir, err := filepath.Abs(dataDir)
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("stopping containers needs root")
	}
	if _, err := os.Stat(dataDir); errors.Is(err, os.ErrNotExist) {
		fmt.Fprintf(out, "there is no cluster in %s\n", dataDir)
		return nil
	}
	pid := cluster.RunningServer(dataDir)
	if deleteData {
		if err := leave(ctx, out, dataDir, pid != 0, force); err != nil {
			return err
		}
	}
	if pid != 0 {
		if err := stopServer(ctx, dataDir, pid); err != nil {
			return err
		}
		fmt.Fprintf(out, "stopped knarr server (process %d)\n", pid)
	}
	if err := containerd.Purge(ctx, dataDir, cluster.CgroupRoot(cluster.Instance(dataDir))); err != nil {
		return fmt.Errorf("removing containers: %w", err)
	}
	if err := network.Purge(dataDir, cluster.Instance(dataDir)); err != nil {
		return fmt.Errorf("removing links and nftables tables: %w", err)
	}
	fmt.Fprintln(out, "removed containers, mounts, cgroups, links and nftables tables")
	if deleteData {
		if err := os.RemoveAll(dataDir); err != nil {
			return fmt.Errorf("deleting the data: %w", err)
		}
		fmt.Fprintf(out, "deleted %s\n", dataDir)
	}
	return nil
}

// stopServer asks process pid, which holds dataDir's lock, to stop, and ends it if it does not.
func stopServer(ctx context.Context, dataDir string, pid int) error {
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("stopping process %d: %w", pid, err)
	}
	deadline := time.Now().Add(stopWait)
	for cluster.RunningServer(dataDir) == pid {
		if time.Now().After(deadline) {
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("killing process %d: %w", pid, err)
			}
			deadline = time.Now().Add(stopWait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
