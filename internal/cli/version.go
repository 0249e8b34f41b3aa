package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/machine"
)

// Version is knarr version.
func Version() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print Knarr's version and that of the API it speaks", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := machine.KubernetesVersion()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "knarr %s\nKubernetes API v%s.%s\n%s %s\n", machine.Release, v.Major, v.Minor, v.GoVersion, v.Platform)
			return err
		},
	}
}
