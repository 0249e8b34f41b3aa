package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cli"
	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/machine"
	"github.com/knarr-io/knarr/internal/network/overlay"
)

func serverCommand() *cobra.Command {
	var o machine.ServerOptions
	var config string
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the control plane and, unless --no-agent, this machine as a node",
		Long: `Run a whole cluster on this machine: the API, the controllers, the scheduler, etcd and - unless --no-agent - a node
with its container runtime, network and DNS. Everything is kept below --data-dir.

With --join it becomes a further server of a cluster: its etcd gets a copy of everything, and with three servers the cluster goes on when any
one of them is lost. The first start needs a token, which knarr token create --server makes on a server; later ones know where they belong.

Flags can also stand in a YAML file given with --config, under the same names:

  data-dir: /var/lib/knarr
  tls-san: [knarr.example.com]`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cli.ReadConfigFile(config, cmd.Flags()); err != nil {
				return err
			}
			o.Given = cmd.Flags().Changed
			return machine.RunServer(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "YAML file with flags, by their names; flags on the command line win")
	f.StringVar(&o.DataDir, "data-dir", cluster.DefaultDataDir, "directory for everything Knarr keeps")
	f.StringVar(&o.Listen, "listen", "0.0.0.0:6443", "address and port of the API (HTTPS)")
	f.StringVar(&o.NodeName, "node-name", "", "name of this machine in the cluster (default: its host name)")
	f.StringVar(&o.NodeIP, "node-ip", "", "address by which other machines and pods reach this one (default: that of the default route)")
	f.StringVar(&o.ClusterCIDR, "cluster-cidr", "10.244.0.0/16", "addresses for pods; each node gets a /24 of them")
	f.StringVar(&o.ServiceCIDR, "service-cidr", "10.96.0.0/16", "addresses for Services")
	f.StringVar(&o.ClusterDNS, "cluster-dns", "", "address of the cluster's DNS (default: the tenth of --service-cidr)")
	f.StringVar(&o.ClusterDomain, "cluster-domain", "cluster.local", "DNS domain of Services")
	f.StringVar(&o.Overlay, "overlay", string(overlay.Auto), "how packets travel to pods of other machines: auto (plain routes to machines on the same link, VXLAN to others), vxlan, routes or none")
	f.StringSliceVar(&o.TLSNames, "tls-san", nil, "further host names and addresses for the API's certificate")
	f.BoolVar(&o.NoAgent, "no-agent", false, "run the control plane only")
	f.StringVar(&o.CRIEndpoint, "cri-endpoint", "", "socket of a container runtime to use (default: the containerd that comes with Knarr)")
	f.StringVar(&o.Libexec, "libexec", "", "directory with the executables that come with Knarr (default: libexec beside the knarr executable)")
	f.IntVar(&o.MaxPods, "max-pods", 250, "how many pods this machine runs at most")
	f.IntVar(&o.KubeletPort, "kubelet-port", 0, "port of this machine's address at which tools find a kubelet, for those that are allowed: 10250 for metrics-server and Prometheus (default: none)")
	f.StringSliceVar(&o.UpstreamDNS, "upstream-dns", nil, "DNS servers for names outside the cluster (default: those of /etc/resolv.conf)")
	f.IntVar(&o.HollowNodes, "hollow-nodes", 0, "add this many nodes that only pretend to run containers, to try out a large cluster on a small machine")
	f.StringVar(&o.Join, "join", "", "URL of a server, https://HOST:6443, whose cluster this one joins as a further server")
	f.StringVar(&o.Token, "token", os.Getenv("KNARR_TOKEN"), "token from knarr token create --server (default: $KNARR_TOKEN)")
	f.Lookup("token").DefValue = ""
	f.StringVar(&o.TokenFile, "token-file", "", "file with the token, which others on this machine cannot see as they can a command line")
	f.StringSliceVar(&o.EtcdEndpoints, "etcd-endpoints", nil, "URLs of an etcd that you run, to be used instead of the one that comes with Knarr")
	f.StringVar(&o.EtcdCAFile, "etcd-cafile", "", "PEM file with the authority that vouches for --etcd-endpoints")
	f.StringVar(&o.EtcdCertFile, "etcd-certfile", "", "PEM file with the client certificate for --etcd-endpoints")
	f.StringVar(&o.EtcdKeyFile, "etcd-keyfile", "", "PEM file with its key")
	f.StringVar(&o.AdmissionConfig, "admission-control-config-file", "", "AdmissionConfiguration that names directories of webhooks and policies which no request can change (KEP-5793)")
	f.StringVar(&o.LogLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.Kubeconfig, "write-kubeconfig", "", "where to write the administrator's kubeconfig (default: kubeconfig in the data directory)")
	return cmd
}
