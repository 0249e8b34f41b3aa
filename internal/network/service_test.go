package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/network/nettest"
)

func TestClusterIP(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	client, a, b := w.pod("client"), w.pod("a"), w.pod("b")
	w.service("web", "10.96.1.1", nil, a, b)
	w.eventually("the Service answers", func() bool { _, err := ask(client.ns, "10.96.1.1:80"); return err == nil })

	for _, from := range []struct {
		name string
		ns   *nettest.NS
		addr string
	}{{"pod", client.ns, client.addr.String()}, {"node", nil, nodeIP.String()}} {
		seen := map[string]int{}
		for range 60 {
			got, err := ask(from.ns, "10.96.1.1:80")
			if err != nil || got.client != from.addr {
				t.Fatalf("from %s: %+v %v, want to be seen as %s", from.name, got, err, from.addr)
			}
			seen[got.pod]++
		}
		if seen["a"] < 10 || seen["b"] < 10 || seen["a"]+seen["b"] != 60 {
			t.Errorf("from %s: 60 connections went %v", from.name, seen)
		}
	}
	w.mustRefuse("a port that the Service does not have", client.ns, "10.96.1.1:81")
	w.mustRefuse("a Service address that nobody has", client.ns, "10.96.7.7:80")
	w.mustRefuse("the same from the node", nil, "10.96.7.7:80")

	t.Run("hairpin", func(t *testing.T) {
		w.service("self", "10.96.1.2", nil, a)
		w.eventually("the Service answers", func() bool { _, err := ask(client.ns, "10.96.1.2:80"); return err == nil })
		w.mustAsk("pod to itself through its Service", a.ns, "10.96.1.2:80", "a", nodeIP.String())
	})
	t.Run("no endpoints", func(t *testing.T) {
		_, c, err := open(client.ns, "10.96.1.2:80")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		w.endpoints("self")
		w.eventually("the Service refuses", func() bool { _, err := ask(client.ns, "10.96.1.2:80"); return err != nil })
		w.mustRefuse("without endpoints", client.ns, "10.96.1.2:80")
		w.mustRefuse("without endpoints from the node", nil, "10.96.1.2:80")
		// Connections that exist go on: that is what makes graceful termination graceful.
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Errorf("existing connection after its endpoint went away: %v", err)
		}
	})
}

func TestNodePort(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	local := func(s *corev1.Service) { s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal }
	nodePort := func(port int32, more ...func(*corev1.Service)) func(*corev1.Service) {
		return func(s *corev1.Service) {
			s.Spec.Type = corev1.ServiceTypeNodePort
			s.Spec.Ports = s.Spec.Ports[:1]
			s.Spec.Ports[0].NodePort = port
			for _, f := range more {
				f(s)
			}
		}
	}
	w.service("web", "10.96.2.1", nodePort(30080), a)
	w.service("local", "10.96.2.2", nodePort(30081, local), a)
	w.service("empty", "10.96.2.3", nodePort(30082))
	w.service("external", "10.96.2.4", func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"198.51.100.7"} }, a)
	w.outside.Must("route", func() error { return exec.Command("ip", "route", "add", "198.51.100.7", "via", nodeIP.String()).Run() })
	for _, addr := range []string{nodeIP.String() + ":30080", nodeIP.String() + ":30081", "198.51.100.7:80"} {
		w.eventually(addr+" answers", func() bool { _, err := ask(w.outside, addr); return err == nil })
	}
	w.mustAsk("from outside; a pod of this node sees the client", w.outside, nodeIP.String()+":30080", "a", outsideIP.String())
	w.mustAsk("from outside with policy Local", w.outside, nodeIP.String()+":30081", "a", outsideIP.String())
	w.mustAsk("on the node by 127.0.0.1", nil, "127.0.0.1:30080", "a", nodeIP.String())
	w.mustAsk("on the node by its address", nil, nodeIP.String()+":30080", "a", nodeIP.String())
	w.mustAsk("from a pod", b.ns, nodeIP.String()+":30080", "a", b.addr.String())
	w.mustAsk("from the pod itself", a.ns, nodeIP.String()+":30080", "a", nodeIP.String())
	w.mustRefuse("without endpoints", w.outside, nodeIP.String()+":30082")
	w.mustRefuse("without endpoints on the node", nil, "127.0.0.1:30082")
	w.mustAsk("external IP", w.outside, "198.51.100.7:80", "a", "")

	// Pod links take routed loopback addresses for the sake of 127.0.0.1 node ports; pods must not profit.
	if l, err := net.Listen("tcp4", "127.0.0.1:9999"); err != nil {
		t.Fatal(err)
	} else {
		defer l.Close()
	}
	b.ns.Must("route to the node's loopback", func() error {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/all/route_localnet", []byte("1"), 0); err != nil {
			return err
		}
		if err := exec.Command("ip", "addr", "del", "127.0.0.1/8", "dev", "lo").Run(); err != nil {
			return err
		}
		return exec.Command("ip", "route", "add", "127.0.0.1", "via", "169.254.1.1", "dev", "eth0", "src", b.addr.String()).Run()
	})
	if _, err := ask(b.ns, "127.0.0.1:9999"); err == nil {
		t.Error("a pod reached what listens on the node's loopback")
	}

	t.Run("policy Local without a pod on this node", func(t *testing.T) {
		s := endpointSlice("local", []*pod{a})
		other := "node-2"
		s.Endpoints[0].NodeName = &other
		if _, err := w.api.Update(t.Context(), s, ""); err != nil {
			t.Fatal(err)
		}
		w.eventually("connections from outside are dropped", func() bool {
			return strings.Contains(ruleset(t), "tcp . 30081 : drop")
		})
		w.mustAsk("clients in the cluster use all endpoints", b.ns, nodeIP.String()+":30081", "a", "")
		w.mustAsk("the cluster IP too", b.ns, "10.96.2.2:80", "a", "")
	})
}

func TestSessionAffinity(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	client := w.pod("client")
	pods := []*pod{w.pod("a"), w.pod("b"), w.pod("c"), w.pod("d")}
	w.service("sticky", "10.96.3.1", func(s *corev1.Service) {
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Spec.Type = corev1.ServiceTypeNodePort
		s.Spec.Ports[0].NodePort = 30090
	}, pods...)
	w.eventually("the Service answers", func() bool { _, err := ask(client.ns, "10.96.3.1:80"); return err == nil })
	for _, addr := range []string{"10.96.3.1:80", nodeIP.String() + ":30090"} {
		first, err := ask(client.ns, addr)
		if err != nil {
			t.Fatal(err)
		}
		for range 30 {
			w.mustAsk("again", client.ns, addr, first.pod, "")
		}
	}
	first, _ := ask(client.ns, "10.96.3.1:80")

	w.stop()
	w.start()
	w.mustAsk("after a restart of the node", client.ns, "10.96.3.1:80", first.pod, "")

	var rest []*pod
	for _, p := range pods {
		if p.name != first.pod {
			rest = append(rest, p)
		}
	}
	w.endpoints("sticky", rest...)
	var second answer
	w.eventually("another endpoint answers once the first is gone", func() bool {
		second, _ = ask(client.ns, "10.96.3.1:80")
		return second.pod != "" && second.pod != first.pod
	})
	for range 20 {
		w.mustAsk("again", client.ns, "10.96.3.1:80", second.pod, "")
	}
}

func TestUDPLeavesEndpointThatIsGone(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	client, a, b := w.pod("client"), w.pod("a"), w.pod("b")
	w.service("udp", "10.96.4.1", nil, a)
	var c net.Conn
	client.ns.Must("UDP socket", func() (err error) { c, err = net.Dial("udp4", "10.96.4.1:80"); return err })
	defer c.Close()
	who := func() string {
		buf := make([]byte, 100)
		c.SetDeadline(time.Now().Add(200 * time.Millisecond))
		if _, err := c.Write([]byte("?")); err != nil {
			return err.Error()
		}
		n, err := c.Read(buf)
		if err != nil {
			return err.Error()
		}
		name, _, _ := strings.Cut(string(buf[:n]), " ")
		return name
	}
	w.eventually("pod a answers", func() bool { return who() == "a" })
	w.endpoints("udp", b)
	w.eventually("pod b answers the same socket", func() bool { return who() == "b" })
	w.endpoints("udp", a, b)
	for range 10 {
		if got := who(); got != "b" {
			t.Fatalf("a flow whose endpoint is still there moved to %q", got)
		}
	}
	w.stop()
	w.endpoints("udp", a)
	w.start()
	w.eventually("pod a answers the same socket: b went while Knarr was away", func() bool { return who() == "a" })
}

func TestHostPort(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	a := w.pod("a", map[string]any{"hostPort": 8888, "containerPort": 8080, "protocol": "tcp"},
		map[string]any{"hostPort": 8889, "containerPort": 8080, "protocol": "tcp", "hostIP": nodeIP.String()},
		map[string]any{"containerPort": 8080, "protocol": "tcp"})
	check := func() {
		t.Helper()
		w.mustAsk("from outside", w.outside, nodeIP.String()+":8888", "a", outsideIP.String())
		w.mustAsk("on the node", nil, "127.0.0.1:8888", "a", nodeIP.String())
		w.mustAsk("from itself", a.ns, nodeIP.String()+":8888", "a", nodeIP.String())
		w.mustAsk("on one address", w.outside, nodeIP.String()+":8889", "a", "")
	}
	check()
	w.mustRefuse("the same port on another address", nil, "127.0.0.1:8889")
	w.stop()
	check() // while Knarr is away
	w.start()
	check()
	if _, err := a.cni("DEL", nil); err != nil {
		t.Fatal(err)
	}
	w.mustRefuse("after the pod", w.outside, nodeIP.String()+":8888")
	if out, err := w.pod("b").cni("ADD", []map[string]any{{"hostPort": 99999, "containerPort": 1}}); err == nil || !strings.Contains(string(out), "99999") {
		t.Errorf("host port 99999: %v %s", err, out)
	}
}

func TestScaleLeavesNothing(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	client := w.pod("client")
	pods := []*pod{w.pod("p0")}
	w.service("web", "10.96.5.1", nil, pods...)
	w.eventually("the Service answers", func() bool { _, err := ask(client.ns, "10.96.5.1:80"); return err == nil })
	before, links := settled(t), ip(t, "-o", "link")

	start := time.Now()
	for i := 1; i < 50; i++ {
		pods = append(pods, w.pod(fmt.Sprintf("p%d", i)))
		w.endpoints("web", pods...)
	}
	t.Logf("49 pods connected, %v each with the plugin's process", time.Since(start)/49)
	seen := map[string]bool{}
	w.eventually("all 50 endpoints are used", func() bool {
		got, err := ask(client.ns, "10.96.5.1:80")
		if err != nil {
			t.Fatalf("while scaling: %v", err)
		}
		seen[got.pod] = true
		return len(seen) == 50
	})
	w.endpoints("web", pods[0])
	w.eventually("the table is as before", func() bool { return settled(t) == before })
	for _, p := range pods[1:] {
		if _, err := p.cni("DEL", nil); err != nil {
			t.Fatal(err)
		}
	}
	if after := ip(t, "-o", "link"); after != links {
		t.Errorf("links before:\n%s\nafter:\n%s", links, after)
	}
}

// settled returns the ruleset without what time alone changes.
func settled(t *testing.T) string { return ruleset(t) }

func TestSomebodyFlushesTheRuleset(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	a, b := w.pod("a"), w.pod("b")
	w.service("web", "10.96.6.1", nil, a)
	w.eventually("the Service answers", func() bool { _, err := ask(b.ns, "10.96.6.1:80"); return err == nil })
	if out, err := exec.Command("nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("nft: %v %s", err, out)
	}
	w.eventually("the Service answers again", func() bool { _, err := ask(b.ns, "10.96.6.1:80"); return err == nil })
	w.mustAsk("and others too", b.ns, "10.96.6.1:80", "a", "")
}

func TestRestartKeepsConnectionsAndReclaims(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	a, b, gone := w.pod("a"), w.pod("b"), w.pod("gone")
	w.service("web", "10.96.7.1", nil, a)
	w.eventually("the Service answers", func() bool { _, err := ask(b.ns, "10.96.7.1:80"); return err == nil })
	_, c, err := open(b.ns, "10.96.7.1:80")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	w.stop()
	if _, err := b.cni("STATUS", nil); err == nil {
		t.Error("STATUS succeeded while Knarr is away")
	}
	w.mustAsk("while Knarr is away", b.ns, "10.96.7.1:80", "a", "")
	w.start()
	if err := w.node.Reclaim(context.Background(), map[string]bool{a.id: true, b.id: true}); err != nil {
		t.Fatal(err)
	}
	w.mustAsk("after the restart", b.ns, "10.96.7.1:80", "a", "")
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Errorf("connection from before the restart: %v", err)
	}
	if _, err := ask(nil, gone.addr.String()+":8080"); err == nil {
		t.Error("a sandbox that is gone is still connected")
	}
	if next := w.pod("next"); next.addr == a.addr || next.addr == b.addr {
		t.Errorf("address %v was handed out twice", next.addr)
	}
}

func TestPurgeLeavesNoTrace(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	trace := func() string {
		forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
		if err != nil {
			t.Fatal(err)
		}
		return ruleset(t) + ip(t, "-o", "addr", "show", "dev", "lo") + ip(t, "route", "show", "table", "all", "dev", "lo") + "forward " + string(forward)
	}
	before := trace()
	w := newWorld(t)
	a := w.pod("a", map[string]any{"hostPort": 8888, "containerPort": 8080})
	w.service("web", "10.96.8.1", nil, a)
	w.eventually("the Service answers", func() bool { _, err := ask(nil, "10.96.8.1:80"); return err == nil })
	if err := WriteConfig(w.dir, "test"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	if trace() == before {
		t.Fatal("the test sees nothing of what a node makes")
	}
	for range 2 {
		if err := Purge(w.dir, "test"); err != nil {
			t.Fatal(err)
		}
	}
	if after := trace(); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if links := ip(t, "-o", "link"); strings.Contains(links, " kn") {
		t.Errorf("links left:\n%s", links)
	}
	if _, err := os.Stat(w.dir + "/network"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("files left in %s", w.dir)
	}
}

func TestOtherInstancesStay(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	a := w.pod("a")
	if err := Purge(t.TempDir(), "other"); err != nil {
		t.Fatal(err)
	}
	if err := Purge(t.TempDir(), ""); err != nil {
		t.Fatal(err)
	}
	w.mustAsk("after other instances were purged", nil, a.addr.String()+":8080", "a", "")
	if !strings.Contains(ip(t, "addr", "show", "dev", "lo"), "10.96.0.10/32") || !strings.Contains(ruleset(t), "knarr-test") {
		t.Error("the instance lost its DNS address or table")
	}
}

func TestASecondInstanceWithTheSameAddressesIsRefused(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	before := ip(t, "addr") + ip(t, "route") + ruleset(t)
	cfg := w.config()
	cfg.Instance, cfg.DataDir = "second", t.TempDir()
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "another instance of Knarr has the cluster DNS address 10.96.0.10") {
		t.Errorf("Run says %v", err)
	}
	if after := ip(t, "addr") + ip(t, "route") + ruleset(t); after != before {
		t.Errorf("it changed something:\n%s\nwas\n%s", after, before)
	}
}
