package guard

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// lab is one node, a network namespace, with pods on links of their own. Pod i is of app-i, and has web on port 8000+i.
type lab struct {
	t      testing.TB
	node   *nettest.NS
	pods   []*labPod
	model  *policy.Model
	kernel *Kernel
}

type labPod struct {
	ns   *nettest.NS
	addr netip.Addr
	key  api.Key
}

var dnsAddr = netip.MustParseAddr("10.96.0.10")

func newLab(t testing.TB, pods int) *lab {
	t.Helper()
	l := &lab{t: t, node: nettest.New(t), model: policy.New(nft.IPv4)}
	l.node.Must("node", func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return err
		}
		conn, err := nft.Open(nft.Table{Family: nft.IPv4, Name: "knarr-test_policies"})
		if err != nil {
			return err
		}
		t.Cleanup(func() { conn.Close() })
		l.kernel = NewKernel(nft.IPv4, conn)
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		addr, err := netlink.ParseAddr(dnsAddr.String() + "/32")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(lo, addr)
	})
	l.model.SetNamespace("default", nil)
	for i := range pods {
		p := &labPod{ns: nettest.New(t), addr: netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 2}), key: api.Key{Namespace: "default", Name: fmt.Sprint("pod-", i)}}
		gateway := p.addr.Prev()
		nettest.Connect(t, l.node, fmt.Sprint("kn", i), gateway.String()+"/24", p.ns, "eth0", p.addr.String()+"/24")
		p.ns.Must("route", func() error {
			eth, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{LinkIndex: eth.Attrs().Index, Gw: gateway.AsSlice()})
		})
		l.pods = append(l.pods, p)
		l.model.Attach(policy.Attachment{Addr: p.addr, Pod: p.key})
		l.model.SetPod(l.podOf(i))
		serve(t, p.ns, p.addr, 80, 81, 82, 8000+i)
	}
	serve(t, l.node, dnsAddr, 53)
	return l
}

func (l *lab) podOf(i int) policy.Pod {
	p := l.pods[i]
	return policy.Pod{Key: p.key, Labels: map[string]string{"app": fmt.Sprint("app-", i)}, Addrs: []netip.Addr{p.addr},
		Ports: []policy.NamedPort{{Name: "web", Protocol: policy.TCP, Number: uint16(8000 + i)}, {Name: "web", Protocol: policy.UDP, Number: 81}}}
}

// serve echoes on TCP and UDP ports.
func serve(t testing.TB, ns *nettest.NS, addr netip.Addr, ports ...int) {
	t.Helper()
	for _, port := range ports {
		ns.Must("server", func() error {
			at := netip.AddrPortFrom(addr, uint16(port)).String()
			l, err := net.Listen("tcp4", at)
			if err != nil {
				return err
			}
			u, err := net.ListenPacket("udp4", at)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close(); u.Close() })
			go func() {
				for {
					c, err := l.Accept()
					if err != nil {
						return
					}
					go func() { defer c.Close(); io.Copy(c, c) }()
				}
			}()
			go func() {
				buf := make([]byte, 100)
				for {
					n, from, err := u.ReadFrom(buf)
					if err != nil {
						return
					}
					u.WriteTo(buf[:n], from)
				}
			}()
			return nil
		})
	}
}

// write brings the kernel up to date, or begins anew.
func (l *lab) write(anew bool) {
	l.t.Helper()
	l.node.Must("table", func() error {
		if anew {
			if err := l.kernel.Rewrite(l.model.All()); err != nil {
				return err
			}
			l.model.Rewritten()
			return nil
		}
		if err := l.kernel.Apply(l.model.Changes()); err != nil {
			return err
		}
		l.model.Written()
		return nil
	})
}

// patience is how long a probe waits for an answer that must come; silence is what is taken for none.
const (
	patience = 10 * time.Second
	silence  = 150 * time.Millisecond
)

// reaches reports whether a new connection gets an answer. expected decides how long it waits for one.
func reaches(from *nettest.NS, network string, to netip.Addr, port int, expected bool) bool {
	wait := silence
	if expected {
		wait = patience
	}
	c := dial(from, network, to, port, wait)
	if c == nil {
		return false
	}
	defer c.Close()
	return echoes(c, wait)
}

func dial(from *nettest.NS, network string, to netip.Addr, port int, wait time.Duration) (c net.Conn) {
	from.Do(func() {
		if conn, err := net.DialTimeout(network, netip.AddrPortFrom(to, uint16(port)).String(), wait); err == nil {
			c = conn
		}
	})
	return c
}

func echoes(c net.Conn, wait time.Duration) bool {
	c.SetDeadline(time.Now().Add(wait))
	if _, err := c.Write([]byte("hello")); err != nil {
		return false
	}
	_, err := io.ReadFull(c, make([]byte, 5))
	return err == nil
}

func tcp(port int32) networkingv1.NetworkPolicyPort {
	p := intstr.FromInt32(port)
	return networkingv1.NetworkPolicyPort{Port: &p}
}

func app(i int) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("app-", i)}}}
}

// newPolicy returns a policy for a pod; pod -1 is all.
func newPolicy(name string, pod int, spec networkingv1.NetworkPolicySpec) *networkingv1.NetworkPolicy {
	if pod >= 0 {
		spec.PodSelector = *app(pod).PodSelector
	}
	return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: spec}
}

var both = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}

func TestRulesHold(t *testing.T) {
	l := newLab(t, 3)
	a, b, c := l.pods[0], l.pods[1], l.pods[2]
	named, end, udp := intstr.FromString("web"), int32(82), protocolUDP
	l.model.SetPolicy(newPolicy("b", 1, networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{app(0)}, Ports: []networkingv1.NetworkPolicyPort{tcp(80), {Port: &named}, {Port: &named, Protocol: &udp}}},
		{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.244.0.0/16", Except: []string{"10.244.1.0/24"}}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: tcp(81).Port, EndPort: &end}}}}}))
	l.model.SetPolicy(newPolicy("c", 2, networkingv1.NetworkPolicySpec{PolicyTypes: both, Egress: []networkingv1.NetworkPolicyEgressRule{
		{To: []networkingv1.NetworkPolicyPeer{app(1)}, Ports: []networkingv1.NetworkPolicyPort{tcp(80), tcp(81)}}}}))
	l.write(true)
	for _, tc := range []struct {
		what    string
		from    *nettest.NS
		network string
		to      netip.Addr
		port    int
		want    bool
	}{
		{"a peer at an allowed port", a.ns, "tcp4", b.addr, 80, true},
		{"a peer at a port by name", a.ns, "tcp4", b.addr, 8001, true},
		{"a peer at a port by name, UDP", a.ns, "udp4", b.addr, 81, true},
		{"a peer at another port", a.ns, "tcp4", b.addr, 81, false},
		{"a peer by another protocol", a.ns, "udp4", b.addr, 80, false},
		{"an address of the block, that egress forbids at this port", c.ns, "tcp4", b.addr, 82, false},
		{"an address of the block", c.ns, "tcp4", b.addr, 81, true},
		{"an address of the block, not allowed there", c.ns, "tcp4", b.addr, 80, false},
		{"the node to a guarded pod", l.node, "tcp4", c.addr, 80, true},
		{"a guarded pod to its node, DNS", c.ns, "udp4", dnsAddr, 53, true},
		{"a guarded pod to its node, DNS by TCP", c.ns, "tcp4", dnsAddr, 53, true},
		{"another pod to DNS", a.ns, "udp4", dnsAddr, 53, true},
		{"a guarded pod to its node's other addresses", c.ns, "tcp4", c.addr.Prev(), 53, false}, // nobody listens: refused
		{"nobody to a pod that nothing may reach", a.ns, "tcp4", c.addr, 80, false},
		{"a pod that is not guarded", b.ns, "tcp4", a.addr, 80, true},
		{"a guarded pod to itself", c.ns, "tcp4", c.addr, 80, true},
	} {
		if got := reaches(tc.from, tc.network, tc.to, tc.port, tc.want); got != tc.want {
			t.Errorf("%s: reached %v, want %v\n%s", tc.what, got, tc.want, l.list())
		}
	}
	dropped, err := l.dropped(policy.Ingress)
	if err != nil || dropped[c.addr] == 0 || dropped[b.addr] == 0 {
		t.Errorf("dropped on their way in: %v, %v", dropped, err)
	}
}

func (l *lab) dropped(d policy.Direction) (n map[netip.Addr]uint64, err error) {
	l.node.Do(func() { n, err = l.kernel.Dropped(d) })
	return n, err
}

// list returns the table as nft shows it.
func (l *lab) list() string {
	var out []byte
	var err error
	l.node.Do(func() { out, err = exec.Command("nft", "list", "ruleset").CombinedOutput() })
	if err != nil {
		l.t.Errorf("nft list ruleset: %v", err)
	}
	return string(out)
}

// TestChangedPolicyCutsConnections: in both directions, at the next packet, and lets them go on when it allows them again.
func TestChangedPolicyCutsConnections(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.pods[0], l.pods[1]
	allow := newPolicy("b", 1, networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{app(0)}}}})
	l.model.SetPolicy(allow)
	l.write(true)
	conn, flow := dial(a.ns, "tcp4", b.addr, 80, patience), dial(a.ns, "udp4", b.addr, 80, patience)
	if conn == nil || flow == nil || !echoes(conn, patience) || !echoes(flow, patience) {
		t.Fatal("an allowed connection does not come about")
	}
	defer conn.Close()
	defer flow.Close()
	l.model.SetPolicy(newPolicy("b", 1, networkingv1.NetworkPolicySpec{}))
	l.write(false)
	if echoes(flow, silence) || echoes(conn, silence) {
		t.Error("connections go on that no policy allows any longer")
	}
	l.model.SetPolicy(allow)
	l.write(false)
	if !echoes(flow, patience) {
		t.Error("a flow that is allowed again stays cut")
	}
	l.model.SetPod(policy.Pod{Key: a.key, Addrs: []netip.Addr{a.addr}})
	l.write(false)
	if echoes(flow, silence) {
		t.Error("a peer that lost its label goes on")
	}
}

// TestNothingPassesWhileRulesAreWritten: under default deny, while the table is replaced and changed all the time.
func TestNothingPassesWhileRulesAreWritten(t *testing.T) {
	l := newLab(t, 2)
	a, b := l.pods[0], l.pods[1]
	l.model.SetPolicy(newPolicy("all", -1, networkingv1.NetworkPolicySpec{}))
	l.write(true)
	var got net.PacketConn
	b.ns.Must("ear", func() (err error) { got, err = net.ListenPacket("udp4", b.addr.String()+":9"); return err })
	defer got.Close()
	stream := dial(a.ns, "udp4", b.addr, 9, patience)
	defer stream.Close()
	done := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		for {
			select {
			case <-stop:
				done <- n
				return
			default:
				if _, err := stream.Write([]byte("x")); err == nil {
					n++
				}
			}
		}
	}()
	for i := range 60 {
		l.model.SetPolicy(newPolicy("other", 1, networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{app(5 + i)}}}}))
		l.write(i%3 == 0)
	}
	close(stop)
	sent := <-done
	if err := got.SetReadDeadline(time.Now().Add(silence)); err != nil {
		t.Fatal(err)
	}
	if n, _, err := got.ReadFrom(make([]byte, 10)); n > 0 || err == nil {
		t.Errorf("of %d packets that no policy allows one came through", sent)
	}
	if sent == 0 {
		t.Error("nothing was sent")
	}
	t.Logf("%d packets sent", sent)
}

// TestNftListsEveryRule: users debug with nft, and version 1.0.6 aborts on some programs that the kernel takes.
func TestNftListsEveryRule(t *testing.T) {
	for _, family := range []nft.Family{nft.IPv4, nft.IPv6} {
		t.Run(family.String(), func(t *testing.T) {
			own, block, rest := dnsAddr, "10.0.0.0/8", "0.0.0.0/0"
			if family == nft.IPv6 {
				own, block, rest = netip.MustParseAddr("fd00:96::a"), "fd00::/16", "::/0"
			}
			nettest.New(t).Do(func() {
				conn, err := nft.Open(nft.Table{Family: family, Name: "knarr-test_policies"})
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				m := policy.New(family)
				pod := policy.Pod{Key: api.Key{Namespace: "default", Name: "pod"}, Labels: map[string]string{"app": "app-1"}, Addrs: []netip.Addr{own.Next()},
					Ports: []policy.NamedPort{{Name: "web", Protocol: policy.TCP, Number: 80}}}
				m.SetPod(pod)
				m.Attach(policy.Attachment{Addr: own.Next(), Pod: pod.Key})
				named, end := intstr.FromString("web"), int32(90)
				ports := []networkingv1.NetworkPolicyPort{tcp(80), tcp(81), {Port: &named}, {Port: tcp(80).Port, EndPort: &end}, {}}
				peers := []networkingv1.NetworkPolicyPeer{app(1), {IPBlock: &networkingv1.IPBlock{CIDR: block}}, {IPBlock: &networkingv1.IPBlock{CIDR: rest, Except: []string{block}}}}
				m.SetPolicy(newPolicy("everything", -1, networkingv1.NetworkPolicySpec{PolicyTypes: both,
					Ingress: []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}, {From: peers[:2]}, {Ports: ports}},
					Egress:  []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports}, {}}}))
				if err := NewKernel(family, conn).Rewrite(m.All()); err != nil {
					t.Error(err)
					return
				}
				out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
				if err != nil {
					t.Errorf("nft list ruleset: %v\n%s", err, out)
				}
				for _, want := range []string{"jump pods-ingress", "80-90", "ct reply proto-src", "counter"} {
					if !strings.Contains(string(out), want) {
						t.Errorf("nft does not list %q", want)
					}
				}
				t.Logf("%s", out)
			})
		})
	}
}

var protocolUDP = corev1.ProtocolUDP
