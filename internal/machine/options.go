package machine

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/network/overlay"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
)

// ServerOptions are the settings of a server, as people give them; README and knarr server --help describe them.
type ServerOptions struct {
	DataDir       string
	Listen        string // address and port of the API
	NodeName      string // empty: the machine's host name
	NodeIP        string // empty: the address of the default route
	ClusterCIDR   string // pods
	ServiceCIDR   string
	ClusterDNS    string // empty: the tenth address of ServiceCIDR
	ClusterDomain string
	Overlay       string // overlay.Mode
	TLSNames      []string
	NoAgent       bool
	CRIEndpoint   string // empty: the containerd that comes with Knarr
	Libexec       string // empty: libexec beside the executable
	MaxPods       int
	KubeletPort   int // 0: none
	HollowNodes   int
	UpstreamDNS   []string // empty: those of /etc/resolv.conf
	LogLevel      string
	// AdmissionConfig is a file with an AdmissionConfiguration, which names webhooks and policies from files (KEP-5793); empty: none.
	AdmissionConfig string
	Kubeconfig      string // empty: kubeconfig in DataDir

	Join, Token, TokenFile                string
	EtcdEndpoints                         []string
	EtcdCAFile, EtcdCertFile, EtcdKeyFile string

	// Given reports whether a setting, by its flag's name, was set rather than left at its default.
	Given func(flag string) bool
}

// RunServer runs a server, and this machine as its node, until ctx ends. It checks the options before anything is made.
func RunServer(ctx context.Context, o ServerOptions) error {
	s, err := o.complete()
	if err != nil {
		return err
	}
	return s.run(ctx)
}

// complete checks the options and fills in what was not given.
func (o ServerOptions) complete() (*server, error) {
	if os.Geteuid() != 0 && !o.NoAgent {
		return nil, fmt.Errorf("running containers needs root: start knarr as root (sudo), or with --no-agent for a control plane without a node")
	}
	var err error
	s := &server{ServerOptions: o}
	if s.DataDir, err = filepath.Abs(o.DataDir); err != nil {
		return nil, fmt.Errorf("--data-dir: %w", err)
	}
	if s.listenAddr, err = netip.ParseAddrPort(o.Listen); err != nil {
		return nil, fmt.Errorf("--listen %q: want an address and a port, such as 0.0.0.0:6443: %w", o.Listen, err)
	}
	if s.NodeName == "" {
		if s.NodeName, err = hostName(); err != nil {
			return nil, err
		}
	}
	if s.nodeAddr, err = nodeAddress(o.NodeIP); err != nil {
		return nil, err
	}
	if s.clusterNet, err = parseIPv4Prefix("--cluster-cidr", o.ClusterCIDR, 24); err != nil {
		return nil, err
	}
	if s.serviceNet, err = parseIPv4Prefix("--service-cidr", o.ServiceCIDR, 27); err != nil {
		return nil, err
	}
	if s.clusterNet.Overlaps(s.serviceNet) {
		return nil, fmt.Errorf("--cluster-cidr %s and --service-cidr %s overlap", s.clusterNet, s.serviceNet)
	}
	if s.dnsAddr, err = dnsAddress(o.ClusterDNS, s.serviceNet); err != nil {
		return nil, err
	}
	if s.overlayMode, err = overlay.ParseMode(o.Overlay); err != nil {
		return nil, fmt.Errorf("--overlay: %w", err)
	}
	if err = checkKubeletPort(o.KubeletPort); err != nil {
		return nil, err
	}
	if s.log, err = newLogger(o.LogLevel); err != nil {
		return nil, err
	}
	if s.manifestDirs, err = readAdmissionConfig(o.AdmissionConfig); err != nil {
		return nil, err
	}
	if s.Kubeconfig == "" {
		s.Kubeconfig = cluster.KubeconfigPath(s.DataDir)
	}
	if s.Token, err = readToken(o.Token, o.TokenFile); err != nil {
		return nil, err
	}
	if err = o.checkEtcd(); err != nil {
		return nil, err
	}
	if !o.NoAgent {
		if err := checkRuntime(o.CRIEndpoint, s.DataDir, o.Libexec); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// checkEtcd refuses files for an etcd that is not named.
func (o *ServerOptions) checkEtcd() error {
	if len(o.EtcdEndpoints) == 0 && (o.EtcdCAFile != "" || o.EtcdCertFile != "" || o.EtcdKeyFile != "") {
		return errors.New("--etcd-cafile, --etcd-certfile and --etcd-keyfile are for --etcd-endpoints")
	}
	return nil
}

// readAdmissionConfig returns the directories of manifests that the file names; none where there is no file.
func readAdmissionConfig(file string) (map[string]string, error) {
	if file == "" {
		return nil, nil
	}
	dirs, err := manifests.ReadConfiguration(file)
	if err != nil {
		return nil, fmt.Errorf("--admission-control-config-file: %w", err)
	}
	return dirs, nil
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

// checkKubeletPort refuses what is no port.
func checkKubeletPort(port int) error {
	if port < 0 || port > 65535 {
		return fmt.Errorf("--kubelet-port %d: want a port from 1 to 65535, 10250 as elsewhere, or 0 for none", port)
	}
	return nil
}

// readToken returns the token of --token or --token-file.
func readToken(token, file string) (string, error) {
	if file == "" {
		return token, nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// nodeAddress is the given address, or the one this machine uses to reach others.
func nodeAddress(given string) (netip.Addr, error) {
	if given != "" {
		a, err := netip.ParseAddr(given)
		if err != nil {
			return a, fmt.Errorf("--node-ip %q: %w", given, err)
		}
		if a.IsLoopback() || a.IsUnspecified() || a.IsMulticast() || a.IsLinkLocalUnicast() {
			return a, fmt.Errorf("--node-ip %s: want an address by which other machines and pods reach this one", given)
		}
		return a, nil
	}
	return machineAddress()
}
