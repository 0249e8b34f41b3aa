package dev

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"

	"github.com/knarr-io/knarr/internal/cluster"
	"github.com/knarr-io/knarr/internal/network"
)

// layout says where everything of a cluster is and what it is called.
type layout struct{ dir string }

func newLayout(dir string) layout { return layout{filepath.Clean(dir)} }

const (
	settingsName = "dev.json"
	// The bridge has a network namespace to itself: on a machine with br_netfilter the firewall would look at bridged frames, and
	// Docker's drops them.
	switchName = "switch"
	bridgeName = "br0"
	// hostPort is the bridge's end of the link to the machine; a node's is called as the node.
	hostPort = "host"
	nodeLink = "eth0"
	apiPort  = 6443
	maxNodes = 100
	// firstHost is added to a node's number, in an address.
	firstHost = 10
)

func (l layout) settingsFile() string         { return filepath.Join(l.dir, settingsName) }
func (l layout) kubeconfig() string           { return filepath.Join(l.dir, "kubeconfig") }
func (l layout) nodeDir(n Node) string        { return filepath.Join(l.dir, n.Name) }
func (l layout) logFile(n Node) string        { return filepath.Join(l.nodeDir(n), "knarr.log") }
func (l layout) namespaces() string           { return filepath.Join(l.dir, "netns") }
func (l layout) namespace(name string) string { return filepath.Join(l.namespaces(), name) }

// instance tells this cluster's things on the machine from others'.
func (l layout) instance() string { return cluster.Instance(l.dir) }

// hostLink is the machine's end of its link to the bridge.
func (l layout) hostLink() string { return "kd" + l.instance() }

// hardwareAddr is that of the link which is plugged into a port of the bridge; a locally administered one.
func (l layout) hardwareAddr(port string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(l.dir + "/" + port))
	return append(net.HardwareAddr{2}, sum[:5]...)
}

// table is the nftables table of the machine; the prefix is that of all of Knarr's, so that whoever puts back the machine's settings
// sees that they are still needed.
func (l layout) table() string { return network.TableName(l.instance()) }

// gateway is the machine's address in the cluster's network.
func (s Settings) gateway() netip.Addr { return s.Subnet.Masked().Addr().Next() }

// Address is the node's.
func (s Settings) Address(n Node) netip.Addr {
	a := s.Subnet.Masked().Addr().As4()
	a[3] += firstHost + byte(n.Number)
	return netip.AddrFrom4(a)
}

// URL is where a server answers.
func (s Settings) URL(n Node) string {
	return "https://" + netip.AddrPortFrom(s.Address(n), apiPort).String()
}

func nodeName(number int) string { return fmt.Sprintf("node-%d", number) }
