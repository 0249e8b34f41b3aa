package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cluster"
)

// Kubectl is knarr kubectl: the kubectl that comes with Knarr, pointed at this machine's cluster.
func Kubectl() *cobra.Command {
	return &cobra.Command{
		Use:                "kubectl ...",
		Short:              "Run the kubectl that comes with Knarr on this machine's cluster",
		Long:               "Run the kubectl that comes with Knarr. Unless KUBECONFIG or --kubeconfig says otherwise it talks to the cluster of\nthis machine (KNARR_DATA_DIR, by default " + cluster.DefaultDataDir + ").",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			path, err := libexecFile("kubectl")
			if err != nil {
				return err
			}
			env := os.Environ()
			if os.Getenv("KUBECONFIG") == "" && !namesCluster(args) {
				path := cluster.KubeconfigPath(dataDirFromEnv())
				if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) && needsCluster(args) {
					return fmt.Errorf("there is no cluster in %s yet: `knarr up` starts one (or name another with KUBECONFIG, --kubeconfig or KNARR_DATA_DIR)", dataDirFromEnv())
				}
				env = append(env, "KUBECONFIG="+path)
			}
			err = syscall.Exec(path, append([]string{"kubectl"}, args...), env)
			return fmt.Errorf("running %s: %w", path, err)
		},
	}
}

// namesCluster reports whether kubectl's arguments say which cluster is meant.
func namesCluster(args []string) bool {
	for _, a := range args {
		if a == "--" {
			return false
		}
		for _, flag := range []string{"--kubeconfig", "--server", "-s"} {
			if a == flag || strings.HasPrefix(a, flag+"=") {
				return true
			}
		}
	}
	return false
}

// needsCluster reports whether kubectl would talk to a cluster; help and the like do not.
func needsCluster(args []string) bool {
	for _, a := range args {
		if a == "--help" || a == "-h" || a == "--client" {
			return false
		}
	}
	return len(args) > 0 && !slices.Contains([]string{"help", "completion", "config", "options", "plugin", "kustomize", "__complete"}, args[0])
}

// dataDirFromEnv is the data directory of commands that take no --data-dir.
func dataDirFromEnv() string {
	if d := os.Getenv("KNARR_DATA_DIR"); d != "" {
		return d
	}
	return cluster.DefaultDataDir
}

// libexecFile finds an executable that comes with Knarr, beside it.
func libexecFile(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding knarr's own executable: %w", err)
	}
	path := filepath.Join(filepath.Dir(self), "libexec", name)
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("%s is missing: it comes with Knarr and belongs beside it (make build puts it there)", path)
		}
		return "", err
	}
	return path, nil
}
