package cli

import (
	"fmt"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cluster/backup"
)

// Restore is knarr restore.
func Restore() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Make a new server of a backup",
		Long: `Make --data-dir, which must be empty or not there, that of a server with the cluster that knarr backup put into FILE. knarr server --data-dir
with it then runs the cluster as it was at the time of the backup. Agents whose server comes back at an address that they know go on by
themselves, and so do their pods; pods that were made after the backup end.

The cluster has one server then. Others join it anew: run knarr down --delete-data on them, then knarr server --join.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(dataDir)
			if err != nil {
				return err
			}
			m, err := backup.Restore(args[0], dir)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "restored the cluster of %s, %d keys\n\n  knarr server --data-dir %s\n", m.Time.Local().Format(time.DateTime), m.Etcd.Keys, dir)
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "data directory to make")
	return cmd
}
