package main

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/knarr-io/knarr/internal/cli"
	"github.com/knarr-io/knarr/internal/network/overlay"
)

// options are the flags of knarr server; a configuration file has the same names.
type options struct {
	dataDir     string
	listen      string
	nodeName    string
	nodeIP      string
	clusterCIDR string
	serviceCIDR string
	clusterDNS  string
	domain      string
	overlay     string
	tlsSANs     []string
	noAgent     bool
	criEndpoint string
	libexec     string
	maxPods     int
	hollow      int
	upstreamDNS []string
	logLevel    string
	kubeconfig  string

	join, token, tokenFile        string
	etcdEndpoints                 []string
	etcdCA, etcdCert, etcdKeyFile string

	// given tells whether a flag was set, rather than left at its default.
	given func(flag string) bool
}

func serverCommand() *cobra.Command {
	var o options
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
			o.given = cmd.Flags().Changed
			s, err := o.complete()
			if err != nil {
				return err
			}
			return s.run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&config, "config", "", "YAML file with flags, by their names; flags on the command line win")
	f.StringVar(&o.dataDir, "data-dir", cli.DefaultDataDir, "directory for everything Knarr keeps")
	f.StringVar(&o.listen, "listen", "0.0.0.0:6443", "address and port of the API (HTTPS)")
	f.StringVar(&o.nodeName, "node-name", "", "name of this machine in the cluster (default: its host name)")
	f.StringVar(&o.nodeIP, "node-ip", "", "address by which other machines and pods reach this one (default: that of the default route)")
	f.StringVar(&o.clusterCIDR, "cluster-cidr", "10.244.0.0/16", "addresses for pods; each node gets a /24 of them")
	f.StringVar(&o.serviceCIDR, "service-cidr", "10.96.0.0/16", "addresses for Services")
	f.StringVar(&o.clusterDNS, "cluster-dns", "", "address of the cluster's DNS (default: the tenth of --service-cidr)")
	f.StringVar(&o.domain, "cluster-domain", "cluster.local", "DNS domain of Services")
	f.StringVar(&o.overlay, "overlay", string(overlay.Auto), "how packets travel to pods of other machines: auto (plain routes to machines on the same link, VXLAN to others), vxlan, routes or none")
	f.StringSliceVar(&o.tlsSANs, "tls-san", nil, "further host names and addresses for the API's certificate")
	f.BoolVar(&o.noAgent, "no-agent", false, "run the control plane only")
	f.StringVar(&o.criEndpoint, "cri-endpoint", "", "socket of a container runtime to use (default: the containerd that comes with Knarr)")
	f.StringVar(&o.libexec, "libexec", "", "directory with the executables that come with Knarr (default: libexec beside the knarr executable)")
	f.IntVar(&o.maxPods, "max-pods", 250, "how many pods this machine runs at most")
	f.StringSliceVar(&o.upstreamDNS, "upstream-dns", nil, "DNS servers for names outside the cluster (default: those of /etc/resolv.conf)")
	f.IntVar(&o.hollow, "hollow-nodes", 0, "add this many nodes that only pretend to run containers, to try out a large cluster on a small machine")
	f.StringVar(&o.join, "join", "", "URL of a server, https://HOST:6443, whose cluster this one joins as a further server")
	f.StringVar(&o.token, "token", os.Getenv("KNARR_TOKEN"), "token from knarr token create --server (default: $KNARR_TOKEN)")
	f.Lookup("token").DefValue = ""
	f.StringVar(&o.tokenFile, "token-file", "", "file with the token, which others on this machine cannot see as they can a command line")
	f.StringSliceVar(&o.etcdEndpoints, "etcd-endpoints", nil, "URLs of an etcd that you run, to be used instead of the one that comes with Knarr")
	f.StringVar(&o.etcdCA, "etcd-cafile", "", "PEM file with the authority that vouches for --etcd-endpoints")
	f.StringVar(&o.etcdCert, "etcd-certfile", "", "PEM file with the client certificate for --etcd-endpoints")
	f.StringVar(&o.etcdKeyFile, "etcd-keyfile", "", "PEM file with its key")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.kubeconfig, "write-kubeconfig", "", "where to write the administrator's kubeconfig (default: kubeconfig in the data directory)")
	return cmd
}

// complete checks the options and fills in what was not given.
func (o options) complete() (*server, error) {
	if os.Geteuid() != 0 && !o.noAgent {
		return nil, fmt.Errorf("running containers needs root: start knarr as root (sudo), or with --no-agent for a control plane without a node")
	}
	var err error
	s := &server{options: o}
	if s.dataDir, err = filepath.Abs(o.dataDir); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if s.listenAddr, err = netip.ParseAddrPort(o.listen); err != nil {
		return nil, fmt.Errorf("--listen %q: want an address and a port, such as 0.0.0.0:6443: %w", o.listen, err)
	}
	if s.nodeName == "" {
		if s.nodeName, err = cli.HostName(); err != nil {
			return nil, err
		}
	}
	if s.nodeAddr, err = nodeAddress(o.nodeIP); err != nil {
		return nil, err
	}
	if s.clusterNet, err = parseIPv4Prefix("--cluster-cidr", o.clusterCIDR, 24); err != nil {
		return nil, err
	}
	if s.serviceNet, err = parseIPv4Prefix("--service-cidr", o.serviceCIDR, 27); err != nil {
		return nil, err
	}
	if s.clusterNet.Overlaps(s.serviceNet) {
		return nil, fmt.Errorf("--cluster-cidr %s and --service-cidr %s overlap", s.clusterNet, s.serviceNet)
	}
	if s.dnsAddr, err = dnsAddress(o.clusterDNS, s.serviceNet); err != nil {
		return nil, err
	}
	if s.overlayMode, err = overlay.ParseMode(o.overlay); err != nil {
		return nil, fmt.Errorf("--overlay: %w", err)
	}
	if s.log, err = cli.NewLogger(o.logLevel); err != nil {
		return nil, err
	}
	if s.kubeconfig == "" {
		s.kubeconfig = cli.KubeconfigPath(s.dataDir)
	}
	if s.token, err = readToken(o.token, o.tokenFile); err != nil {
		return nil, err
	}
	if len(o.etcdEndpoints) == 0 && (o.etcdCA != "" || o.etcdCert != "" || o.etcdKeyFile != "") {
		return nil, errors.New("--etcd-cafile, --etcd-certfile and --etcd-keyfile are for --etcd-endpoints")
	}
	if !o.noAgent {
		if err := checkRuntime(o.criEndpoint, s.dataDir, o.libexec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func parseIPv4Prefix(flag, value string, maxBits int) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(value)
	if err != nil || !p.Addr().Is4() || p.Bits() > maxBits || p.Bits() < 8 {
		return netip.Prefix{}, fmt.Errorf("%s %q: want an IPv4 range of /8 to /%d, such as 10.96.0.0/16", flag, value, maxBits)
	}
	return p.Masked(), nil
}

func dnsAddress(value string, services netip.Prefix) (netip.Addr, error) {
	if value == "" {
		addr := services.Masked().Addr()
		for range 10 {
			addr = addr.Next()
		}
		return addr, nil
	}
	addr, err := netip.ParseAddr(value)
	if err != nil || !services.Contains(addr) {
		return netip.Addr{}, fmt.Errorf("--cluster-dns %q: want an address within --service-cidr %s", value, services)
	}
	return addr, nil
}
