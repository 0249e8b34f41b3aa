package network

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"golang.org/x/sys/unix"

	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/overlay"
)

// ways are the situations in which machines find each other.
var ways = []struct {
	name  string
	mode  overlay.Mode
	apart bool // each on a link of its own, with a router between
	vxlan bool // what has to come out
}{
	{"plain routes on one link", overlay.Auto, false, false},
	{"VXLAN on one link", overlay.VXLAN, false, true},
	{"VXLAN over a router", overlay.Auto, true, true},
}

// sliceOn returns the endpoints of a Service, on the nodes they are on.
func sliceOn(service string, pods map[*member]*pod) order {
	var list []*pod
	var names []string
	for n, p := range pods {
		list, names = append(list, p), append(names, n.name)
	}
	s := endpointSlice(service, list)
	for i := range s.Endpoints {
		s.Endpoints[i].NodeName = &names[i]
	}
	return order{Slice: s}
}

func serviceOrder(name, ip string, nodePort int32, change func(*corev1.Service)) order {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: ip, ClusterIPs: []string{ip},
			Ports: []corev1.ServicePort{{Name: "tcp", Port: 80, Protocol: corev1.ProtocolTCP, NodePort: nodePort}}}}
	if change != nil {
		change(svc)
	}
	return order{Service: svc}
}

func TestSeveralMachines(t *testing.T) {
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			m := newMachines(t, 3, way.mode, way.apart)
			a, b, c := m.nodes[0], m.nodes[1], m.nodes[2]
			for _, n := range m.nodes {
				if links := n.ipOutput("-o", "link", "show", "type", "vxlan"); links != "" {
					t.Errorf("%s alone has %s", n.name, links)
				}
			}
			for _, n := range m.nodes {
				m.join(n)
			}
			pods := map[*member]*pod{a: a.pod("pod-a"), b: b.pod("pod-b"), c: c.pod("pod-c")}
			pa, pb := pods[a], pods[b]
			for from, p := range pods {
				for _, to := range pods {
					from.eventually("pod to pod", func() bool { _, err := ask(p.ns, to.addr.String()+":8080"); return err == nil })
				}
			}
			if got := strings.Contains(a.ipOutput("-o", "link", "show", "type", "vxlan"), overlay.LinkName("test", nft.IPv4)); got != way.vxlan {
				t.Errorf("VXLAN is used: %v, want %v\n%s", got, way.vxlan, a.ipOutput("route"))
			}
			podsReachPods(t, m, pods, way.vxlan)
			servicesReachPods(t, m, pods)
			packetsFit(t, pa, pb, map[bool]int{true: 1500 - overlay.Overhead(nft.IPv4), false: 1500}[way.vxlan])
			restartIsNotNoticed(t, a, pa, pb)
			machinesGo(t, m, pods)
			purgeLeavesNothing(t, a, pa)
		})
	}
}

// podsReachPods: all pairs, with their own addresses, and nodes with one that is answered the same way.
func podsReachPods(t *testing.T, m *machines, pods map[*member]*pod, vxlan bool) {
	for _, from := range m.nodes {
		for to, p := range pods {
			from.mustAsk("pod to pod of "+to.name, pods[from].ns, p.addr.String()+":8080", p.name, pods[from].addr.String())
			want := from.ip.String()
			if vxlan && from != to {
				want = from.podCIDR.Masked().Addr().Next().String()
			}
			from.mustAsk("node to pod of "+to.name, from.ns, p.addr.String()+":8080", p.name, want)
			if from == to {
				continue
			}
			// A process that bound the machine's address.
			from.ns.Do(func() {
				d := net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: from.ip.AsSlice()}}
				c, err := d.Dial("tcp4", p.addr.String()+":8080")
				if err != nil {
					t.Errorf("from %v to the pod of %s: %v", from.ip, to.name, err)
					return
				}
				c.Close()
			})
			// A pod that is not there is said to be so at once.
			gone := to.podCIDR.Addr().Next().Next()
			for range 100 {
				gone = gone.Next()
			}
			start := time.Now()
			if _, err := ask(pods[from].ns, gone.String()+":8080"); !errors.Is(err, syscall.EHOSTUNREACH) || time.Since(start) > 5*time.Second {
				t.Errorf("a pod that %s does not have: %v after %v, want no route to host", to.name, err, time.Since(start))
			}
		}
	}
	outside := &pod{w: m.nodes[0].world, name: "outside", ns: m.outside}
	outside.serve()
	m.nodes[0].mustAsk("pod to the world, with the machine's address", pods[m.nodes[0]].ns, "192.0.2.200:8080", "outside", m.nodes[0].ip.String())
}

// servicesReachPods: from pods, nodes and outside, to endpoints of other nodes.
func servicesReachPods(t *testing.T, m *machines, pods map[*member]*pod) {
	a, b, c := m.nodes[0], m.nodes[1], m.nodes[2]
	pb := pods[b]
	m.all(serviceOrder("web", "10.96.1.1", 30080, nil))
	m.all(sliceOn("web", map[*member]*pod{b: pb}))
	m.all(serviceOrder("all", "10.96.1.2", 30081, nil))
	m.all(sliceOn("all", pods))
	m.all(serviceOrder("local", "10.96.1.3", 30082, func(s *corev1.Service) {
		s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}))
	m.all(sliceOn("local", map[*member]*pod{b: pb}))
	for _, n := range m.nodes {
		for _, addr := range []string{"10.96.1.1:80", "10.96.1.2:80", "10.96.1.3:80"} {
			n.eventually(addr+" answers", func() bool { _, err := ask(n.ns, addr); return err == nil })
		}
	}
	for _, n := range m.nodes {
		client := pods[n].addr.String()
		if n == b {
			client = b.ip.String() // to itself
		}
		n.mustAsk("pod to a Service", pods[n].ns, "10.96.1.1:80", "pod-b", client)
		n.mustAsk("pod to its node's port", pods[n].ns, n.ip.String()+":30080", "pod-b", client)
		n.mustAsk("node to a Service", n.ns, "10.96.1.1:80", "pod-b", "")
		n.mustAsk("node port on 127.0.0.1", n.ns, "127.0.0.1:30080", "pod-b", "")
		n.mustAsk("node port by the node's address", n.ns, n.ip.String()+":30080", "pod-b", "")
		n.mustAsk("node port from outside", m.outside, n.ip.String()+":30080", "pod-b", "")
		seen := map[string]int{}
		for range 40 {
			got, err := ask(pods[n].ns, "10.96.1.2:80")
			if err != nil {
				t.Fatalf("%s: a Service with endpoints on all nodes: %v", n.name, err)
			}
			seen[got.pod]++
		}
		if len(seen) != 3 {
			t.Errorf("%s: 40 connections went %v, want all three pods", n.name, seen)
		}
	}
	a.mustAsk("pod to another node's port", pods[a].ns, c.ip.String()+":30080", "pod-b", "")
	a.mustAsk("pod to a node port, back to its own node", pods[b].ns, c.ip.String()+":30080", "pod-b", "")
	a.mustAsk("policy Local, on the endpoint's node: the client's address is seen", m.outside, b.ip.String()+":30082", "pod-b", "192.0.2.200")
	if _, err := ask(m.outside, a.ip.String()+":30082"); err == nil {
		t.Error("policy Local: a node without an endpoint answered")
	}
}

// packetsFit: packets as long as the pods' links allow pass in one piece.
func packetsFit(t *testing.T, from, to *pod, mtu int) {
	for _, ends := range [][2]*pod{{from, to}, {to, from}} {
		if err := datagram(ends[0].ns, ends[1].addr, mtu); err != nil {
			t.Errorf("%s to %s: a packet of %d bytes: %v", ends[0].name, ends[1].name, mtu, err)
		}
		if err := datagram(ends[0].ns, ends[1].addr, mtu+1); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("%s to %s: a packet of %d bytes: %v, want it to be too long", ends[0].name, ends[1].name, mtu+1, err)
		}
	}
	if err := transfer(from.ns, to.addr.String()+":8080", 4<<20); err != nil {
		t.Errorf("4 MiB there and back: %v", err)
	}
}

// datagram sends a UDP packet of size bytes, IP header included, that must not be fragmented, and waits for the answer.
func datagram(from *nettest.NS, to netip.Addr, size int) error {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		var set error
		err := raw.Control(func(fd uintptr) {
			set = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
		})
		return errors.Join(err, set)
	}}
	var c net.Conn
	var err error
	from.Do(func() { c, err = d.Dial("udp4", to.String()+":8080") })
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * time.Second))
	if _, err := c.Write(make([]byte, size-28)); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 100))
	return err
}

// transfer sends size bytes to a pod's server and reads them back.
func transfer(from *nettest.NS, addr string, size int64) error {
	_, c, err := open(from, addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make(chan error, 1)
	go func() {
		_, err := io.CopyN(c, zeros{}, size)
		sent <- err
	}()
	n, err := io.CopyN(io.Discard, c, size)
	if err == nil {
		err = <-sent
	}
	if err != nil {
		return fmt.Errorf("after %d bytes: %w", n, err)
	}
	return nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// restartIsNotNoticed: links and routes stay as they are, and so does traffic.
func restartIsNotNoticed(t *testing.T, n *member, from, to *pod) {
	state := func() string {
		return n.ipOutput("-o", "link", "show", "type", "vxlan") + n.ipOutput("route") + n.ipOutput("neigh", "show", "nud", "permanent")
	}
	before := state()
	_, c, err := open(from.ns, to.addr.String()+":8080")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	n.tell(order{Stop: true})
	n.mustAsk("while Knarr is away", from.ns, to.addr.String()+":8080", to.name, "")
	n.startMember()
	if after := state(); after != before {
		t.Errorf("before the restart:\n%s\nafter:\n%s", before, after)
	}
	_, err = c.Write([]byte("x"))
	if err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err != nil {
		t.Errorf("connection from before the restart: %v", err)
	}
	// What somebody takes away comes back; so does what the kernel drops with a link that goes down.
	n.ns.Must("damage", func() error {
		return run("ip", "route", "flush", "proto", fmt.Sprint(int(routeProtocol)), "root", "10.244.0.0/16")
	})
	n.eventually("routes are back", func() bool { return state() == before })
	n.ns.Must("damage", func() error {
		route := strings.Fields(strings.Split(n.ipOutput("route", "show", "default"), "\n")[0])
		return run("ip", "link", "set", "eth0", "down", "then", "ip", "link", "set", "eth0", "up", "then", "ip", "route", "replace", strings.Join(route, " "))
	})
	n.eventually("routes are back after the link was down", func() bool { return state() == before })
	if link := overlay.LinkName("test", nft.IPv4); strings.Contains(before, link) {
		n.ns.Must("damage", func() error { return exec.Command("ip", "link", "del", link).Run() })
		n.eventually("pods are reached after the link was deleted", func() bool {
			a, err := ask(from.ns, to.addr.String()+":8080")
			return err == nil && a.pod == to.name
		})
	}
}

// machinesGo: what belongs to a Node goes with it, and comes back with it.
func machinesGo(t *testing.T, m *machines, pods map[*member]*pod) {
	a, b, c := m.nodes[0], m.nodes[1], m.nodes[2]
	full := a.ipOutput("route")
	a.tell(order{Gone: c.name})
	a.eventually("the route is gone", func() bool { return !strings.Contains(a.ipOutput("route"), c.podCIDR.String()) })
	if rest := a.ipOutput("neigh", "show", "nud", "permanent"); strings.Contains(rest, c.ip.String()+" dev "+overlay.LinkName("test", nft.IPv4)) {
		t.Errorf("neighbours after the node is gone:\n%s", rest)
	}
	a.mustAsk("the other node", pods[a].ns, pods[b].addr.String()+":8080", "pod-b", "")
	a.tell(order{Node: c.object()})
	a.eventually("the route is back", func() bool { return a.ipOutput("route") == full })
	a.mustAsk("the node that came back", pods[a].ns, pods[c].addr.String()+":8080", "pod-c", "")
	a.tell(order{Gone: b.name})
	a.tell(order{Gone: c.name})
	a.eventually("alone again", func() bool {
		return a.ipOutput("-o", "link", "show", "type", "vxlan") == "" && !strings.Contains(a.ipOutput("route"), "10.244.0.0/16")
	})
	a.tell(order{Node: b.object()})
	a.eventually("no longer alone", func() bool { _, err := ask(pods[a].ns, pods[b].addr.String()+":8080"); return err == nil })
}

func purgeLeavesNothing(t *testing.T, n *member, p *pod) {
	if _, err := p.cni("DEL", nil); err != nil {
		t.Fatal(err)
	}
	n.tell(order{Stop: true})
	n.tell(order{Purge: true})
	n.tell(order{Purge: true})
	left := n.ipOutput("-o", "link", "show", "type", "vxlan") + n.ipOutput("route", "show", "table", "all") + n.ipOutput("addr") + n.ipOutput("neigh", "show", "nud", "permanent")
	n.ns.Must("sysctls", func() error {
		for _, key := range []string{"ip_forward", "conf/eth0/route_localnet"} {
			value, err := os.ReadFile("/proc/sys/net/ipv4/" + key)
			if err != nil {
				return err
			}
			if string(value) != "0\n" {
				return fmt.Errorf("%s is %s after the purge", key, value)
			}
		}
		return nil
	})
	for _, trace := range []string{"10.244.", "10.96.", linkTrace, "proto 107"} {
		if strings.Contains(left, trace) {
			t.Errorf("%q is left after the purge:\n%s", trace, left)
		}
	}
}

// linkTrace begins the names of links to other nodes.
var linkTrace = overlay.LinkName("test", nft.IPv4)

// TestPodsFromBeforeTheFirstVXLANPeer: their links have the MTU of the machine's. They find out.
func TestPodsFromBeforeTheFirstVXLANPeer(t *testing.T) {
	m := newMachines(t, 2, overlay.Auto, true)
	a, b := m.nodes[0], m.nodes[1]
	old := a.pod("old")
	m.join(b)
	pb := b.pod("pod-b")
	a.eventually("pod to pod", func() bool { _, err := ask(old.ns, pb.addr.String()+":8080"); return err == nil })
	for _, ends := range [][2]*pod{{old, pb}, {pb, old}} {
		if err := transfer(ends[0].ns, ends[1].addr.String()+":8080", 1<<20); err != nil {
			t.Errorf("1 MiB from %s to %s and back: %v", ends[0].name, ends[1].name, err)
		}
	}
	a.eventually("the old pod knows what is too long", func() bool { return errors.Is(datagram(old.ns, pb.addr, 1500), syscall.EMSGSIZE) })
	if err := datagram(old.ns, pb.addr, 1450); err != nil {
		t.Errorf("a packet that fits: %v", err)
	}
	a.ns.Must("a smaller underlay", func() error { return run("ip", "link", "set", "eth0", "mtu", "1400") })
	a.eventually("the link follows", func() bool {
		return strings.Contains(a.ipOutput("link", "show", overlay.LinkName("test", nft.IPv4)), "mtu 1350")
	})
	next := a.pod("next")
	// The kernel activates a new link in the background; a datagram is not sent again as TCP's first packet is.
	a.mustAsk("a pod made afterwards", next.ns, pb.addr.String()+":8080", "pod-b", next.addr.String())
	if fits, long := datagram(next.ns, pb.addr, 1350), datagram(next.ns, pb.addr, 1351); fits != nil || !errors.Is(long, syscall.EMSGSIZE) {
		t.Errorf("a pod made afterwards: 1350 bytes: %v, 1351 bytes: %v, want the latter to be too long", fits, long)
	}
}

// TestAnotherMode: the way changes with the mode of both, without a pod being made anew.
func TestAnotherMode(t *testing.T) {
	m := newMachines(t, 2, overlay.VXLAN, false)
	a, b := m.nodes[0], m.nodes[1]
	m.join(b)
	pa, pb := a.pod("pod-a"), b.pod("pod-b")
	a.eventually("pod to pod", func() bool { _, err := ask(pa.ns, pb.addr.String()+":8080"); return err == nil })
	for _, mode := range []overlay.Mode{overlay.Routes, overlay.VXLAN, overlay.Auto} {
		for _, n := range m.nodes {
			n.tell(order{Stop: true})
			n.mode = mode
			n.startMember()
		}
		a.mustAsk("pod to pod", pa.ns, pb.addr.String()+":8080", "pod-b", pa.addr.String())
		a.mustAsk("and back", pb.ns, pa.addr.String()+":8080", "pod-a", pb.addr.String())
		if got := strings.Contains(a.ipOutput("-o", "link", "show", "type", "vxlan"), linkTrace); got != (mode == overlay.VXLAN) {
			t.Errorf("mode %s: the VXLAN link is there: %v", mode, got)
		}
	}
	for _, n := range m.nodes {
		n.tell(order{Stop: true})
		n.mode = overlay.None
		n.startMember()
		if routes := n.ipOutput("route"); strings.Contains(routes, "10.244.0.0/16") || strings.Contains(routes, "/24 via") {
			t.Errorf("%s in mode none:\n%s", n.name, routes)
		}
	}
}
