package network

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/network/nettest"
)

// world is a node in a network namespace of its own - the test process's -, a machine outside of the cluster and the API.
type world struct {
	t       testing.TB
	api     *client.Local
	dir     string
	plugin  string // path of the knarr-cni binary
	node    *Node
	stop    func()
	outside *nettest.NS
}

var (
	nodeIP    = netip.MustParseAddr("192.0.2.1")
	outsideIP = netip.MustParseAddr("192.0.2.2")
)

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, api: clienttest.New(t), dir: t.TempDir(), outside: nettest.New(t)}
	w.plugin = filepath.Join(t.TempDir(), "knarr-cni")
	build := exec.Command("go", "build", "-trimpath", "-o", w.plugin, "github.com/knarr-io/knarr/cmd/knarr-cni")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building knarr-cni: %v\n%s", err, out)
	}
	nettest.ConnectHere(t, "eth0", nodeIP.String()+"/24", w.outside, "eth0", outsideIP.String()+"/24")
	w.start()
	t.Cleanup(func() {
		w.stop()
		if err := Purge(w.dir, "test"); err != nil {
			t.Errorf("purge: %v", err)
		}
	})
	return w
}

func (w *world) config() Config {
	return Config{Instance: "test", DataDir: w.dir, NodeName: "node-1", NodeIP: nodeIP, PodCIDR: netip.MustParsePrefix("10.244.0.0/24"),
		ClusterCIDR: netip.MustParsePrefix("10.244.0.0/16"), ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"),
		ClusterDNS: netip.MustParseAddr("10.96.0.10"), Client: w.api, Log: slog.New(slog.NewTextHandler(testWriter{w.t}, nil))}
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("%s", bytes.TrimSpace(p))
	return len(p), nil
}

// start runs the node until stop.
func (w *world) start() {
	w.t.Helper()
	n, err := New(w.config())
	if err != nil {
		w.t.Fatal(err)
	}
	w.node = n
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
		w.stop = func() {}
	}
	select {
	case <-n.Ready():
	case err := <-done:
		w.t.Fatalf("Run: %v", err)
	case <-time.After(10 * time.Second):
		w.t.Fatal("the node was not ready after 10 s")
	}
}

// pod is a network namespace connected by the CNI plugin, with a server on TCP and UDP port 8080 that says who it is and whom it
// sees.
type pod struct {
	w    *world
	name string
	id   string
	ns   *nettest.NS
	path string // of the namespace, as the runtime has it
	addr netip.Addr
}

func (w *world) pod(name string, ports ...map[string]any) *pod {
	w.t.Helper()
	p := &pod{w: w, name: name, id: "sandbox-of-" + name, ns: nettest.New(w.t), path: filepath.Join(w.t.TempDir(), name)}
	if err := os.Symlink(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.ns.FD()), p.path); err != nil {
		w.t.Fatal(err)
	}
	var result struct {
		CNIVersion string
		IPs        []struct{ Address, Gateway string }
	}
	out, err := p.cni("ADD", ports)
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	if err != nil || len(result.IPs) != 1 {
		w.t.Fatalf("ADD of %s: %v %s", name, err, out)
	}
	p.addr = netip.MustParsePrefix(result.IPs[0].Address).Addr()
	p.serve()
	return p
}

// cni runs the plugin as a container runtime would.
func (p *pod) cni(command string, ports []map[string]any) ([]byte, error) {
	conf := map[string]any{"cniVersion": "1.1.0", "name": "knarr-test", "type": "knarr-cni", "socket": Socket(p.w.dir),
		"runtimeConfig": map[string]any{"portMappings": ports}}
	in, err := json.Marshal(conf)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(p.w.plugin)
	cmd.Stdin = bytes.NewReader(in)
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_IFNAME=eth0", "CNI_PATH=/none",
		"CNI_NETNS=" + p.path,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=" + p.name}
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("%w: %s", err, out)
	}
	return out, nil
}

func (p *pod) serve() {
	p.w.t.Helper()
	p.ns.Must("server of "+p.name, func() error {
		l, err := net.Listen("tcp4", ":8080")
		if err != nil {
			return err
		}
		u, err := net.ListenPacket("udp4", ":8080")
		if err != nil {
			return err
		}
		p.w.t.Cleanup(func() { l.Close(); u.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
					fmt.Fprintf(c, "%s %s\n", p.name, host)
					io.Copy(c, c) // stays open until the client has enough
				}()
			}
		}()
		go func() {
			buf := make([]byte, 100)
			for {
				_, from, err := u.ReadFrom(buf)
				if err != nil {
					return
				}
				host, _, _ := net.SplitHostPort(from.String())
				u.WriteTo([]byte(p.name+" "+host+"\n"), from)
			}
		}()
		return nil
	})
}

// answer is what a pod's server said: which pod, and the client's address as it sees it.
type answer struct{ pod, client string }

// ask connects over TCP to addr from the namespace (nil is the node's).
func ask(from *nettest.NS, addr string) (answer, error) {
	a, c, err := open(from, addr)
	if c != nil {
		c.Close()
	}
	return a, err
}

// open is ask that leaves the connection open.
func open(from *nettest.NS, addr string) (a answer, c net.Conn, err error) {
	dial := func() { c, err = net.DialTimeout("tcp4", addr, 2*time.Second) }
	if from == nil {
		dial()
	} else {
		from.Do(dial)
	}
	if err != nil {
		return a, nil, err
	}
	c.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := bufio.NewReader(c).ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &a.pod, &a.client)
	}
	return a, c, err
}

// mustAsk fails the test unless pod answers and sees the client as client ("" is anything).
func (w *world) mustAsk(what string, from *nettest.NS, addr, pod, client string) {
	w.t.Helper()
	a, err := ask(from, addr)
	if err != nil || a.pod != pod || (client != "" && a.client != client) {
		w.t.Errorf("%s: %s answered %+v, %v; want pod %q seeing %q", what, addr, a, err, pod, client)
	}
}

// mustRefuse fails the test unless the connection is refused at once.
func (w *world) mustRefuse(what string, from *nettest.NS, addr string) {
	w.t.Helper()
	start := time.Now()
	_, err := ask(from, addr)
	if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(start) > 5*time.Second {
		w.t.Errorf("%s: %s gave %v after %v, want connection refused at once", what, addr, err, time.Since(start))
	}
}

// eventually waits until ok, which is asked again and again as the kernel is written in the background.
func (w *world) eventually(what string, ok func() bool) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			w.t.Fatalf("%s did not come true within 5 s; the table is\n%s", what, ruleset(w.t))
		case <-tick.C:
		}
	}
}

// service creates or replaces a Service on port 80 (TCP and UDP) and one EndpointSlice of pods.
func (w *world) service(name, ip string, change func(*corev1.Service), pods ...*pod) {
	w.t.Helper()
	ctx := w.t.Context()
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ip, ClusterIPs: []string{ip}, Ports: []corev1.ServicePort{
			{Name: "tcp", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "udp", Port: 80, Protocol: corev1.ProtocolUDP}}}}
	if change != nil {
		change(svc)
	}
	if _, err := client.Get[*corev1.Service](ctx, w.api, api.KeyOf(svc)); err != nil {
		clienttest.Create(w.t, w.api, svc)
	}
	w.endpoints(name, pods...)
}

// endpoints replaces the endpoints of a Service.
func (w *world) endpoints(name string, pods ...*pod) {
	w.t.Helper()
	ctx := w.t.Context()
	key := api.Key{Namespace: "default", Name: name + "-x"}
	old, err := client.Get[*discoveryv1.EndpointSlice](ctx, w.api, key)
	if err != nil {
		clienttest.Create(w.t, w.api, endpointSlice(name, pods))
		return
	}
	s := endpointSlice(name, pods)
	s.ResourceVersion, s.UID = old.ResourceVersion, old.UID
	if _, err := w.api.Update(ctx, s, ""); err != nil {
		w.t.Fatalf("updating endpoints of %s: %v", name, err)
	}
}

func endpointSlice(service string, pods []*pod) *discoveryv1.EndpointSlice {
	port, tcp, udp, yes, node := int32(8080), corev1.ProtocolTCP, corev1.ProtocolUDP, true, "node-1"
	tcpName, udpName := "tcp", "udp"
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service + "-x",
		Labels: map[string]string{discoveryv1.LabelServiceName: service}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &tcpName, Port: &port, Protocol: &tcp}, {Name: &udpName, Port: &port, Protocol: &udp}}}
	for _, p := range pods {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{p.addr.String()}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes}})
	}
	return s
}

// ruleset returns the whole ruleset of the node's namespace.
func ruleset(t testing.TB) string {
	t.Helper()
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		t.Fatalf("nft list ruleset: %v %s", err, out)
	}
	return string(out)
}

// ip returns the output of an ip command in the node's namespace.
func ip(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("ip", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ip %s: %v %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
