package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/cluster/backup"
	"github.com/knarr-io/knarr/internal/cluster/join"
	"github.com/knarr-io/knarr/internal/machine"
	"github.com/knarr-io/knarr/internal/pki"
)

// Backup is knarr backup.
func Backup() *cobra.Command {
	var dataDir string
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write the cluster's objects and keys into one file, while it runs",
		Long: `Write everything that makes the cluster into FILE, which knarr restore makes a server of again: a snapshot of etcd, taken from the running
server, and the keys that all servers share. Whoever has the file is the cluster's administrator: keep it as safe as the data directory. Images,
logs and volumes of pods are not in it.

Run it on a server of the cluster. With --etcd-endpoints the file has a snapshot of that etcd; etcd.snapshot in it is what etcdutl snapshot
restore takes.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(dataDir)
			if err != nil {
				return err
			}
			m, err := takeBackup(cmd.Context(), dir, args[0], time.Now())
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "backed up %d keys at revision %d to %s\n", m.Etcd.Keys, m.Etcd.Revision, args[0])
			return nil
		},
	}
	cmd.Flags().StringVar(&dataDir, "data-dir", dataDirFromEnv(), "the server's data directory")
	return cmd
}

// takeBackup writes a backup of the running cluster of dataDir to path.
func takeBackup(ctx context.Context, dataDir, path string, now time.Time) (m backup.Manifest, err error) {
	keys, err := pki.ReadShared(cluster.PKIDir(dataDir))
	if err != nil {
		return m, fmt.Errorf("%w; run this on a server, with its --data-dir", err)
	}
	pin, err := join.PinOf(keys["ca.crt"])
	if err != nil {
		return m, err
	}
	a, err := newAdmin(dataDir)
	if err != nil {
		return m, err
	}
	defer a.Close()
	settings, err := cluster.ReadAgentSettings(ctx, a)
	if err != nil {
		return m, err
	}
	snapshot, err := openSnapshot(ctx, dataDir)
	if err != nil {
		return m, err
	}
	defer snapshot.Close()
	m = backup.Manifest{Release: machine.Release, Time: now.UTC().Truncate(time.Second), Cluster: fmt.Sprintf("%x", pin), Settings: settings.Data()}
	var spooled string
	if spooled, m.Etcd, err = backup.Spool(ctx, filepath.Dir(path), snapshot); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.Remove(spooled)) }()
	return m, backup.Write(path, m, keys, spooled)
}

// openSnapshot asks the server of dataDir for a snapshot.
func openSnapshot(ctx context.Context, dataDir string) (io.ReadCloser, error) {
	config, err := clientcmd.BuildConfigFromFlags("", cluster.KubeconfigPath(dataDir))
	if err != nil {
		return nil, err
	}
	c, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, config.Host+backup.Path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking the server for a snapshot: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return nil, errors.Join(fmt.Errorf("asking the server for a snapshot: %s: %s", resp.Status, b), err)
	}
	return resp.Body, nil
}
