// Package network connects the pods of one node: addresses and links (packages ipam and cni), the ways to pods of other nodes
// (package overlay), Services (package balance), network policies (package guard) and what the node itself needs for all of them.
//
// What flows through it: the container runtime calls the CNI plugin, which asks the [Node]; Nodes come from the API and become
// routes; Services and EndpointSlices go to nftables. What must stay true: pods and Services keep working while Knarr is away; several
// instances on one machine, even in one network namespace, do not touch each other's links, tables and routes;
// [Purge] finds everything an instance made without its records. Tests: TestRestartKeepsConnectionsAndReclaims,
// TestOtherInstancesStay, TestPurgeLeavesNoTrace.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"regexp"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/balance"
	"github.com/knarr-io/knarr/internal/network/cni"
	"github.com/knarr-io/knarr/internal/network/ipam"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/overlay"
	"github.com/knarr-io/knarr/internal/network/services"
)

// Config describes the network of one node. Addresses are IPv4.
type Config struct {
	Instance    string       // tells instances on one machine apart; "" is the default one
	DataDir     string       // absolute; the network's files are in its folder network
	NodeName    string       // as in EndpointSlices
	NodeIP      netip.Addr   // the node's own address
	PodCIDR     netip.Prefix // of this node's pods
	ClusterCIDR netip.Prefix // of all pods; the zero value means PodCIDR
	ServiceCIDR netip.Prefix // of cluster IPs
	// ClusterDNS is the Service address of the DNS server, which the node gets as an address of its own: each node answers
	// for itself. The zero value means none.
	ClusterDNS netip.Addr
	// Mode says how packets travel to pods of other nodes; the zero value means overlay.Auto. All nodes should have the same.
	Mode   overlay.Mode
	VNI    int           // VXLAN network identifier, the same on all nodes; 0 means overlay.DefaultVNI
	MTU    int           // of pod links, in bytes; 0 means what fits the link that has NodeIP and, where used, VXLAN
	Window time.Duration // shortest time between two nftables transactions; 0 means balance.DefaultWindow
	Client client.Client
	// Metrics gets the figures of Services under kube-proxy's names; nil means nobody.
	Metrics prometheus.Registerer
	Log     *slog.Logger // nil means slog.Default()
}

// Node is the network of one node. Make one with New and call Run once.
type Node struct {
	cfg       Config
	pool      *ipam.Pool
	inherited map[ipam.Owner]bool // allocations of an earlier run
	up, ready chan struct{}
	plugin    *cni.Plugin // set once up is closed
}

// instanceNames are those that fit into nftables names and file names.
var instanceNames = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?$`)

// New checks cfg and reads the addresses in use from disk. It changes nothing on the machine.
func New(cfg Config) (*Node, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if !cfg.ClusterCIDR.IsValid() {
		cfg.ClusterCIDR = cfg.PodCIDR
	}
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	pool, err := ipam.Open(filepath.Join(cfg.dir(), "ipam"), cfg.PodCIDR)
	if err != nil {
		return nil, fmt.Errorf("network: %w", err)
	}
	n := &Node{cfg: cfg, pool: pool, inherited: map[ipam.Owner]bool{}, up: make(chan struct{}), ready: make(chan struct{})}
	for _, a := range pool.List() {
		n.inherited[a.Owner] = true
	}
	return n, nil
}

func (c *Config) validate() error {
	if c.Instance != "" && !instanceNames.MatchString(c.Instance) {
		return fmt.Errorf("instance name %q: use up to 32 lower-case letters, digits and '-'", c.Instance)
	}
	if !filepath.IsAbs(c.DataDir) {
		return fmt.Errorf("data directory %q is not absolute", c.DataDir)
	}
	if n := len(Socket(c.DataDir)); n > maxSocketPath {
		return fmt.Errorf("data directory %q is too long: the socket %s has %d characters, the kernel takes %d", c.DataDir, Socket(c.DataDir), n, maxSocketPath)
	}
	for _, p := range []struct {
		name   string
		prefix netip.Prefix
	}{{"pod CIDR", c.PodCIDR}, {"cluster CIDR", c.ClusterCIDR}, {"service CIDR", c.ServiceCIDR}} {
		if !p.prefix.IsValid() || !p.prefix.Addr().Is4() {
			return fmt.Errorf("%s %q is not an IPv4 prefix", p.name, p.prefix)
		}
	}
	if _, err := overlay.ParseMode(string(c.Mode)); err != nil {
		return err
	}
	if c.VNI < 0 || c.VNI >= 1<<24 {
		return fmt.Errorf("VXLAN network identifier %d: want 1 to %d", c.VNI, 1<<24-1)
	}
	if !c.NodeIP.Is4() {
		return fmt.Errorf("node address %q is not IPv4", c.NodeIP)
	}
	if !c.ClusterCIDR.Overlaps(c.PodCIDR) || c.ClusterCIDR.Bits() > c.PodCIDR.Bits() {
		return fmt.Errorf("pod CIDR %v is not inside of cluster CIDR %v", c.PodCIDR, c.ClusterCIDR)
	}
	if c.ServiceCIDR.Overlaps(c.ClusterCIDR) {
		return fmt.Errorf("service CIDR %v and cluster CIDR %v overlap", c.ServiceCIDR, c.ClusterCIDR)
	}
	if c.ServiceCIDR.Contains(c.NodeIP) || c.ClusterCIDR.Contains(c.NodeIP) {
		return fmt.Errorf("node address %v is inside of service CIDR %v or cluster CIDR %v", c.NodeIP, c.ServiceCIDR, c.ClusterCIDR)
	}
	if c.ClusterDNS.IsValid() && !c.ServiceCIDR.Contains(c.ClusterDNS) {
		return fmt.Errorf("cluster DNS address %v is not inside of service CIDR %v", c.ClusterDNS, c.ServiceCIDR)
	}
	return nil
}

func (c *Config) dir() string { return filepath.Join(c.DataDir, "network") }

// maxSocketPath is the room for a path in struct sockaddr_un.
const maxSocketPath = 107

// Socket is where the CNI server of the data directory listens.
func Socket(dataDir string) string { return filepath.Join(dataDir, "network", "cni.sock") }

// TableName returns the instance's nftables table.
func TableName(instance string) string {
	if instance == "" {
		return "knarr"
	}
	return "knarr-" + instance
}

// Up is closed once pods can be connected and the node has the cluster DNS address.
func (n *Node) Up() <-chan struct{} { return n.up }

// Ready is closed once the pods of all nodes and all Services known at the start can be reached from this node, as far as the network
// policies known at the start let them.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Reclaim disconnects all sandboxes of an earlier run that are not live, by their CNI container ID (the CRI pod sandbox ID),
// and links that belong to none. Call it once after a start, with what the runtime lists; it waits for Up.
func (n *Node) Reclaim(ctx context.Context, live map[string]bool) error {
	select {
	case <-n.up:
	case <-ctx.Done():
		return ctx.Err()
	}
	err := n.plugin.Reclaim(ctx, func(o ipam.Owner) bool { return live[o.ContainerID] || !n.inherited[o] })
	return errors.Join(err, n.plugin.ReclaimLinks())
}

// WatchLinks makes the links of pods anew that somebody else deleted, and tells lost of each, until ctx ends. Call it once after
// Reclaim.
func (n *Node) WatchLinks(ctx context.Context, lost func(cni.Lost)) error {
	select {
	case <-n.up:
		return n.plugin.WatchLinks(ctx, lost)
	case <-ctx.Done():
		return nil
	}
}

// Run serves the network until ctx ends. Links, addresses and rules stay as they are then; see [Purge].
func (n *Node) Run(ctx context.Context) error {
	if err := n.prepare(); err != nil {
		return fmt.Errorf("network: %w", err)
	}
	others, err := n.newOverlay()
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	mtu := others.PodMTU
	if n.cfg.MTU > 0 {
		mtu = func() int { return n.cfg.MTU }
	}
	var local []netip.Addr
	if n.cfg.ClusterDNS.IsValid() {
		local = append(local, n.cfg.ClusterDNS)
	}
	layout := services.Layout{Overlay: overlay.LinkName(n.cfg.Instance, nft.FamilyOf(n.cfg.NodeIP)), PodCIDR: n.cfg.PodCIDR, ClusterCIDR: n.cfg.ClusterCIDR,
		ServiceCIDR: n.cfg.ServiceCIDR, Local: local}
	table, err := nft.Open(nft.Table{Family: layout.Family(), Name: TableName(n.cfg.Instance)})
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer table.Close()

	balancer := n.newBalancer(services.NewKernel(layout, table), local)
	guards, err := n.newGuarding(layout.Family())
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	defer guards.close()
	n.plugin = n.newPlugin(mtu, balancer, guards)
	server := &cni.Server{Socket: Socket(n.cfg.DataDir), Log: n.cfg.Log, Plugin: n.plugin}
	listener, err := server.Listen()
	if err != nil {
		return fmt.Errorf("network: %w", err)
	}
	n.cfg.Log.Info("network is up", "podCIDR", n.cfg.PodCIDR, "serviceCIDR", n.cfg.ServiceCIDR, "mtu", mtu(), "nftables", TableName(n.cfg.Instance))
	close(n.up)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return balancer.Run(ctx) })
	g.Go(func() error { return guards.Run(ctx) })
	g.Go(func() error { return others.Run(ctx) })
	g.Go(func() error { return server.Serve(ctx, listener) })
	g.Go(func() error {
		for _, ready := range []<-chan struct{}{balancer.Ready(), others.Ready(), guards.Ready()} {
			select {
			case <-ready:
			case <-ctx.Done():
				return nil
			}
		}
		close(n.ready)
		return nil
	})
	return g.Wait()
}

// newBalancer returns what keeps Services; local are the Service addresses that the node itself has.
func (n *Node) newBalancer(kernel *services.Kernel, local []netip.Addr) *balance.Balancer {
	hostPorts := map[string][]services.Element{}
	for _, a := range n.pool.List() {
		if len(a.HostPorts) > 0 {
			hostPorts[hostPortOwner(a.Owner)] = hostPortElements(a.Addrs(), a.HostPorts)
		}
	}
	return balance.New(balance.Config{Client: n.cfg.Client, Kernels: []balance.Kernel{kernel}, Node: services.Node{Name: n.cfg.NodeName, Local: local},
		DeleteFlows: services.DeleteFlows, HostPorts: hostPorts, Window: n.cfg.Window, Metrics: n.cfg.Metrics, Log: n.cfg.Log})
}

// newOverlay returns what keeps the ways to other nodes.
func (n *Node) newOverlay() (*overlay.Overlay, error) {
	return overlay.New(overlay.Config{Instance: n.cfg.Instance, Protocol: routeProtocol, Priority: routePriority(n.cfg.Instance),
		Self: overlay.Self{Name: n.cfg.NodeName, IP: n.cfg.NodeIP, PodCIDR: n.cfg.PodCIDR, ClusterCIDR: n.cfg.ClusterCIDR,
			Mode: n.cfg.Mode, VNI: n.cfg.VNI},
		SetSysctl: func(key, value string) error { return setSysctl(n.cfg.dir(), key, value) },
		Client:    n.cfg.Client, Log: n.cfg.Log})
}

// newPlugin returns what does the CNI server's work.
func (n *Node) newPlugin(mtu func() int, balancer *balance.Balancer, guards *guarding) *cni.Plugin {
	return &cni.Plugin{Instance: n.cfg.Instance, Pool: n.pool, MTU: mtu, NodeAddr: n.cfg.NodeIP, Log: n.cfg.Log,
		Admit: guards.admit, Dismiss: guards.dismiss,
		SetHostPorts: func(ctx context.Context, owner ipam.Owner, addrs []netip.Addr, ports []ipam.HostPort) error {
			return balancer.SetHostPorts(ctx, hostPortOwner(owner), hostPortElements(addrs, ports))
		}}
}
