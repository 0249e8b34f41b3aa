package dns

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

func ptr[T any](v T) *T { return &v }

func service(ns, name string, spec corev1.ServiceSpec) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: spec}
}

// testZone is the cluster that the tables below ask about.
func testZone() *Zone {
	x := NewIndex()
	set := func(svc *corev1.Service, s ...*discoveryv1.EndpointSlice) { x.Set(api.KeyOf(svc), svc, s) }
	set(service("default", "kubernetes", corev1.ServiceSpec{ClusterIP: "10.96.0.1", ClusterIPs: []string{"10.96.0.1"},
		Ports: []corev1.ServicePort{{Name: "https", Port: 443, Protocol: corev1.ProtocolTCP}}}))
	set(service("shop", "web", corev1.ServiceSpec{ClusterIP: "10.96.0.20", ClusterIPs: []string{"10.96.0.20", "fd00::20"},
		Ports: []corev1.ServicePort{{Port: 80}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53, Protocol: corev1.ProtocolTCP}}}),
		&discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: ptr("dns"), Port: ptr[int32](5353), Protocol: ptr(corev1.ProtocolUDP)}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.20"}, Hostname: ptr("web-0")}}})
	set(service("shop", "db", corev1.ServiceSpec{ClusterIP: "None"}), &discoveryv1.EndpointSlice{
		Ports: []discoveryv1.EndpointPort{{Name: ptr("redis"), Port: ptr[int32](6379), Protocol: ptr(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.244.0.5"}, Hostname: ptr("db-0"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(true)}},
			{Addresses: []string{"10.244.0.6"}, Conditions: discoveryv1.EndpointConditions{}},
			{Addresses: []string{"10.244.0.7"}, Hostname: ptr("db-2"), Conditions: discoveryv1.EndpointConditions{Ready: ptr(false)}},
		}}, &discoveryv1.EndpointSlice{Ports: []discoveryv1.EndpointPort{{Name: ptr("redis"), Port: ptr[int32](6379), Protocol: ptr(corev1.ProtocolTCP)}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"fd00::5"}, Hostname: ptr("db-0")}}})
	set(service("shop", "idle", corev1.ServiceSpec{ClusterIP: "None"}))
	set(service("shop", "portless", corev1.ServiceSpec{ClusterIP: "None"}),
		&discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.30"}}}})
	set(service("shop", "number", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "192.0.2.1"}))
	set(service("shop", "google", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "www.Example.com"}))
	set(service("shop", "alias", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "web.shop.svc.cluster.local."}))
	set(service("shop", "circle", corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "circle.shop.svc.cluster.local"}))
	for _, ns := range []string{"default", "shop", "empty"} {
		x.SetNamespace(ns, true)
	}
	return &Zone{Origin: "cluster.local.", Index: x, Servers: []netip.Addr{netip.MustParseAddr("10.96.0.10")},
		Reverse: ReverseZones([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/15")})}
}

// text writes an answer as one line per record, "NXDOMAIN", "NODATA" or "not ours".
func text(a Answer, ours bool) string {
	if !ours {
		return "not ours"
	}
	var lines []string
	for _, rr := range a.Answer {
		lines = append(lines, strings.ReplaceAll(rr.String(), "\t", " "))
	}
	slices.Sort(lines)
	for _, rr := range a.Extra {
		lines = append(lines, "+ "+strings.ReplaceAll(rr.String(), "\t", " "))
	}
	if a.Alias != "" {
		lines = append(lines, "? "+a.Alias)
	}
	switch {
	case a.Code == dns.RcodeNameError:
		lines = append(lines, "NXDOMAIN")
	case a.Code != dns.RcodeSuccess:
		lines = append(lines, dns.RcodeToString[a.Code])
	case len(a.Answer) == 0:
		lines = append(lines, "NODATA")
	}
	return strings.Join(lines, "\n")
}

func TestZoneAnswers(t *testing.T) {
	z := testZone()
	for _, tc := range []struct{ question, want string }{
		// 2.2 schema version
		{"dns-version.cluster.local. TXT", `dns-version.cluster.local. 5 IN TXT "1.1.0"`},
		{"dns-version.cluster.local. A", "NODATA"},
		// 2.3 Services with cluster IPs
		{"kubernetes.default.svc.cluster.local. A", "kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1"},
		{"kubernetes.default.svc.cluster.local. AAAA", "NODATA"},
		{"KuBerNetes.Default.svc.CLUSTER.local. A", "KuBerNetes.Default.svc.CLUSTER.local. 5 IN A 10.96.0.1"},
		{"web.shop.svc.cluster.local. AAAA", "web.shop.svc.cluster.local. 5 IN AAAA fd00::20"},
		{"web.shop.svc.cluster.local. MX", "NODATA"},
		{"_https._tcp.kubernetes.default.svc.cluster.local. SRV",
			"_https._tcp.kubernetes.default.svc.cluster.local. 5 IN SRV 0 100 443 kubernetes.default.svc.cluster.local.\n" +
				"+ kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1"},
		{"_https._tcp.kubernetes.default.svc.cluster.local. A", "_https._tcp.kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1"},
		{"_https._tcp.kubernetes.default.svc.cluster.local. MX", "NODATA"},
		// as CoreDNS: without _PORT._PROTO all ports, and the names and addresses of endpoints of whatever Service
		{"kubernetes.default.svc.cluster.local. SRV", "kubernetes.default.svc.cluster.local. 5 IN SRV 0 100 443 kubernetes.default.svc.cluster.local.\n" +
			"+ kubernetes.default.svc.cluster.local. 5 IN A 10.96.0.1"},
		{"web.shop.svc.cluster.local. SRV", "web.shop.svc.cluster.local. 5 IN SRV 0 16 53 web.shop.svc.cluster.local.\n" +
			"web.shop.svc.cluster.local. 5 IN SRV 0 16 80 web.shop.svc.cluster.local.\n" +
			"+ web.shop.svc.cluster.local. 5 IN A 10.96.0.20\n+ web.shop.svc.cluster.local. 5 IN AAAA fd00::20"},
		{"web-0.web.shop.svc.cluster.local. A", "web-0.web.shop.svc.cluster.local. 5 IN A 10.244.0.20"},
		{"web-0.web.shop.svc.cluster.local. SRV", "web-0.web.shop.svc.cluster.local. 5 IN SRV 0 100 5353 web-0.web.shop.svc.cluster.local.\n" +
			"+ web-0.web.shop.svc.cluster.local. 5 IN A 10.244.0.20"},
		{"20.0.244.10.in-addr.arpa. PTR", "20.0.244.10.in-addr.arpa. 5 IN PTR web-0.web.shop.svc.cluster.local."},
		{"portless.shop.svc.cluster.local. A", "portless.shop.svc.cluster.local. 5 IN A 10.244.0.30"},
		{"portless.shop.svc.cluster.local. SRV", "NODATA"},
		{"_tcp.kubernetes.default.svc.cluster.local. SRV", "NODATA"},
		{"_udp.kubernetes.default.svc.cluster.local. SRV", "NXDOMAIN"},
		{"_http._tcp.kubernetes.default.svc.cluster.local. SRV", "NXDOMAIN"},
		{"_dns._tcp.web.shop.svc.cluster.local. SRV", "NXDOMAIN"},
		{"1.0.96.10.in-addr.arpa. PTR", "1.0.96.10.in-addr.arpa. 5 IN PTR kubernetes.default.svc.cluster.local."},
		{"0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. PTR",
			"0.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa. 5 IN PTR web.shop.svc.cluster.local."},
		// 2.4 headless Services
		{"db.shop.svc.cluster.local. A", "db.shop.svc.cluster.local. 5 IN A 10.244.0.5\ndb.shop.svc.cluster.local. 5 IN A 10.244.0.6"},
		{"db.shop.svc.cluster.local. AAAA", "db.shop.svc.cluster.local. 5 IN AAAA fd00::5"},
		{"db-0.db.shop.svc.cluster.local. A", "db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.5"},
		{"db-2.db.shop.svc.cluster.local. A", "NXDOMAIN"}, // not ready
		{"10-244-0-6.db.shop.svc.cluster.local. A", "10-244-0-6.db.shop.svc.cluster.local. 5 IN A 10.244.0.6"},
		{"idle.shop.svc.cluster.local. A", "NXDOMAIN"}, // no ready endpoint
		{"_redis._tcp.db.shop.svc.cluster.local. SRV",
			"_redis._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 33 6379 10-244-0-6.db.shop.svc.cluster.local.\n" +
				"_redis._tcp.db.shop.svc.cluster.local. 5 IN SRV 0 33 6379 db-0.db.shop.svc.cluster.local.\n" +
				"+ db-0.db.shop.svc.cluster.local. 5 IN A 10.244.0.5\n+ 10-244-0-6.db.shop.svc.cluster.local. 5 IN A 10.244.0.6\n" +
				"+ db-0.db.shop.svc.cluster.local. 5 IN AAAA fd00::5"},
		{"5.0.244.10.in-addr.arpa. PTR", "5.0.244.10.in-addr.arpa. 5 IN PTR db-0.db.shop.svc.cluster.local."},
		// 2.5 external names
		{"google.shop.svc.cluster.local. A", "google.shop.svc.cluster.local. 5 IN CNAME www.example.com.\n? www.example.com."},
		{"google.shop.svc.cluster.local. CNAME", "google.shop.svc.cluster.local. 5 IN CNAME www.example.com."},
		{"alias.shop.svc.cluster.local. A", "alias.shop.svc.cluster.local. 5 IN CNAME web.shop.svc.cluster.local.\nweb.shop.svc.cluster.local. 5 IN A 10.96.0.20"},
		// 2.6 pods
		{"10-244-0-9.shop.pod.cluster.local. A", "10-244-0-9.shop.pod.cluster.local. 5 IN A 10.244.0.9"},
		{"10-244-0-9.shop.pod.cluster.local. AAAA", "NODATA"},
		{"fd00--9.shop.pod.cluster.local. AAAA", "fd00--9.shop.pod.cluster.local. 5 IN AAAA fd00::9"},
		{"10-244-0-256.shop.pod.cluster.local. A", "NXDOMAIN"},
		{"x.shop.pod.cluster.local. A", "NXDOMAIN"},
		{"shop.pod.cluster.local. A", "NODATA"},
		{"nope.pod.cluster.local. A", "NXDOMAIN"},
		{"1-2-3-4.nope.pod.cluster.local. A", "NXDOMAIN"},
		{"number.shop.svc.cluster.local. A", "NXDOMAIN"},
		// names that have others below them exist (RFC 8020)
		{"shop.svc.cluster.local. A", "NODATA"},
		{"empty.svc.cluster.local. A", "NODATA"},
		{"svc.cluster.local. A", "NODATA"},
		{"pod.cluster.local. A", "NODATA"},
		{"cluster.local. NS", "cluster.local. 5 IN NS ns.dns.cluster.local.\n+ ns.dns.cluster.local. 5 IN A 10.96.0.10"},
		{"ns.dns.cluster.local. A", "ns.dns.cluster.local. 5 IN A 10.96.0.10"},
		{"ns.dns.cluster.local. AAAA", "NODATA"},
		{"dns.cluster.local. A", "NODATA"},
		{"x.dns.cluster.local. A", "NXDOMAIN"},
		{"cluster.local. AXFR", "REFUSED"},
		{"96.10.in-addr.arpa. NS", "96.10.in-addr.arpa. 5 IN NS ns.dns.cluster.local.\n+ ns.dns.cluster.local. 5 IN A 10.96.0.10"},
		{"0.96.10.in-addr.arpa. PTR", "NODATA"},
		{"x.1.0.96.10.in-addr.arpa. PTR", "NXDOMAIN"},
		// names that do not
		{"web.default.svc.cluster.local. A", "NXDOMAIN"},
		{"web.nowhere.svc.cluster.local. A", "NXDOMAIN"},
		{"nowhere.svc.cluster.local. A", "NXDOMAIN"},
		{"x.web.shop.svc.cluster.local. A", "NXDOMAIN"},
		{"a.b.c.web.shop.svc.cluster.local. A", "NXDOMAIN"},
		{"web.shop.cluster.local. A", "NXDOMAIN"},
		{"www.example.com.shop.svc.cluster.local. A", "NXDOMAIN"},
		{"9.9.244.10.in-addr.arpa. PTR", "NXDOMAIN"},
		// somebody else's
		{"example.com. A", "not ours"},
		{"notcluster.local. A", "not ours"},
		{"8.8.8.8.in-addr.arpa. PTR", "not ours"},
		{". NS", "not ours"},
	} {
		t.Run(tc.question, func(t *testing.T) {
			name, qtype, _ := strings.Cut(tc.question, " ")
			a, ours := z.Answer(dns.Question{Name: name, Qtype: dns.StringToType[qtype], Qclass: dns.ClassINET})
			if got := text(a, ours); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
	a, _ := z.Answer(dns.Question{Name: "circle.shop.svc.cluster.local.", Qtype: dns.TypeA, Qclass: dns.ClassINET})
	if a.Code != dns.RcodeServerFailure || len(a.Answer) > aliasDepth+1 {
		t.Errorf("a circle of aliases: %s", text(a, true))
	}
}

func TestIndexForgets(t *testing.T) {
	z := testZone()
	key := api.Key{Namespace: "default", Name: "kubernetes"}
	z.Index.Set(key, nil, nil)
	for _, q := range []struct {
		name  string
		qtype uint16
	}{{"kubernetes.default.svc.cluster.local.", dns.TypeA}, {"default.svc.cluster.local.", dns.TypeA}, {"1.0.96.10.in-addr.arpa.", dns.TypePTR}} {
		a, ours := z.Answer(dns.Question{Name: q.name, Qtype: q.qtype, Qclass: dns.ClassINET})
		want := "NXDOMAIN"
		if q.name == "default.svc.cluster.local." {
			want = "NODATA" // the namespace is still there
		}
		if text(a, ours) != want {
			t.Errorf("%s after its Service is gone: %s", q.name, text(a, ours))
		}
	}
	for _, key := range z.Index.Keys() {
		z.Index.Set(key, nil, nil)
	}
	if n := len(z.Index.reverse) + len(z.Index.services); n != 0 {
		t.Errorf("%d entries left in an empty index", n)
	}
}

// A resolver keeps a negative answer by the SOA record of the zone that gave it (RFC 2308 section 3).
func TestNegativeAnswersCarryTheSOAOfTheirZone(t *testing.T) {
	z := testZone()
	for question, zone := range map[string]string{
		"nope.shop.svc.cluster.local. A":   "cluster.local.",
		"web.shop.svc.cluster.local. MX":   "cluster.local.",
		"alias.shop.svc.cluster.local. MX": "cluster.local.", // an alias to a name without
		"web.shop.svc.cluster.local. A":    "",
		"9.9.96.10.in-addr.arpa. PTR":      "96.10.in-addr.arpa.",
		"1.0.96.10.in-addr.arpa. TXT":      "96.10.in-addr.arpa.",
		"9.9.245.10.in-addr.arpa. PTR":     "245.10.in-addr.arpa.",
		"google.shop.svc.cluster.local. A": "",
	} {
		name, qtype, _ := strings.Cut(question, " ")
		a, ours := z.Answer(dns.Question{Name: name, Qtype: dns.StringToType[qtype], Qclass: dns.ClassINET})
		got := ""
		if a.Authority != nil {
			got = a.Authority.Hdr.Name
		}
		if !ours || got != zone {
			t.Errorf("%s: SOA of %q, want %q", question, got, zone)
		}
	}
}

func TestReverseZones(t *testing.T) {
	for prefix, want := range map[string]string{
		"10.96.0.0/16":     "96.10.in-addr.arpa.",
		"10.0.0.0/8":       "10.in-addr.arpa.",
		"192.0.2.1/32":     "1.2.0.192.in-addr.arpa.",
		"10.254.0.0/15":    "254.10.in-addr.arpa. 255.10.in-addr.arpa.",
		"10.96.0.128/26":   "first 128.0.96.10.in-addr.arpa. of 64",
		"255.255.255.0/25": "first 0.255.255.255.in-addr.arpa. of 128",
		"10.96.0.0/12":     "first 96.10.in-addr.arpa. of 16",
		"fd00:244::/32":    "4.4.2.0.0.0.d.f.ip6.arpa.",
		"fd00:244::/31":    "4.4.2.0.0.0.d.f.ip6.arpa. 5.4.2.0.0.0.d.f.ip6.arpa.",
		"0.0.0.0/0":        "in-addr.arpa.",
	} {
		zones := ReverseZones([]netip.Prefix{netip.MustParsePrefix(prefix)})
		got := strings.Join(zones, " ")
		if len(zones) > 2 {
			got = fmt.Sprintf("first %s of %d", zones[0], len(zones))
		}
		if got != want {
			t.Errorf("%s: %s, want %s", prefix, got, want)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	for _, name := range []string{"kubernetes.default.svc.cluster.local.", "_https._tcp.kubernetes.default.svc.cluster.local.",
		"10-1-1-1.x.pod.cluster.local.", "1.0.96.10.in-addr.arpa.", strings.Repeat("0.", 32) + "ip6.arpa.", ".", "", "..cluster.local.", `a\.b.svc.cluster.local.`} {
		f.Add(name, dns.TypeA)
		f.Add(name, dns.TypeANY)
	}
	z := testZone()
	f.Fuzz(func(t *testing.T, name string, qtype uint16) {
		a, ours := z.Answer(dns.Question{Name: name, Qtype: qtype, Qclass: dns.ClassINET})
		if !ours && (len(a.Answer) > 0 || a.Code != 0) {
			t.Errorf("%q: an answer to a question that is not ours: %+v", name, a)
		}
		for _, rr := range a.Answer {
			if h := rr.Header(); h.Ttl != ttl || h.Class != dns.ClassINET {
				t.Errorf("%q: %s", name, rr)
			}
		}
	})
}

// FuzzRespond feeds whole messages as they come from the network.
func FuzzRespond(f *testing.F) {
	for _, q := range []string{"web.shop.svc.cluster.local.", "db.shop.svc.cluster.local."} {
		for _, edns := range []bool{false, true} {
			m := new(dns.Msg).SetQuestion(q, dns.TypeA)
			if edns {
				m.SetEdns0(4096, true)
			}
			wire, err := m.Pack()
			if err != nil {
				f.Fatal(err)
			}
			f.Add(wire)
		}
	}
	s, err := New(Config{Listen: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:5353")}, ResolvConf: "/nonexistent"})
	if err != nil {
		f.Fatal(err)
	}
	s.zone = testZone()
	s.synced.Store(true)
	f.Fuzz(func(t *testing.T, wire []byte) {
		req := new(dns.Msg)
		if req.Unpack(wire) != nil {
			return
		}
		resp, _ := s.respond(req)
		fit(resp, req, true)
		out, err := resp.Pack()
		if err != nil {
			return // a name that cannot be packed again is miekg/dns's to refuse
		}
		if resp.Id != req.Id || !resp.Response || (len(out) > udpSize && len(out) > 512) {
			t.Errorf("%v\nanswered with %d bytes\n%v", req, len(out), resp)
		}
	})
}

func BenchmarkAnswer(b *testing.B) {
	z := testZone()
	for _, name := range []string{"web.shop.svc.cluster.local.", "db.shop.svc.cluster.local.", "www.example.com.shop.svc.cluster.local."} {
		b.Run(fmt.Sprint(name), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				z.Answer(dns.Question{Name: name, Qtype: dns.TypeA, Qclass: dns.ClassINET})
			}
		})
	}
}
