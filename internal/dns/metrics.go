package dns

import (
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are CoreDNS', with its names, labels and buckets, so that dashboards and alerts made for it work.
type metrics struct {
	server string // label of the first address

	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	reqBytes  *prometheus.HistogramVec
	respBytes *prometheus.HistogramVec
	wanted    *prometheus.CounterVec // with DNSSEC records
	responses *prometheus.CounterVec

	cacheRequests, cacheMisses, cacheHits *prometheus.CounterVec
	upstream                              *prometheus.HistogramVec
	rejected                              prometheus.Counter
}

// origin is whom an answer comes from, by the names of CoreDNS' plugins.
type origin struct{ zone, plugin string }

const (
	fromCluster = "kubernetes"
	fromCache   = "cache"
	fromForward = "forward"
	// rootZone is that of what is asked upstream.
	rootZone = "."
)

func newMetrics(reg prometheus.Registerer, listen []netip.AddrPort, c *cache) *metrics {
	auto := promauto.With(reg)
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: "coredns_" + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels ...string) *prometheus.HistogramVec {
		return auto.NewHistogramVec(prometheus.HistogramOpts{Name: "coredns_" + name, Help: help, Buckets: buckets}, labels)
	}
	times := prometheus.ExponentialBuckets(0.00025, 2, 16)
	sizes := []float64{0, 100, 200, 300, 400, 511, 1023, 2047, 4095, 8291, 16e3, 32e3, 48e3, 64e3}
	m := &metrics{
		server:    "dns://" + listen[0].String(),
		requests:  counter("dns_requests_total", "Questions.", "server", "zone", "view", "proto", "family", "type"),
		seconds:   histogram("dns_request_duration_seconds", "How long answers took.", times, "server", "zone", "view"),
		reqBytes:  histogram("dns_request_size_bytes", "Size of answers that clients take (64K over TCP).", sizes, "server", "zone", "view", "proto"),
		respBytes: histogram("dns_response_size_bytes", "Size of answers.", sizes, "server", "zone", "view", "proto"),
		wanted:    counter("dns_do_requests_total", "Questions with the DO bit.", "server", "zone", "view"),
		responses: counter("dns_responses_total", "Answers.", "server", "zone", "view", "rcode", "plugin"),

		cacheRequests: counter("cache_requests_total", "Questions to the cache.", "server", "zones", "view"),
		cacheMisses:   counter("cache_misses_total", "Questions that the cache has no answer to.", "server", "zones", "view"),
		cacheHits:     counter("cache_hits_total", "Questions answered from the cache.", "server", "type", "zones", "view"),
		upstream:      histogram("proxy_request_duration_seconds", "How long upstream servers took.", times, "proxy_name", "to", "rcode"),
		rejected: auto.NewCounter(prometheus.CounterOpts{Name: "coredns_forward_max_concurrent_rejects_total",
			Help: "Questions refused because too many were waiting for upstream servers."}),
	}
	for denial, kind := range map[bool]string{false: "success", true: "denial"} {
		auto.NewGaugeFunc(prometheus.GaugeOpts{Name: "coredns_cache_entries", Help: "Answers in the cache.",
			ConstLabels: prometheus.Labels{"server": m.server, "type": kind, "zones": rootZone, "view": ""}}, func() float64 { return float64(c.entries(denial)) })
	}
	return m
}

// answered counts a question that came at start, and its answer.
func (m *metrics) answered(req, resp *dns.Msg, by origin, client net.Addr, start time.Time) {
	proto, family, size := "tcp", "1", dns.MaxMsgSize
	if udp, ok := client.(*net.UDPAddr); ok {
		proto, size = "udp", dns.MinMsgSize
		if udp.IP.To4() == nil {
			family = "2"
		}
	} else if tcp, ok := client.(*net.TCPAddr); ok && tcp.IP.To4() == nil {
		family = "2"
	}
	opt := req.IsEdns0()
	if opt != nil && proto == "udp" {
		size = int(opt.UDPSize())
	}
	m.requests.WithLabelValues(m.server, by.zone, "", proto, family, typeLabel(req)).Inc()
	m.seconds.WithLabelValues(m.server, by.zone, "").Observe(time.Since(start).Seconds())
	m.reqBytes.WithLabelValues(m.server, by.zone, "", proto).Observe(float64(size))
	m.respBytes.WithLabelValues(m.server, by.zone, "", proto).Observe(float64(resp.Len()))
	m.responses.WithLabelValues(m.server, by.zone, "", rcodeLabel(resp.Rcode), by.plugin).Inc()
	if opt != nil && opt.Do() {
		m.wanted.WithLabelValues(m.server, by.zone, "").Inc()
	}
}

// typeLabel is the type asked for, or "other": clients must not be able to make series.
func typeLabel(req *dns.Msg) string {
	if len(req.Question) != 1 {
		return "other"
	}
	switch t := req.Question[0].Qtype; t {
	case dns.TypeA, dns.TypeAAAA, dns.TypeCNAME, dns.TypeDNSKEY, dns.TypeDS, dns.TypeHTTPS, dns.TypeMX, dns.TypeNS, dns.TypeNSEC, dns.TypeNSEC3,
		dns.TypePTR, dns.TypeRRSIG, dns.TypeSOA, dns.TypeSRV, dns.TypeTXT, dns.TypeANY:
		return dns.TypeToString[t]
	}
	return "other"
}

func rcodeLabel(rcode int) string {
	if s, ok := dns.RcodeToString[rcode]; ok {
		return strings.ToUpper(s)
	}
	return "other"
}

// cached counts a question to the cache; a nil answer is a miss.
func (m *metrics) cached(answer *dns.Msg) {
	m.cacheRequests.WithLabelValues(m.server, rootZone, "").Inc()
	if answer == nil {
		m.cacheMisses.WithLabelValues(m.server, rootZone, "").Inc()
		return
	}
	kind := "success"
	if denies(answer) {
		kind = "denial"
	}
	m.cacheHits.WithLabelValues(m.server, kind, rootZone, "").Inc()
}

// asked records an upstream server's answer; a nil one is none.
func (m *metrics) asked(server netip.AddrPort, answer *dns.Msg, start time.Time) {
	rcode := "SERVFAIL"
	if answer != nil {
		rcode = rcodeLabel(answer.Rcode)
	}
	m.upstream.WithLabelValues(fromForward, server.String(), rcode).Observe(time.Since(start).Seconds())
}
