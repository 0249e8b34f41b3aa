package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/network/nettest"
)

// object creates the Pod of p in the API, with its address where it has one.
func (p *pod) object(labels map[string]string) {
	p.w.t.Helper()
	ctx := p.w.t.Context()
	o := clienttest.Create(p.w.t, p.w.api, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: p.name, Labels: labels},
		Spec: corev1.PodSpec{NodeName: "node-1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	if !p.addr.IsValid() {
		return
	}
	if _, err := client.Mutate(ctx, p.w.api, api.KeyOf(o), "status", func(o *corev1.Pod) bool {
		o.Status.PodIP, o.Status.PodIPs = p.addr.String(), []corev1.PodIP{{IP: p.addr.String()}}
		return true
	}); err != nil {
		p.w.t.Fatal(err)
	}
}

// unplugged is a pod that has no link yet, and an ear on UDP port 9.
func (w *world) unplugged(name string) (*pod, net.PacketConn) {
	w.t.Helper()
	p := &pod{w: w, name: name, id: "sandbox-of-" + name, ns: nettest.New(w.t), path: filepath.Join(w.t.TempDir(), name)}
	if err := os.Symlink(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), p.ns.FD()), p.path); err != nil {
		w.t.Fatal(err)
	}
	var ear net.PacketConn
	p.ns.Must("ear", func() (err error) { ear, err = net.ListenPacket("udp4", ":9"); return err })
	w.t.Cleanup(func() { ear.Close() })
	return p, ear
}

// hears reports whether a packet comes within a time.
func hears(ear net.PacketConn, within time.Duration) bool {
	if ear.SetReadDeadline(time.Now().Add(within)) != nil {
		return false
	}
	n, _, err := ear.ReadFrom(make([]byte, 10))
	return err == nil && n > 0
}

// TestNoPacketReachesANewPodThatPoliciesGuard: a stream of packets waits for it from before its link exists.
func TestNoPacketReachesANewPodThatPoliciesGuard(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	noise := w.pod("noise")
	var out net.PacketConn
	noise.ns.Must("noise", func() (err error) { out, err = net.ListenPacket("udp4", ":0"); return err })
	defer out.Close()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // to whoever gets an address next
		defer close(stopped)
		for {
			for i := noise.addr.Next(); i.As4()[3] < noise.addr.As4()[3]+20; i = i.Next() {
				select {
				case <-stop:
					return
				default:
					_, _ = out.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(i, 9)))
				}
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	denied := clienttest.Create(t, w.api, &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "deny"}})
	noise.object(map[string]string{"app": "noise"})
	w.eventually("the table of policies", func() bool { return strings.Contains(ruleset(t), GuardTableName("test")) })
	for i := range 8 {
		p, ear := w.unplugged(fmt.Sprint("guarded-", i))
		if i%2 == 0 { // the others are known only later
			p.object(nil)
		}
		if out, err := p.cni("ADD", nil); err != nil {
			t.Fatalf("%v %s", err, out)
		}
		if i%2 == 1 {
			p.object(nil)
		}
		if hears(ear, 50*time.Millisecond) {
			t.Errorf("a packet reached guarded-%d", i)
		}
	}
	w.stop() // and nothing opens when Knarr goes and comes
	p, ear := w.unplugged("late")
	w.start()
	p.object(nil)
	if out, err := p.cni("ADD", nil); err != nil || hears(ear, 50*time.Millisecond) {
		t.Errorf("after a restart: %v %s, or a packet came through", err, out)
	}
	if err := client.Delete[*networkingv1.NetworkPolicy](t.Context(), w.api, api.KeyOf(denied), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if !hears(ear, 5*time.Second) {
		t.Errorf("without the policy nothing comes, either\n%s", ruleset(t))
	}
	w.eventually("without policies there is no table", func() bool { return !strings.Contains(ruleset(t), GuardTableName("test")) })
}

// TestServicesAndPolicies: what a policy says of pods holds by way of a Service, and a pod reaches itself by one.
func TestServicesAndPolicies(t *testing.T) {
	if !nettest.Isolate(t) {
		return
	}
	w := newWorld(t)
	server, friend, stranger := w.pod("server"), w.pod("friend"), w.pod("stranger")
	for _, p := range []*pod{server, friend, stranger} {
		p.object(map[string]string{"app": p.name})
	}
	w.service("svc", "10.96.1.1", func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeNodePort, 30080
	}, server)
	w.eventually("the Service", func() bool { a, err := ask(stranger.ns, "10.96.1.1:80"); return err == nil && a.pod == "server" })
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "server"}, Spec: networkingv1.NetworkPolicySpec{
		PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "server"}},
		Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
			{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "friend"}}}}}}}}
	clienttest.Create(t, w.api, policy)
	silent := func(from *nettest.NS, addr string) bool {
		var err error
		dial := func() {
			var c net.Conn
			if c, err = net.DialTimeout("tcp4", addr, 300*time.Millisecond); err == nil {
				c.Close()
			}
		}
		if from == nil {
			dial()
		} else {
			from.Do(dial)
		}
		e, ok := err.(net.Error)
		return ok && e.Timeout()
	}
	w.eventually("strangers are kept out", func() bool { return silent(stranger.ns, "10.96.1.1:80") })
	w.mustAsk("a friend by the Service", friend.ns, "10.96.1.1:80", "server", friend.addr.String())
	w.mustAsk("the pod itself by the Service", server.ns, "10.96.1.1:80", "server", "")
	w.mustAsk("the node, as probes do", nil, server.addr.String()+":8080", "server", "")
	w.mustAsk("the node by the Service", nil, "10.96.1.1:80", "server", "")
	if !silent(w.outside, nodeIP.String()+":30080") {
		t.Error("clients from outside are let in by the node port")
	}
	fresh, err := client.Mutate(t.Context(), w.api, api.KeyOf(policy), "", func(p *networkingv1.NetworkPolicy) bool {
		p.Spec.Ingress[0].From = append(p.Spec.Ingress[0].From, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: outsideIP.String() + "/32"}})
		return true
	})
	if err != nil || len(fresh.Spec.Ingress[0].From) != 2 {
		t.Fatal(err)
	}
	w.eventually("clients from outside are let in by their own address", func() bool {
		a, err := ask(w.outside, nodeIP.String()+":30080")
		return err == nil && a.pod == "server"
	})
}
