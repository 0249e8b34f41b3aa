package network

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/vishvananda/netlink"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/overlay"
)

// machines are several nodes: a network namespace each, with a process of its own, as sockets are opened in goroutines. All
// are told the same objects.
type machines struct {
	t       testing.TB
	mode    overlay.Mode
	plugin  string
	router  *nettest.NS // what connects them: a bridge, or a router between their links
	outside *nettest.NS
	nodes   []*member
}

// member is one node of machines. Its world serves pods.
type member struct {
	*world
	name    string
	ip      netip.Addr
	podCIDR netip.Prefix
	mode    overlay.Mode
	ns      *nettest.NS
	in      io.Writer
	out     *bufio.Reader
}

// order is what a node's process is told, one JSON value a line; it answers each with a line, "ok" or an error.
type order struct {
	Start   *memberConfig
	Stop    bool
	Purge   bool
	Node    *corev1.Node
	Service *corev1.Service
	Slice   *discoveryv1.EndpointSlice
	Gone    string // name of a Node that is deleted
}

type memberConfig struct {
	Dir, Name, IP, PodCIDR, Mode string
	MTU                          int
}

// memberEnv tells a test process that it is a node of machines.
const memberEnv = "KNARR_NETTEST_MEMBER"

func (c memberConfig) config(api client.Client) Config {
	return Config{Instance: "test", DataDir: c.Dir, NodeName: c.Name, NodeIP: netip.MustParseAddr(c.IP), PodCIDR: netip.MustParsePrefix(c.PodCIDR),
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), Mode: overlay.Mode(c.Mode),
		MTU: c.MTU, Client: api, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
}

// TestMember is the process of one node; it is no test by itself.
func TestMember(t *testing.T) {
	if os.Getenv(memberEnv) == "" {
		t.Skip("this is what the tests of several machines run in each of them")
	}
	m := &memberProcess{api: clienttest.New(t), stop: func() error { return nil }}
	in := json.NewDecoder(os.Stdin)
	for {
		var o order
		if err := in.Decode(&o); err != nil {
			return // the test is over
		}
		answer := "ok"
		if err := m.obey(o); err != nil {
			answer = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		fmt.Println("answer: " + answer)
	}
}

type memberProcess struct {
	api  *client.Local
	cfg  memberConfig
	stop func() error
}

func (m *memberProcess) obey(o order) error {
	ctx := context.Background()
	switch {
	case o.Start != nil:
		m.cfg = *o.Start
		return m.start()
	case o.Stop:
		return m.stop()
	case o.Purge:
		return Purge(m.cfg.Dir, "test")
	case o.Gone != "":
		return client.Delete[*corev1.Node](ctx, m.api, api.Key{Name: o.Gone}, metav1.DeleteOptions{})
	case o.Node != nil:
		return put(ctx, m.api, o.Node)
	case o.Service != nil:
		return put(ctx, m.api, o.Service)
	}
	return put(ctx, m.api, o.Slice)
}

// put creates or replaces obj.
func put[T api.Object](ctx context.Context, c client.Client, obj T) error {
	_, err := client.Get[T](ctx, c, api.KeyOf(obj))
	if apierrors.IsNotFound(err) {
		_, err = c.Create(ctx, obj)
	} else if err == nil {
		_, err = c.Update(ctx, obj, "")
	}
	return err
}

func (m *memberProcess) start() error {
	n, err := New(m.cfg.config(m.api))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	m.stop = func() error {
		cancel()
		m.stop = func() error { return nil }
		return <-done
	}
	select {
	case <-n.Ready():
		return nil
	case err := <-done:
		return fmt.Errorf("Run: %w", err)
	case <-time.After(20 * time.Second):
		return fmt.Errorf("not ready after 20 s")
	}
}

// Addresses: node i (from 1) is 192.0.2.i on the shared link, or 198.51.100.(4i) on a link of its own to the router.
func newMachines(t testing.TB, count int, mode overlay.Mode, apart bool) *machines {
	t.Helper()
	m := &machines{t: t, mode: mode, router: nettest.New(t), outside: nettest.New(t)}
	m.plugin = filepath.Join(t.TempDir(), "knarr-cni")
	build := exec.Command("go", "build", "-trimpath", "-o", m.plugin, "github.com/knarr-io/knarr/cmd/knarr-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building knarr-cni: %v\n%s", err, out)
	}
	m.router.Must("bridge", func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
			return err
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name = "br0"
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return err
		}
		return run("ip", "addr", "add", "192.0.2.254/24", "dev", "br0", "then", "ip", "link", "set", "br0", "up")
	})
	m.attach(m.outside, "outside", "192.0.2.200/24")
	for i := 1; i <= count; i++ {
		n := &member{name: fmt.Sprint("node-", i), ns: nettest.New(t), ip: netip.MustParseAddr(fmt.Sprint("192.0.2.", i))}
		if apart {
			n.ip = netip.MustParseAddr(fmt.Sprint("198.51.100.", 4*i+1))
			router := fmt.Sprint("198.51.100.", 4*i+2)
			nettest.Connect(t, n.ns, "eth0", n.ip.String()+"/30", m.router, n.name, router+"/30")
			n.ns.Must("route", func() error { return run("ip", "route", "add", "default", "via", router) })
		} else {
			m.attach(n.ns, n.name, n.ip.String()+"/24")
			n.ns.Must("route", func() error { return run("ip", "route", "add", "default", "via", "192.0.2.254") })
		}
		// Known values, whatever this machine has. Strict rp_filter, as some distributions have it: packets must come by the way
		// that answers would take.
		n.ns.Must("sysctls", func() error {
			return run("sysctl -qw net.ipv4.ip_forward=0 net.ipv4.conf.eth0.route_localnet=0 net.ipv4.conf.all.rp_filter=1",
				"net.ipv4.conf.default.rp_filter=1 net.ipv4.conf.eth0.rp_filter=1")
		})
		m.boot(n, i)
		m.nodes = append(m.nodes, n)
	}
	if apart {
		m.outside.Must("route", func() error { return run("ip", "route", "add", "198.51.100.0/24", "via", "192.0.2.254") })
	}
	for _, n := range m.nodes {
		n.startMember()
	}
	return m
}

// run runs commands in the namespace of the calling thread.
func run(args ...string) error {
	for _, line := range strings.Split(strings.Join(args, " "), " then ") {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w %s", line, err, out)
		}
	}
	return nil
}

// attach puts ns on the bridge.
func (m *machines) attach(ns *nettest.NS, name, addr string) {
	m.t.Helper()
	nettest.Connect(m.t, ns, "eth0", addr, m.router, name, "0.0.0.0/32")
	m.router.Must("port", func() error {
		return run("ip", "addr", "flush", "dev", name, "then", "ip", "link", "set", name, "master", "br0")
	})
}

// boot starts the process of node i.
func (m *machines) boot(n *member, i int) {
	m.t.Helper()
	exe, err := os.Executable()
	if err != nil {
		m.t.Fatal(err)
	}
	n.world = &world{t: m.t, dir: m.t.TempDir(), plugin: m.plugin, outside: m.outside}
	cmd := exec.Command(exe, "-test.run=^TestMember$", "-test.timeout=180s")
	cmd.Env = append(os.Environ(), memberEnv+"=1")
	cmd.Stderr = prefixed{m.t, n.name}
	in, err := cmd.StdinPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	n.in, n.out = in, bufio.NewReader(out)
	n.ns.Must("process of "+n.name, cmd.Start)
	m.t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			m.t.Errorf("process of %s: %v", n.name, err)
		}
	})
	n.podCIDR = netip.MustParsePrefix(fmt.Sprintf("10.244.%d.0/24", i))
	n.mode = m.mode
	n.tell(order{Node: n.object()})
}

type prefixed struct {
	t    testing.TB
	name string
}

func (p prefixed) Write(b []byte) (int, error) {
	p.t.Logf("%s: %s", p.name, strings.TrimSpace(string(b)))
	return len(b), nil
}

// tell gives an order and waits for the answer.
func (n *member) tell(o order) {
	n.t.Helper()
	data, err := json.Marshal(o)
	if err == nil {
		_, err = n.in.Write(append(data, '\n'))
	}
	for err == nil {
		var line string
		line, err = n.out.ReadString('\n')
		if answer, ok := strings.CutPrefix(strings.TrimSpace(line), "answer: "); ok {
			if answer != "ok" {
				n.t.Fatalf("%s: %s", n.name, answer)
			}
			return
		}
	}
	n.t.Fatalf("%s: %v", n.name, err)
}

func (n *member) startMember() {
	n.t.Helper()
	n.tell(order{Start: &memberConfig{Dir: n.dir, Name: n.name, IP: n.ip.String(), PodCIDR: n.podCIDR.String(), Mode: string(n.mode)}})
}

func (n *member) object() *corev1.Node {
	return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.name}, Spec: corev1.NodeSpec{PodCIDR: n.podCIDR.String(), PodCIDRs: []string{n.podCIDR.String()}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.ip.String()}}}}
}

// join tells everybody of n, and n of everybody.
func (m *machines) join(n *member) {
	m.t.Helper()
	for _, other := range m.nodes {
		if other != n {
			other.tell(order{Node: n.object()})
			n.tell(order{Node: other.object()})
		}
	}
}

// all gives all nodes an order.
func (m *machines) all(o order) {
	m.t.Helper()
	for _, n := range m.nodes {
		n.tell(o)
	}
}

// ipOutput returns the output of an ip command in the node's namespace.
func (n *member) ipOutput(args ...string) string {
	n.t.Helper()
	var out []byte
	n.ns.Must("ip "+strings.Join(args, " "), func() (err error) { out, err = exec.Command("ip", args...).CombinedOutput(); return err })
	return string(out)
}
