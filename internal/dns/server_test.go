package dns

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// freePort returns a loopback address where nobody listened a moment ago.
func freePort(t testing.TB) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// serve runs a server over c until the test ends and returns its address.
func serve(t testing.TB, c client.Client, change func(*Config)) (*Server, string) {
	t.Helper()
	addr := freePort(t)
	cfg := Config{Listen: []netip.AddrPort{addr}, Client: c, ResolvConf: "/nonexistent", Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Reverse: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	select {
	case <-s.Ready():
	case err := <-done:
		done <- nil
		t.Fatalf("Run: %v", err)
	case <-time.After(10 * time.Second):
		t.Fatal("the server was not ready after 10 s")
	}
	return s, addr.String()
}

// series returns what reg has, by name and label values in the order of label names.
func series(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			name := strings.TrimPrefix(f.GetName(), "coredns_")
			for _, l := range m.Label {
				name += " " + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return out
}

// query asks server and returns the answer; network is udp or tcp.
func query(t testing.TB, network, server, name string, qtype uint16) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, qtype)
	resp, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(m, server)
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return resp
}

// upstream is a DNS server of somebody else; answer may return nil to stay silent.
func upstream(t testing.TB, answer func(net string, q *dns.Msg) *dns.Msg) string {
	t.Helper()
	addr := freePort(t).String()
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	for _, network := range []string{"udp", "tcp"} {
		started := make(chan struct{})
		srv := &dns.Server{Addr: addr, Net: network, NotifyStartedFunc: func() { close(started) },
			Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				if m := answer(network, q); m != nil {
					w.WriteMsg(m)
				}
			})}
		wg.Go(func() {
			if err := srv.ListenAndServe(); err != nil {
				t.Errorf("upstream: %v", err)
			}
		})
		<-started
		t.Cleanup(func() { srv.Shutdown() })
	}
	return addr
}

func rr(t testing.TB, s string) dns.RR {
	t.Helper()
	r, err := dns.NewRR(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestServerFollowsTheAPI(t *testing.T) {
	c := clienttest.New(t)
	_, addr := serve(t, c, nil)
	ask := func(name string) string {
		resp := query(t, "udp", addr, name, dns.TypeA)
		return text(Answer{Code: resp.Rcode, Answer: resp.Answer}, true)
	}
	until := func(name, want string) {
		t.Helper()
		deadline := time.Now().Add(5 * time.Second)
		got := ask(name)
		for ; got != want && time.Now().Before(deadline); got = ask(name) {
		}
		if got != want {
			t.Fatalf("%s: got %s, want %s", name, got, want)
		}
	}
	until("web.default.svc.cluster.local.", "NXDOMAIN")
	clienttest.Create(t, c, service("default", "web", corev1.ServiceSpec{ClusterIP: "10.96.0.77", Ports: []corev1.ServicePort{{Port: 80}}}))
	until("web.default.svc.cluster.local.", "web.default.svc.cluster.local. 5 IN A 10.96.0.77")

	clienttest.Create(t, c, service("default", "db", corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}))
	slice := clienttest.Create(t, c, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "db-1",
		Labels: map[string]string{discoveryv1.LabelServiceName: "db"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.5"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}}}})
	until("db.default.svc.cluster.local.", "db.default.svc.cluster.local. 5 IN A 10.244.0.5")
	if err := client.Delete[*discoveryv1.EndpointSlice](t.Context(), c, api.KeyOf(slice), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("db.default.svc.cluster.local.", "NXDOMAIN")
	if err := client.Delete[*corev1.Service](t.Context(), c, api.Key{Namespace: "default", Name: "web"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until("web.default.svc.cluster.local.", "NXDOMAIN")
}

func TestNegativeAnswersCarryTheSOA(t *testing.T) {
	c := clienttest.New(t)
	clienttest.Create(t, c, service("default", "web", corev1.ServiceSpec{ClusterIP: "10.96.0.77", Ports: []corev1.ServicePort{{Port: 80}}}))
	_, addr := serve(t, c, nil)
	for _, network := range []string{"udp", "tcp"} {
		for name, code := range map[string]int{"nobody.default.svc.cluster.local.": dns.RcodeNameError, "web.default.svc.cluster.local.": dns.RcodeSuccess} {
			resp := query(t, network, addr, name, dns.TypeAAAA)
			if resp.Rcode != code || len(resp.Ns) != 1 || resp.Ns[0].Header().Rrtype != dns.TypeSOA || !resp.Authoritative || !resp.RecursionAvailable {
				t.Errorf("%s over %s:\n%v", name, network, resp)
			}
		}
	}
}

func TestLargeAnswersAreCutOnUDPOnly(t *testing.T) {
	c := clienttest.New(t)
	clienttest.Create(t, c, service("default", "big", corev1.ServiceSpec{ClusterIP: "None", Ports: []corev1.ServicePort{{Port: 80}}}))
	var eps []discoveryv1.Endpoint
	for i := range 500 {
		eps = append(eps, discoveryv1.Endpoint{Addresses: []string{fmt.Sprintf("10.244.%d.%d", i/250, i%250+1)}})
	}
	clienttest.Create(t, c, &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "big-1",
		Labels: map[string]string{discoveryv1.LabelServiceName: "big"}}, AddressType: discoveryv1.AddressTypeIPv4, Endpoints: eps})
	_, addr := serve(t, c, nil)
	if resp := query(t, "tcp", addr, "big.default.svc.cluster.local.", dns.TypeA); len(resp.Answer) != 500 || resp.Truncated {
		t.Errorf("over TCP: %d addresses, truncated %v", len(resp.Answer), resp.Truncated)
	}
	for _, size := range []uint16{0, 512, 1232, 65535} {
		m := new(dns.Msg).SetQuestion("big.default.svc.cluster.local.", dns.TypeA)
		if size > 0 {
			m.SetEdns0(size, false)
		}
		resp, _, err := (&dns.Client{Net: "udp", UDPSize: 65535}).Exchange(m, addr)
		if err != nil {
			t.Fatal(err)
		}
		limit := min(max(int(size), 512), udpSize)
		if resp.Compress = true; !resp.Truncated || resp.Len() > limit || len(resp.Answer) == 0 {
			t.Errorf("buffer of %d: %d bytes with %d addresses, truncated %v", size, resp.Len(), len(resp.Answer), resp.Truncated)
		}
		if (resp.IsEdns0() != nil) != (size > 0) {
			t.Errorf("buffer of %d: EDNS in the answer: %v", size, resp.IsEdns0())
		}
	}
}

func TestForwarding(t *testing.T) {
	var asked atomic.Int64
	silent := upstream(t, func(string, *dns.Msg) *dns.Msg { return nil })
	good := upstream(t, func(network string, q *dns.Msg) *dns.Msg {
		m := new(dns.Msg).SetReply(q)
		switch name := strings.ToLower(q.Question[0].Name); name {
		case "www.example.com.":
			asked.Add(1)
			m.Answer = []dns.RR{rr(t, name+" 300 IN A 192.0.2.53")}
		case "long.example.com.":
			if network == "udp" {
				m.Truncated = true
				return m
			}
			for i := range 100 {
				m.Answer = append(m.Answer, rr(t, fmt.Sprintf("%s 300 IN A 192.0.2.%d", name, i+1)))
			}
		default:
			asked.Add(1)
			m.Rcode = dns.RcodeNameError
			m.Ns = []dns.RR{rr(t, "example.com. 60 IN SOA a. b. 1 2 3 4 20")}
		}
		for i := range m.Answer { // in the spelling of the question
			m.Answer[i].Header().Name = q.Question[0].Name
		}
		return m
	})
	c := clienttest.New(t)
	clienttest.Create(t, c, service("default", "outside", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "www.example.com"}))
	reg := prometheus.NewPedanticRegistry()
	_, addr := serve(t, c, func(cfg *Config) { cfg.Upstreams, cfg.Metrics = []string{silent, good}, reg })

	first := query(t, "udp", addr, "www.example.com.", dns.TypeA)
	if len(first.Answer) != 1 || first.Authoritative || !first.RecursionAvailable {
		t.Fatalf("after the first upstream stayed silent:\n%v", first)
	}
	if again := query(t, "udp", addr, "WWW.example.com.", dns.TypeA); len(again.Answer) != 1 || again.Question[0].Name != "WWW.example.com." || asked.Load() != 1 {
		t.Errorf("from the cache (%d questions upstream):\n%v", asked.Load(), again)
	}
	for range 2 {
		if resp := query(t, "udp", addr, "nobody.example.com.", dns.TypeA); resp.Rcode != dns.RcodeNameError || len(resp.Ns) != 1 {
			t.Errorf("a name that does not exist:\n%v", resp)
		}
	}
	if asked.Load() != 2 {
		t.Errorf("%d questions upstream, want 2: negative answers are kept as well", asked.Load())
	}
	if resp := query(t, "tcp", addr, "long.example.com.", dns.TypeA); len(resp.Answer) != 100 {
		t.Errorf("an answer that needs TCP upstream has %d addresses, want 100", len(resp.Answer))
	}
	if resp := query(t, "udp", addr, "long.example.com.", dns.TypeA); !resp.Truncated {
		t.Error("an answer that needs TCP was not truncated on UDP")
	}
	resp := query(t, "udp", addr, "outside.default.svc.cluster.local.", dns.TypeA)
	if len(resp.Answer) != 2 || resp.Answer[0].(*dns.CNAME).Target != "www.example.com." || resp.Answer[1].(*dns.A).A.String() != "192.0.2.53" {
		t.Errorf("external name:\n%v", resp)
	}
	got := series(t, reg)
	for name, want := range map[string]float64{
		"dns_requests_total 1 udp dns://" + addr + " A  cluster.local.":             1,
		"dns_requests_total 1 tcp dns://" + addr + " A  .":                          1,
		"dns_responses_total kubernetes NOERROR dns://" + addr + "  cluster.local.": 1,
		"dns_responses_total cache NXDOMAIN dns://" + addr + "  .":                  1,
		"dns_request_duration_seconds dns://" + addr + "  cluster.local.":           1,
		"cache_hits_total dns://" + addr + " denial  .":                             1,
		"cache_entries dns://" + addr + " denial  .":                                1,
		"cache_entries dns://" + addr + " success  .":                               2,
		"proxy_request_duration_seconds forward NXDOMAIN " + good:                   1,
		"forward_max_concurrent_rejects_total":                                      0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v, want %v", name, v, want)
		}
	}
	if t.Failed() {
		t.Logf("%v", got)
	}
}

func TestForwardingFails(t *testing.T) {
	refusing := upstream(t, func(_ string, q *dns.Msg) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeRefused) })
	for name, upstreams := range map[string][]string{"no upstream": nil, "one that refuses": {refusing}, "nobody there": {freePort(t).String()}} {
		_, addr := serve(t, clienttest.New(t), func(cfg *Config) { cfg.Upstreams = upstreams })
		if resp := query(t, "udp", addr, "www.example.com.", dns.TypeA); resp.Rcode != dns.RcodeServerFailure {
			t.Errorf("%s: %s, want SERVFAIL", name, dns.RcodeToString[resp.Rcode])
		}
	}
}

func TestQueriesThatComeBackAreRefused(t *testing.T) {
	var addr atomic.Value
	var hops atomic.Int64
	bounce := upstream(t, func(network string, q *dns.Msg) *dns.Msg {
		hops.Add(1)
		resp, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(q.Copy(), addr.Load().(string))
		if err != nil {
			return nil
		}
		return resp
	})
	_, a := serve(t, clienttest.New(t), func(cfg *Config) { cfg.Upstreams = []string{bounce} })
	addr.Store(a)
	start := time.Now()
	resp := query(t, "udp", a, "www.example.com.", dns.TypeA)
	if resp.Rcode != dns.RcodeServerFailure || hops.Load() != 1 || time.Since(start) > 5*tryTime {
		t.Errorf("%s after %d hops and %v", dns.RcodeToString[resp.Rcode], hops.Load(), time.Since(start))
	}
}

func TestResolvConf(t *testing.T) {
	file := filepath.Join(t.TempDir(), "resolv.conf")
	own := netip.MustParseAddrPort("10.96.0.10:53")
	u, err := newUpstreams(Config{Listen: []netip.AddrPort{own}, ResolvConf: file})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1000, 0)
	if got := u.list(now); len(got) != 0 {
		t.Errorf("without a file: %v", got)
	}
	if err := os.WriteFile(file, []byte("search x\nnameserver 10.96.0.10\nnameserver 127.0.0.53\nnameserver fd00::1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := u.list(now.Add(time.Second)); len(got) != 0 {
		t.Errorf("the file was read again after a second: %v", got)
	}
	want := []netip.AddrPort{netip.MustParseAddrPort("127.0.0.53:53"), netip.MustParseAddrPort("[fd00::1]:53")}
	if got := u.list(now.Add(checkTime)); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v: everything but ourselves", got, want)
	}
	for _, bad := range []string{"", "example.com", "1.2.3.4:x", "10.96.0.10"} {
		if _, err := newUpstreams(Config{Listen: []netip.AddrPort{own}, Upstreams: []string{bad}}); err == nil {
			t.Errorf("upstream %q was accepted", bad)
		}
	}
}

func TestCacheCountsDownAndIsBounded(t *testing.T) {
	c := newCache(64)
	now := time.Unix(1000, 0)
	m := new(dns.Msg).SetQuestion("a.example.", dns.TypeA)
	m.Answer = []dns.RR{rr(t, "a.example. 10 IN A 192.0.2.1")}
	key := keyOf(m)
	c.put(key, m, now)
	if got := c.get(key, now.Add(4*time.Second)); got == nil || got.Answer[0].Header().Ttl != 6 {
		t.Errorf("after 4 of 10 seconds: %v", got)
	}
	if got := c.get(key, now.Add(10*time.Second)); got != nil {
		t.Errorf("after 10 of 10 seconds: %v", got)
	}
	for i := range 1000 {
		c.put(cacheKey{name: fmt.Sprint(i)}, m, now)
	}
	if n := len(c.answers); n > 64 {
		t.Errorf("%d answers in a cache of 64", n)
	}
	m.Answer = nil
	m.Rcode = dns.RcodeServerFailure
	c.put(cacheKey{name: "failure"}, m, now)
	if c.get(cacheKey{name: "failure"}, now) != nil {
		t.Error("a failure was kept")
	}
}

func TestBadRequests(t *testing.T) {
	_, addr := serve(t, clienttest.New(t), nil)
	for name, tc := range map[string]struct {
		change func(*dns.Msg)
		want   int
	}{
		"update":        {func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, dns.RcodeNotImplemented},
		"chaos class":   {func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, dns.RcodeRefused},
		"EDNS version":  {func(m *dns.Msg) { m.SetEdns0(1232, false); m.IsEdns0().SetVersion(3) }, dns.RcodeBadVers},
		"two questions": {func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, dns.RcodeFormatError},
	} {
		m := new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
		tc.change(m)
		resp, _, err := new(dns.Client).Exchange(m, addr)
		if err != nil || resp.Rcode != tc.want {
			t.Errorf("%s: %v %v, want %s", name, resp, err, dns.RcodeToString[tc.want])
		}
	}
}

func TestPortInUseIsSaid(t *testing.T) {
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort(l.LocalAddr().String())}, Client: clienttest.New(t)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), l.LocalAddr().String()) {
		t.Errorf("Run on a port in use: %v", err)
	}
}

// BenchmarkQueries is what one client with many sockets gets over loopback UDP.
func BenchmarkQueries(b *testing.B) {
	c := clienttest.New(b)
	clienttest.Create(b, c, service("default", "web", corev1.ServiceSpec{ClusterIP: "10.96.0.77", Ports: []corev1.ServicePort{{Port: 80}}}))
	_, addr := serve(b, c, nil)
	m := new(dns.Msg).SetQuestion("web.default.svc.cluster.local.", dns.TypeA)
	wire, err := m.Pack()
	if err != nil {
		b.Fatal(err)
	}
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		conn, err := net.Dial("udp", addr)
		if err != nil {
			b.Error(err)
			return
		}
		defer conn.Close()
		buf := make([]byte, 512)
		for pb.Next() {
			conn.SetDeadline(time.Now().Add(2 * time.Second))
			if _, err := conn.Write(wire); err != nil {
				b.Error(err)
				return
			}
			if _, err := conn.Read(buf); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "queries/s")
}
