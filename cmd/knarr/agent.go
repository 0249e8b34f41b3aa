package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cli"
	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/machine"
)

func agentCommand() *cobra.Command {
	var o machine.AgentOptions
	var config string
	cmd := &cobra.Command{
		Use:   "agent",
		Short: "Join this machine to a cluster and run its pods",
		Long: `Run this machine as a node of a cluster whose server is on another machine. The first start needs a token, which knarr token
create makes on the server; later ones use the certificate that the machine was given for it. The agent only dials out.

kubectl delete node takes the machine out of the cluster: it then needs a token to come back. knarr down removes what it had.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.ReadConfigFile(config, cmd.Flags()); err != nil {
				return err
			}
			return machine.RunAgent(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "YAML file with flags, by their names; flags on the command line win")
	f.StringSliceVar(&o.Servers, "server", nil, "URL of a server, https://HOST:6443; may be given several times (default: those that were joined). The agent finds the cluster's other servers by itself")
	f.StringVar(&o.Token, "token", os.Getenv("KNARR_TOKEN"), "token from knarr token create (default: $KNARR_TOKEN)")
	f.Lookup("token").DefValue = ""
	f.StringVar(&o.TokenFile, "token-file", "", "file with the token, which others on this machine cannot see as they can a command line")
	f.StringVar(&o.DataDir, "data-dir", cluster.DefaultDataDir, "directory for everything Knarr keeps")
	f.StringVar(&o.NodeName, "node-name", "", "name of this machine in the cluster (default: its host name)")
	f.StringVar(&o.NodeIP, "node-ip", "", "address by which other machines and pods reach this one (default: that of the default route)")
	f.StringVar(&o.CRIEndpoint, "cri-endpoint", "", "socket of a container runtime to use (default: the containerd that comes with Knarr)")
	f.StringVar(&o.Libexec, "libexec", "", "directory with the executables that come with Knarr (default: libexec beside the knarr executable)")
	f.IntVar(&o.MaxPods, "max-pods", 250, "how many pods this machine runs at most")
	f.IntVar(&o.KubeletPort, "kubelet-port", 0, "port of this machine's address at which tools find a kubelet, for those that are allowed: 10250 for metrics-server and Prometheus (default: none)")
	f.StringSliceVar(&o.UpstreamDNS, "upstream-dns", nil, "DNS servers for names outside the cluster (default: those of /etc/resolv.conf)")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	return cmd
}
