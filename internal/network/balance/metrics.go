package balance

import (
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/knarr-io/knarr/internal/network/nft"
)

// metrics are kube-proxy's, with its names, labels and buckets, so that dashboards and alerts made for it work.
type metrics struct {
	sync, full, partial, programming *prometheus.HistogramVec
	synced, queued, noLocal          *prometheus.GaugeVec
	failures, cleanupFailures        *prometheus.CounterVec
	services, slices                 prometheus.Counter
	servicesPending, slicesPending   prometheus.Gauge
}

// programmingBuckets are those of the service level objective: 0.25 s to five minutes.
func programmingBuckets() []float64 {
	return slices.Concat(prometheus.LinearBuckets(0.25, 0.25, 2), prometheus.LinearBuckets(1, 1, 59),
		prometheus.LinearBuckets(60, 5, 12), prometheus.LinearBuckets(120, 30, 7))
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	histogram := func(name, help string, buckets []float64) *prometheus.HistogramVec {
		return auto.NewHistogramVec(prometheus.HistogramOpts{Name: "kubeproxy_" + name, Help: help, Buckets: buckets}, []string{"ip_family"})
	}
	gauge := func(name, help string, labels ...string) *prometheus.GaugeVec {
		return auto.NewGaugeVec(prometheus.GaugeOpts{Name: "kubeproxy_" + name, Help: help}, append(labels, "ip_family"))
	}
	counter := func(name, help string) *prometheus.CounterVec {
		return auto.NewCounterVec(prometheus.CounterOpts{Name: "kubeproxy_" + name, Help: help}, []string{"ip_family"})
	}
	seen := func(of string) (prometheus.Counter, prometheus.Gauge) {
		return auto.NewCounter(prometheus.CounterOpts{Name: "kubeproxy_sync_proxy_rules_" + of + "_changes_total", Help: "Changes seen since the start."}),
			auto.NewGauge(prometheus.GaugeOpts{Name: "kubeproxy_sync_proxy_rules_" + of + "_changes_pending", Help: "Changes that the rules do not have yet."})
	}
	steps := prometheus.ExponentialBuckets(0.001, 2, 15)
	m := &metrics{
		sync:            histogram("sync_proxy_rules_duration_seconds", "How long planning and writing changed rules took.", steps),
		full:            histogram("sync_full_proxy_rules_duration_seconds", "The same where all rules were written.", steps),
		partial:         histogram("sync_partial_proxy_rules_duration_seconds", "The same where only changes were written.", steps),
		programming:     histogram("network_programming_duration_seconds", "From the change of a pod or Service to the rules that have it.", programmingBuckets()),
		synced:          gauge("sync_proxy_rules_last_timestamp_seconds", "When rules were written last."),
		queued:          gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When a change that needs rules was seen last."),
		noLocal:         gauge("sync_proxy_rules_no_local_endpoints_total", "Services with a Local traffic policy and no endpoint on this node.", "traffic_policy"),
		failures:        counter("sync_proxy_rules_nftables_sync_failures_total", "Transactions that the kernel refused."),
		cleanupFailures: counter("sync_proxy_rules_nftables_cleanup_failures_total", "Deletions of unused chains that the kernel refused."),
	}
	m.services, m.servicesPending = seen("service")
	m.slices, m.slicesPending = seen("endpoint")
	return m
}

// familyLabel is the family as Kubernetes writes it.
func familyLabel(f nft.Family) string {
	if f == nft.IPv6 {
		return "IPv6"
	}
	return "IPv4"
}

// seen counts a batch of events.
func (m *metrics) seen(c change) {
	switch c.watch {
	case watchServices:
		m.services.Add(float64(c.events))
		m.servicesPending.Add(float64(c.events))
	case watchSlices:
		m.slices.Add(float64(c.events))
		m.slicesPending.Add(float64(c.events))
	}
}

// wrote records one step of a family, which began at start.
func (m *metrics) wrote(f nft.Family, full bool, start time.Time, err error) {
	family, took := familyLabel(f), time.Since(start).Seconds()
	m.sync.WithLabelValues(family).Observe(took)
	if full {
		m.full.WithLabelValues(family).Observe(took)
	} else {
		m.partial.WithLabelValues(family).Observe(took)
	}
	if err != nil {
		m.failures.WithLabelValues(family).Inc()
		return
	}
	m.synced.WithLabelValues(family).SetToCurrentTime()
}

// programmed records that the kernel has the changes of pods and Services that happened at triggers.
func (m *metrics) programmed(f nft.Family, triggers []time.Time) {
	for _, t := range triggers {
		m.programming.WithLabelValues(familyLabel(f)).Observe(time.Since(t).Seconds())
	}
}
