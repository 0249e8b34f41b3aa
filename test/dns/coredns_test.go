// Package dns compares the answers about the cluster's names with those of CoreDNS' kubernetes plugin: the same random Services,
// endpoints and namespaces, the same random questions. It is a module of its own so that CoreDNS is none of the product's
// dependencies: cd test/dns && go test .
package dns

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/coredns/caddy"
	coredns "github.com/coredns/coredns/plugin/kubernetes"
	"github.com/coredns/coredns/plugin/kubernetes/object"
	"github.com/coredns/coredns/request"
	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	knarr "github.com/knarr-io/knarr/internal/dns"
)

// cluster is what both servers know.
type cluster struct {
	namespaces []string
	services   []*corev1.Service
	slices     []*discoveryv1.EndpointSlice
}

// TestAnswersAreThoseOfCoreDNS asks both. Where they differ on purpose, departs says why.
func TestAnswersAreThoseOfCoreDNS(t *testing.T) {
	asked, departed, found, failed := 0, 0, 0, 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := randomCluster(r)
		theirs, ours := c.coreDNS(t), c.knarr()
		for range 200 {
			q := c.question(r)
			want := ask(t, theirs, q)
			a, mine := ours.Answer(q)
			if !mine {
				t.Fatalf("seed %d: %v is not answered", seed, q)
			}
			got := text(a.Code, a.Answer, a.Extra)
			asked++
			if strings.HasPrefix(want, "NOERROR\n") {
				found++
			}
			if got == want {
				continue
			}
			if departs(q, want) == "" && weightless(got) != weightless(want) {
				failed++
				t.Errorf("seed %d: %s %s\ngot\n%s\nCoreDNS\n%s\ncluster\n%s", seed, q.Name, dns.TypeToString[q.Qtype], got, want, c)
			}
			departed++
			if failed > 10 {
				return
			}
		}
	}
	t.Logf("%d questions, %d with records, %d answered otherwise on purpose", asked, found, departed)
	if found < asked/8 {
		t.Errorf("only %d of %d questions have records: the random names are no good", found, asked)
	}
}

// departs returns why an answer differs from CoreDNS' on purpose, or "".
func departs(q dns.Question, theirs string) string {
	labels := dns.SplitDomainName(strings.ToLower(q.Name))
	inner := labels[:max(0, len(labels)-2)] // without cluster.local
	last := ""
	if len(inner) > 0 {
		last = inner[len(inner)-1]
	}
	switch {
	case q.Qtype == dns.TypeANY:
		return "CoreDNS leaves ANY to another plugin and says that there is nothing; there is all that is known"
	case q.Qtype == dns.TypeSOA && strings.HasPrefix(theirs, "NOERROR"):
		return "CoreDNS does not look whether the name exists when it is asked for SOA records"
	case q.Qtype == dns.TypeTXT && strings.HasPrefix(theirs, "NXDOMAIN"):
		return "CoreDNS denies names that have others below them when it is asked for TXT records (RFC 8020)"
	case len(inner) == 4 && strings.HasPrefix(inner[0], "_") && strings.HasPrefix(theirs, "NXDOMAIN"):
		return "_PROTO.SERVICE exists as _PORT._PROTO.SERVICE does (RFC 8020)"
	case last == "dns-version" && strings.HasPrefix(theirs, "NXDOMAIN"):
		return "dns-version exists, whatever it is asked for"
	case len(inner) == 3 && inner[0] == "alias" && theirs == "NOERROR":
		return "an alias to a name that is not there is an alias and NXDOMAIN (RFC 2308 section 2.1); CoreDNS says nothing"
	case last == "pod" && q.Qtype == dns.TypeSRV:
		return "a pod's name has no port; CoreDNS says 0"
	case last == "pod" && len(inner) > 3:
		return "nothing is below the name of a pod"
	case q.Qtype == dns.TypePTR && strings.HasPrefix(theirs, "NXDOMAIN"):
		return "CoreDNS denies a name that has no PTR record although it has others"
	case len(inner) == 3 && slices.Contains([]string{"alias", "outside"}, inner[0]) && !slices.Contains([]uint16{dns.TypeA, dns.TypeAAAA, dns.TypeCNAME}, q.Qtype):
		return "an alias is one for all types (RFC 1034 section 3.6.2); CoreDNS has it for addresses alone"
	}
	return ""
}

// srvWeight finds the weight of an SRV record.
var srvWeight = regexp.MustCompile(`(in\tsrv\t0) \d+`)

// weightless drops the weights: CoreDNS counts an endpoint that is in two slices twice.
func weightless(answer string) string { return srvWeight.ReplaceAllString(answer, "$1 -") }

func text(code int, answer, extra []dns.RR) string {
	lines := []string{}
	for _, rr := range answer {
		rr = dns.Copy(rr)
		if rr.Header().Rrtype == dns.TypeTXT {
			rr.Header().Ttl = 0 // of dns-version CoreDNS keeps longer
		}
		lines = append(lines, strings.ToLower(rr.String())) // CoreDNS' targets end as the client wrote the zone
	}
	slices.Sort(lines)
	var more []string
	for _, rr := range extra {
		more = append(more, "+ "+strings.ToLower(rr.String()))
	}
	slices.Sort(more)
	return strings.Join(slices.Concat([]string{dns.RcodeToString[code]}, lines, more), "\n")
}

// ---- the random cluster

var (
	names      = []string{"web", "db", "alias", "outside"}
	portNames  = []string{"http", "dns", "metrics"}
	hostnames  = []string{"web-0", "web-1", ""}
	protocols  = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP}
	namespaces = []string{"shop", "default", "empty"}
)

func pick[T any](r *rand.Rand, of []T) T { return of[r.IntN(len(of))] }

func randomCluster(r *rand.Rand) *cluster {
	c := &cluster{}
	for _, ns := range namespaces {
		if r.IntN(4) == 0 {
			continue
		}
		c.namespaces = append(c.namespaces, ns)
		if ns == "empty" {
			continue
		}
		for i, name := range names {
			if r.IntN(4) > 0 {
				c.add(r, ns, name, i)
			}
		}
	}
	return c
}

// add makes one Service with endpoints.
func (c *cluster) add(r *rand.Rand, ns, name string, i int) {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	c.services = append(c.services, svc)
	switch name {
	case "alias":
		svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: pick(r, []string{"web.shop.svc.cluster.local", "nope.shop.svc.cluster.local", "db.default.svc.cluster.local"})}
		return
	case "outside":
		svc.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: pick(r, []string{"www.example.com", "192.0.2.7"})}
		return
	}
	four, six := fmt.Sprintf("10.96.%d.%d", r.IntN(3), 1+i), fmt.Sprintf("fd00:96::%d", 1+i)
	svc.Spec.ClusterIPs = pick(r, [][]string{{four}, {four, six}, {six}, {"None"}, {"None"}})
	svc.Spec.ClusterIP = svc.Spec.ClusterIPs[0]
	if svc.Spec.ClusterIP != "None" || r.IntN(2) == 0 {
		for _, n := range portNames[:1+r.IntN(3)] {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: n, Protocol: pick(r, protocols), Port: int32(80 + r.IntN(2))})
		}
		if len(svc.Spec.Ports) == 1 && r.IntN(2) == 0 {
			svc.Spec.Ports[0].Name = ""
		}
	}
	for n := range r.IntN(3) {
		c.addSlice(r, svc, n)
	}
}

func (c *cluster) addSlice(r *rand.Rand, svc *corev1.Service, n int) {
	s := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: fmt.Sprint(svc.Name, "-", n),
		Labels: map[string]string{discoveryv1.LabelServiceName: svc.Name}}, AddressType: discoveryv1.AddressTypeIPv4}
	if r.IntN(3) == 0 {
		s.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, p := range svc.Spec.Ports {
		s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: new(p.Name), Protocol: new(p.Protocol), Port: new(p.Port + 8000)})
	}
	for range r.IntN(4) {
		e := discoveryv1.Endpoint{Addresses: []string{address(r, s.AddressType)}}
		if h := pick(r, hostnames); h != "" {
			e.Hostname = &h
		}
		switch r.IntN(4) {
		case 0:
			e.Conditions.Ready = new(false)
		case 1:
			e.Conditions.Ready = new(true)
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	c.slices = append(c.slices, s)
}

func address(r *rand.Rand, of discoveryv1.AddressType) string {
	if of == discoveryv1.AddressTypeIPv6 {
		return pick(r, []string{"fd00:244::", "fd00:244::5", "fd00:244:0:1::6"})
	}
	return fmt.Sprintf("10.244.0.%d", r.IntN(4))
}

func (c *cluster) String() string {
	var b strings.Builder
	fmt.Fprintln(&b, c.namespaces)
	for _, s := range c.services {
		fmt.Fprintf(&b, "%s/%s %s %v %v\n", s.Namespace, s.Name, s.Spec.ExternalName, s.Spec.ClusterIPs, s.Spec.Ports)
	}
	for _, s := range c.slices {
		fmt.Fprintf(&b, "%s/%s %v\n", s.Namespace, s.Name, s.Ports)
		for _, e := range s.Endpoints {
			fmt.Fprintf(&b, "  %v %v %v\n", e.Addresses, e.Hostname, e.Conditions.Ready)
		}
	}
	return b.String()
}

// question returns a random question.
func (c *cluster) question(r *rand.Rand) dns.Question {
	types := []uint16{dns.TypeA, dns.TypeA, dns.TypeA, dns.TypeA, dns.TypeA, dns.TypeAAAA, dns.TypeAAAA, dns.TypeSRV, dns.TypeSRV, dns.TypeSRV, dns.TypeSRV,
		dns.TypeTXT, dns.TypeMX, dns.TypeCNAME, dns.TypeSOA, dns.TypeANY,
		dns.TypeHTTPS, dns.TypePTR, dns.TypeNS}
	q := dns.Question{Qtype: pick(r, types), Qclass: dns.ClassINET}
	ns, svc := pick(r, []string{"shop", "default", "empty", "nope"}), pick(r, append([]string{"nope"}, names...))
	if len(c.services) > 0 && r.IntN(3) > 0 {
		s := pick(r, c.services)
		ns, svc = s.Namespace, s.Name
	}
	base := svc + "." + ns + ".svc.cluster.local."
	ip := address(r, pick(r, []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6}))
	dashed := strings.NewReplacer(".", "-", ":", "-").Replace(ip)
	switch r.IntN(14) {
	case 0, 1, 2, 3:
		q.Name = base
	case 4, 5:
		q.Name = fmt.Sprintf("_%s._%s.%s", pick(r, append([]string{"nope"}, portNames...)), pick(r, []string{"tcp", "udp", "sctp"}), base)
	case 6:
		q.Name = pick(r, []string{"web-0", "web-1", "web-2", dashed, dashed + "0"}) + "." + base
	case 7:
		q.Name = dashed + "." + ns + ".pod.cluster.local."
	case 8:
		q.Name = pick(r, []string{"1-2-3-4", "1-2-3", "x", "1-2-3-400", "a." + dashed, "--1"}) + "." + ns + ".pod.cluster.local."
	case 9:
		q.Name = pick(r, []string{"", "svc.", "pod.", "x.", ns + ".svc.", ns + ".pod.", "dns-version.", "a.b.c." + svc + "." + ns + ".svc."}) + "cluster.local."
	case 10:
		q.Name = "_" + pick(r, []string{"tcp", "udp"}) + "." + base
	default:
		q.Qtype = dns.TypePTR
		if r.IntN(3) == 0 {
			ip = fmt.Sprintf("10.96.%d.%d", r.IntN(3), 1+r.IntN(3))
		}
		q.Name, _ = dns.ReverseAddr(ip)
	}
	if q.Qtype == dns.TypeNS && q.Name == "cluster.local." {
		q.Qtype = dns.TypeA // CoreDNS' name server is another
	}
	if q.Qtype == dns.TypeSOA && q.Name == "cluster.local." {
		q.Qtype = dns.TypeA // serial numbers
	}
	if r.IntN(4) == 0 {
		q.Name = strings.ToUpper(q.Name)
	}
	return q
}

// ---- Knarr's side

func (c *cluster) knarr() *knarr.Zone {
	x := knarr.NewIndex()
	for _, ns := range c.namespaces {
		x.SetNamespace(ns, true)
	}
	for _, svc := range c.services {
		var of []*discoveryv1.EndpointSlice
		for _, s := range c.slices {
			if s.Namespace == svc.Namespace && s.Labels[discoveryv1.LabelServiceName] == svc.Name {
				of = append(of, s)
			}
		}
		x.Set(api.KeyOf(svc), svc, of)
	}
	return &knarr.Zone{Origin: "cluster.local.", Index: x, Reverse: knarr.ReverseZones([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"),
		netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:96::/112"), netip.MustParsePrefix("fd00:244::/32")})}
}

// ---- CoreDNS' side

func (c *cluster) coreDNS(t *testing.T) *coredns.Kubernetes {
	t.Helper()
	controller := caddy.NewTestController("dns", "kubernetes cluster.local in-addr.arpa ip6.arpa {\n pods insecure\n}")
	controller.Next()
	k, err := coredns.ParseStanza(controller)
	if err != nil {
		t.Fatal(err)
	}
	k.APIConn, k.Upstream = newStore(t, c), noUpstream{}
	return k
}

// noUpstream knows no name.
type noUpstream struct{}

func (noUpstream) Lookup(context.Context, request.Request, string, uint16) (*dns.Msg, error) {
	return new(dns.Msg), nil
}

// store is CoreDNS' view of the cluster.
type store struct {
	namespaces map[string]*object.Namespace
	services   []*object.Service
	endpoints  []*object.Endpoints
}

func newStore(t *testing.T, c *cluster) *store {
	t.Helper()
	s := &store{namespaces: map[string]*object.Namespace{}}
	for _, ns := range c.namespaces {
		s.namespaces[ns] = &object.Namespace{Name: ns}
	}
	for _, svc := range c.services {
		o, err := object.ToService(svc.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		s.services = append(s.services, o.(*object.Service))
	}
	for _, slice := range c.slices {
		o, err := object.EndpointSliceToEndpoints(slice.DeepCopy())
		if err != nil {
			t.Fatal(err)
		}
		s.endpoints = append(s.endpoints, o.(*object.Endpoints))
	}
	return s
}

func choose[T any](all []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), func(x T) bool { return !keep(x) })
}

func (s *store) ServiceList() []*object.Service             { return s.services }
func (s *store) EndpointsList() []*object.Endpoints         { return s.endpoints }
func (s *store) ServiceImportList() []*object.ServiceImport { return nil }
func (s *store) SvcIndex(key string) []*object.Service {
	return choose(s.services, func(o *object.Service) bool { return o.Index == strings.ToLower(key) })
}

func (s *store) SvcIndexReverse(ip string) []*object.Service {
	return choose(s.services, func(o *object.Service) bool { return slices.Contains(o.ClusterIPs, ip) })
}
func (s *store) SvcExtIndexReverse(string) []*object.Service      { return nil }
func (s *store) SvcImportIndex(string) []*object.ServiceImport    { return nil }
func (s *store) PodIndex(string) []*object.Pod                    { return nil }
func (s *store) McEpIndex(string) []*object.MultiClusterEndpoints { return nil }
func (s *store) EpIndex(key string) []*object.Endpoints {
	return choose(s.endpoints, func(o *object.Endpoints) bool { return o.Index == strings.ToLower(key) })
}

func (s *store) EpIndexReverse(ip string) []*object.Endpoints {
	return choose(s.endpoints, func(o *object.Endpoints) bool { return slices.Contains(o.IndexIP, ip) })
}

func (s *store) GetNodeByName(context.Context, string) (*corev1.Node, error) {
	return nil, fmt.Errorf("there are no nodes")
}

func (s *store) GetNamespaceByName(name string) (*object.Namespace, error) {
	if ns := s.namespaces[strings.ToLower(name)]; ns != nil {
		return ns, nil
	}
	return nil, fmt.Errorf("namespace %s is not there", name)
}
func (s *store) Run()                                {}
func (s *store) HasSynced() bool                     { return true }
func (s *store) Stop() error                         { return nil }
func (s *store) Modified(coredns.ModifiedMode) int64 { return 1 }

// ask asks CoreDNS.
func ask(t *testing.T, k *coredns.Kubernetes, q dns.Question) string {
	t.Helper()
	m := new(dns.Msg)
	m.Question = []dns.Question{q}
	w := &writer{}
	code, err := k.ServeDNS(t.Context(), w, m)
	if err != nil {
		t.Fatalf("CoreDNS on %v: %v", q, err)
	}
	if w.msg == nil {
		return text(code, nil, nil)
	}
	return text(w.msg.Rcode, w.msg.Answer, w.msg.Extra)
}

// writer keeps the answer.
type writer struct {
	dns.ResponseWriter
	msg *dns.Msg
}

func (w *writer) WriteMsg(m *dns.Msg) error { w.msg = m; return nil }
func (w *writer) RemoteAddr() net.Addr      { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 53} }
func (w *writer) LocalAddr() net.Addr       { return &net.UDPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 53} }
