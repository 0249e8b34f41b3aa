package manifests

import "github.com/prometheus/client_golang/prometheus"

// metrics are the figures of manifests, under Kubernetes' names.
type metrics struct {
	reloads    *prometheus.CounterVec
	last, info *prometheus.GaugeVec
}

func newMetrics() *metrics {
	const prefix = "apiserver_manifest_admission_config_controller_"
	labels := []string{"status", "plugin", "apiserver_id_hash"}
	return &metrics{
		reloads: prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + "automatic_reloads_total",
			Help: "How often admission manifests were read anew, by what came of it."}, labels),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "automatic_reload_last_timestamp_seconds",
			Help: "When admission manifests were last read anew, by what came of it."}, labels),
		info: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: prefix + "last_config_info",
			Help: "The hash of the admission manifests that are in force."}, []string{"plugin", "apiserver_id_hash", "hash"}),
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	m.reloads.Describe(to)
	m.last.Describe(to)
	m.info.Describe(to)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	m.reloads.Collect(to)
	m.last.Collect(to)
	m.info.Collect(to)
}

func (m *metrics) loaded(plugin, server, hash string) {
	m.reloads.WithLabelValues("success", plugin, server).Inc()
	m.last.WithLabelValues("success", plugin, server).SetToCurrentTime()
	m.info.DeletePartialMatch(prometheus.Labels{"plugin": plugin})
	m.info.WithLabelValues(plugin, server, hash).Set(1)
}

func (m *metrics) refused(plugin, server string) {
	m.reloads.WithLabelValues("failure", plugin, server).Inc()
	m.last.WithLabelValues("failure", plugin, server).SetToCurrentTime()
}
