// Command knarr is a container platform in one binary: it speaks the Kubernetes API and carries inside what a cluster
// needs. This package is flags and two calls, into internal/machine; internal/cli has the other commands.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cli"
	"github.com/knarr-io/knarr/internal/cli/dev"
	"github.com/knarr-io/knarr/internal/machine"
	"github.com/knarr-io/knarr/internal/node/containerd"
)

func main() {
	// The runtime is this binary run again as a child process; it has flags and signals of its own.
	if len(os.Args) > 1 && os.Args[1] == "containerd" {
		exit(containerd.Main(os.Args[2:]))
	}
	machine.SaveMemory()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	exit(rootCommand().ExecuteContext(ctx))
}

func exit(err error) {
	var code cli.ExitCode
	switch {
	case err == nil:
		os.Exit(0)
	case errors.As(err, &code):
		os.Exit(int(code))
	}
	fmt.Fprintf(os.Stderr, "knarr: %v\n", err)
	os.Exit(1)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "knarr",
		Short: "A container platform in one binary that speaks the Kubernetes API",
		Long: `Knarr runs containers on one machine or many. It speaks the Kubernetes API and carries inside what a cluster needs:
scheduler, self-healing, network, service discovery, load balancing, access control.

  knarr up                 start a single-machine cluster in the background
  knarr kubectl get pods   use it
  knarr down               stop it and remove every trace
  knarr dev up --nodes 3   the same with three nodes on this machine`,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(serverCommand(), agentCommand(), cli.Token(), cli.Backup(), cli.Restore(), cli.Member(), cli.Rollout(), cli.Volume(), cli.Why(), cli.Policy(), cli.Advise(), cli.Up(), cli.Down(), dev.Command(), cli.Kubectl(), cli.Image(), cli.Version())
	return root
}
