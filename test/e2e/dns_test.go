package e2e

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// clusterDNS is where pods ask, and the node can.
const clusterDNS = "10.96.0.10:53"

// lookUp returns what the cluster's DNS answers to a query, sorted, without TTLs: "A 10.96.0.1".
func lookUp(network, name string, qtype uint16) (answers []string, rcode string, err error) {
	c := &dns.Client{Net: network, Timeout: 2 * time.Second}
	m := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	r, _, err := c.Exchange(m, clusterDNS)
	if err != nil {
		return nil, "", err
	}
	for _, rr := range r.Answer {
		h := rr.Header()
		answers = append(answers, dns.TypeToString[h.Rrtype]+" "+strings.TrimSpace(strings.TrimPrefix(rr.String(), h.String())))
	}
	slices.Sort(answers)
	return answers, dns.RcodeToString[r.Rcode], nil
}

// https://github.com/kubernetes/dns/blob/master/docs/specification.md
func TestServiceNames(t *testing.T) {
	t.Parallel()
	member := func(name string, more string) string {
		return fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s, labels: {app: members}}
spec:
  hostname: %[1]s
  subdomain: members
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: "docker.io/library/busybox:1", command: [sleep, "3600"]%s}
`, name, more)
	}
	ns := rollOut(t, web, nodePort, member("one", ""), member("two", ""),
		member("late", `, readinessProbe: {exec: {command: ["false"]}}`), `
apiVersion: v1
kind: Service
metadata: {name: members}
spec:
  clusterIP: None
  selector: {app: members}
  ports: [{name: db, port: 5432}]
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {type: ExternalName, externalName: www.example.org}
`)
	upstream(t)
	kubectl(t, "-n", ns, "wait", "pod/one", "pod/two", "--for=condition=Ready", "--timeout=60s")
	ip := service(t, ns, "web").Spec.ClusterIP
	one, two := podIP(t, ns, "one"), podIP(t, ns, "two")
	zone := "." + ns + ".svc.cluster.local"
	sorted := func(s ...string) []string { slices.Sort(s); return s }

	for _, q := range []struct {
		name  string
		qtype uint16
		want  []string
		rcode string
	}{
		{"web" + zone, dns.TypeA, []string{"A " + ip}, "NOERROR"},
		{"WEB" + zone, dns.TypeA, []string{"A " + ip}, "NOERROR"},
		{"web" + zone, dns.TypeAAAA, nil, "NOERROR"},
		{"_http._tcp.web" + zone, dns.TypeSRV, []string{"SRV 0 100 80 web" + zone + "."}, "NOERROR"},
		{"_udp._udp.web" + zone, dns.TypeSRV, []string{"SRV 0 100 80 web" + zone + "."}, "NOERROR"},
		{"_nosuch._tcp.web" + zone, dns.TypeSRV, nil, "NXDOMAIN"},
		{reverse(ip), dns.TypePTR, []string{"PTR web" + zone + "."}, "NOERROR"},
		{"members" + zone, dns.TypeA, sorted("A "+one, "A "+two), "NOERROR"},
		{"one.members" + zone, dns.TypeA, []string{"A " + one}, "NOERROR"},
		{"late.members" + zone, dns.TypeA, nil, "NXDOMAIN"},
		{"_db._tcp.members" + zone, dns.TypeSRV, []string{"SRV 0 50 5432 one.members" + zone + ".", "SRV 0 50 5432 two.members" + zone + "."}, "NOERROR"},
		{reverse(one), dns.TypePTR, []string{"PTR one.members" + zone + "."}, "NOERROR"},
		{"nosuch" + zone, dns.TypeA, nil, "NXDOMAIN"},
		{"kubernetes.default.svc.cluster.local", dns.TypeA, []string{"A 10.96.0.1"}, "NOERROR"},
		{"dns-version.cluster.local", dns.TypeTXT, []string{`TXT "1.1.0"`}, "NOERROR"},
		{strings.ReplaceAll(one, ".", "-") + "." + ns + ".pod.cluster.local", dns.TypeA, []string{"A " + one}, "NOERROR"},
		{"far" + zone, dns.TypeA, []string{"A 198.51.100.80", "CNAME www.example.org."}, "NOERROR"},
		{"www.example.org", dns.TypeA, []string{"A 198.51.100.80"}, "NOERROR"},
		{"nosuch.example.org", dns.TypeA, nil, "NXDOMAIN"},
	} {
		for _, network := range []string{"udp", "tcp"} {
			eventually(t, 5*time.Second, fmt.Sprintf("%s %s by %s", dns.TypeToString[q.qtype], q.name, network), func() error {
				got, rcode, err := lookUp(network, q.name, q.qtype)
				if err != nil {
					return err
				}
				if !slices.Equal(got, q.want) || rcode != q.rcode {
					return fmt.Errorf("got %q %s, want %q %s", got, rcode, q.want, q.rcode)
				}
				return nil
			})
		}
	}

	// As programs in pods use names: by the search path, with the C library and with busybox's own resolver.
	for _, host := range []string{"web", "web." + ns, "web." + ns + ".svc", "web" + zone, "web" + zone + "."} {
		mustSay(t, "http://"+host, "v1 web-", func() (string, error) { return wget(ns, "http://"+host+"/") })
	}
	for name, want := range map[string]string{"members" + zone: one, "www.example.org": "198.51.100.80", ip: "web" + zone} {
		out := kubectl(t, "-n", ns, "exec", "client", "--", "nslookup", name)
		if !strings.Contains(out, want) {
			t.Errorf("nslookup %s does not say %s:\n%s", name, want, out)
		}
	}
	if out := kubectl(t, "-n", ns, "exec", "one", "--", "hostname", "-f"); strings.TrimSpace(out) != "one.members"+zone {
		t.Errorf("hostname -f says %q", out)
	}

	// A member that goes away is forgotten.
	kubectl(t, "-n", ns, "delete", "pod", "one")
	eventually(t, 5*time.Second, "a deleted pod is no member any more", func() error {
		got, _, err := lookUp("udp", "members"+zone, dns.TypeA)
		if err == nil && !slices.Equal(got, []string{"A " + two}) {
			err = fmt.Errorf("members are %q", got)
		}
		return err
	})
}

func reverse(ip string) string {
	name, err := dns.ReverseAddr(ip)
	if err != nil {
		panic(err)
	}
	return name
}

// upstream serves example.org in the world outside, where the cluster's DNS asks for what it does not know.
func upstream(t testing.TB) {
	t.Helper()
	var packets net.PacketConn
	var listener net.Listener
	var err error
	outside(t, func() {
		packets, err = net.ListenPacket("udp4", outsideAddr+":53")
		if err == nil {
			listener, err = net.Listen("tcp4", outsideAddr+":53")
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	answer := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		m.RecursionAvailable = true
		if question := q.Question[0]; question.Name != "www.example.org." {
			m.Rcode = dns.RcodeNameError
		} else if question.Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 5}, A: net.IPv4(198, 51, 100, 80)}}
		}
		_ = w.WriteMsg(m) // the client asks again
	})
	ended := make(chan error, 2)
	servers := []*dns.Server{{PacketConn: packets, Handler: answer}, {Listener: listener, Handler: answer}}
	for _, s := range servers {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() { ended <- s.ActivateAndServe() }()
		<-started
	}
	t.Cleanup(func() {
		err := errors.Join(servers[0].Shutdown(), servers[1].Shutdown(), <-ended, <-ended)
		if err != nil {
			t.Errorf("the DNS server outside: %v", err)
		}
	})
}
