package guard

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/nettest"
	"github.com/knarr-io/knarr/internal/network/nft"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// BenchmarkOneChangedPod prints what one pod more and less costs, model and kernel together.
func BenchmarkOneChangedPod(b *testing.B) {
	for _, size := range [][2]int{{10, 100}, {100, 1000}, {1000, 10_000}} {
		b.Run(fmt.Sprintf("%d policies, %d pods", size[0], size[1]), func(b *testing.B) {
			l := &lab{t: b, node: nettest.New(b), model: policy.New(nft.IPv4)}
			l.node.Must("table", func() error {
				conn, err := nft.Open(nft.Table{Family: nft.IPv4, Name: "knarr-test_policies"})
				b.Cleanup(func() { conn.Close() })
				l.kernel = NewKernel(nft.IPv4, conn)
				return err
			})
			l.fill(size[0], size[1])
			start := time.Now()
			l.write(true)
			b.Logf("the whole table: %v", time.Since(start))
			p := policy.Pod{Key: api.Key{Namespace: "default", Name: "another"}, Labels: map[string]string{"app": "app-0"}, Addrs: []netip.Addr{netip.MustParseAddr("10.9.9.9")}}
			for b.Loop() {
				l.model.SetPod(p)
				l.write(false)
				l.model.DeletePod(p.Key)
				l.write(false)
			}
		})
	}
}

// fill makes policies that all guard pods of this node, a hundred of which there are, and pods that are their peers.
func (l *lab) fill(policies, pods int) {
	for i := range policies {
		p := newPolicy(fmt.Sprint("policy-", i), -1, networkingv1.NetworkPolicySpec{
			Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{app(i)}, Ports: []networkingv1.NetworkPolicyPort{tcp(80)}}}})
		p.Spec.PodSelector.MatchLabels = map[string]string{"server": fmt.Sprint(i % 100)}
		l.model.SetPolicy(p)
	}
	for i := range pods {
		p := policy.Pod{Key: api.Key{Namespace: "default", Name: fmt.Sprint("peer-", i)}, Labels: map[string]string{"app": fmt.Sprint("app-", i%policies)},
			Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i / 250), byte(1 + i%250)})}}
		if i < 100 {
			p.Labels["server"] = fmt.Sprint(i)
			l.model.Attach(policy.Attachment{Addr: p.Addrs[0], Pod: p.Key})
		}
		l.model.SetPod(p)
	}
}

// BenchmarkThroughPolicies sends TCP from one pod to another by a Service's address: without policies, and where 1,000 are in force, one or
// ten of them for the server, of which the last one lets the client in.
func BenchmarkThroughPolicies(b *testing.B) {
	l := newLab(b, 2)
	client, server := l.pods[0], l.pods[1]
	const service = `table ip service { chain prerouting { type nat hook prerouting priority dstnat; ip daddr 10.96.1.1 dnat to %s; }; }`
	l.node.Must("service", func() error {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(fmt.Sprintf(service, server.addr))
		return cmd.Run()
	})
	serviceAddr := netip.MustParseAddr("10.96.1.1")
	b.Run("none", func(b *testing.B) { stream(b, client, serviceAddr) })
	l.fill(999, 10_000)
	l.model.SetPolicy(newPolicy("one", 1, networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{
		{From: []networkingv1.NetworkPolicyPeer{app(905)}, Ports: []networkingv1.NetworkPolicyPort{tcp(80)}}}}))
	l.model.SetPod(policy.Pod{Key: client.key, Labels: map[string]string{"app": "app-905"}, Addrs: []netip.Addr{client.addr}})
	for policies, labels := range map[int]map[string]string{1: {"app": "app-1"}, 10: {"server": "5"}} {
		l.model.SetPod(policy.Pod{Key: server.key, Labels: labels, Addrs: []netip.Addr{server.addr}})
		l.write(true)
		if reaches(client.ns, "tcp4", serviceAddr, 81, false) || !reaches(client.ns, "tcp4", serviceAddr, 80, true) {
			b.Fatal("the policies do not hold")
		}
		b.Run(fmt.Sprintf("%d of 1,000", policies), func(b *testing.B) { stream(b, client, serviceAddr) })
	}
}

// stream sends to port 80 of the server, and takes in what that echoes: each byte goes both ways.
func stream(b *testing.B, client *labPod, by netip.Addr) {
	c := dial(client.ns, "tcp4", by, 80, patience)
	if c == nil {
		b.Fatal("no connection")
	}
	received := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		received <- err
	}()
	buf := make([]byte, 256<<10)
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		if _, err := c.Write(buf); err != nil {
			b.Fatal(err)
		}
	}
	if err := errors.Join(c.(*net.TCPConn).CloseWrite(), <-received, c.Close()); err != nil {
		b.Fatal(err)
	}
}
