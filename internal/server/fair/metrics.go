package fair

import (
	"sync"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// prefix begins the names of all figures, which are Kubernetes' (https://kubernetes.io/docs/reference/instrumentation/metrics/).
const prefix = "apiserver_flowcontrol_"

// metrics are the figures that are counted as requests come by. What can be read when somebody asks stands in gauges.go.
type metrics struct {
	rejected, dispatched *prometheus.CounterVec
	waited, executed     *prometheus.HistogramVec
	width, length        *prometheus.HistogramVec
	all                  []prometheus.Collector
}

func newMetrics() *metrics {
	seconds := []float64{0, .005, .02, .05, .1, .2, .5, 1, 2, 5, 10, 15, 30}
	labels := func(more ...string) []string { return append([]string{"priority_level", "flow_schema"}, more...) }
	counter := func(name, help string, labels []string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, labels)
	}
	histogram := func(name, help string, buckets []float64, labels []string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: prefix + name, Help: help, Buckets: buckets}, labels)
	}
	m := &metrics{
		rejected:   counter("rejected_requests_total", "Requests that were refused, by why.", labels("reason")),
		dispatched: counter("dispatched_requests_total", "Requests that were served.", labels()),
		waited:     histogram("request_wait_duration_seconds", "How long requests waited in their queues.", seconds, labels("execute")),
		executed:   histogram("request_execution_seconds", "How long requests were served, and watches begun.", seconds, labels("type")),
		width:      histogram("work_estimated_seats", "How many seats requests take.", []float64{1, 2, 4, 8, 16, 32, 64, 100}, labels()),
		length: histogram("request_queue_length_after_enqueue", "How many requests a request found in its queue, with itself.",
			[]float64{0, 10, 25, 50, 100, 250, 500, 1000}, labels()),
	}
	m.all = []prometheus.Collector{m.rejected, m.dispatched, m.waited, m.executed, m.width, m.length}
	return m
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	for _, c := range m.all {
		c.Describe(to)
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, c := range m.all {
		c.Collect(to)
	}
}

// pair is a schema and the level to which it refers.
type pair struct{ level, schema string }

// figures are those of the requests of one schema, found once. A series begins with its first request.
type figures struct {
	executing, executingSeats, waiting, waitingSeats atomic.Int64

	dispatched      func() prometheus.Counter
	width, length   func() prometheus.Observer
	served, refused func() prometheus.Observer // by whether a request that waited was served
	regular, watch  func() prometheus.Observer
	rejected        func(reason string) prometheus.Counter
}

// figuresOf returns the figures of a schema. Fairness.mu is held.
func (f *Fairness) figuresOf(level, name string) *figures {
	p := pair{level, name}
	if m := f.pairs[p]; m != nil {
		return m
	}
	observer := func(v *prometheus.HistogramVec, more ...string) func() prometheus.Observer {
		return sync.OnceValue(func() prometheus.Observer { return v.WithLabelValues(append([]string{level, name}, more...)...) })
	}
	v := f.metrics
	m := &figures{
		dispatched: sync.OnceValue(func() prometheus.Counter { return v.dispatched.WithLabelValues(level, name) }),
		width:      observer(v.width), length: observer(v.length),
		served: observer(v.waited, "true"), refused: observer(v.waited, "false"),
		regular: observer(v.executed, "regular"), watch: observer(v.executed, "watch"),
		rejected: func(reason string) prometheus.Counter { return v.rejected.WithLabelValues(level, name, reason) },
	}
	f.pairs[p] = m
	return m
}

// forget removes the figures of a schema that is no longer there.
func (m *metrics) forget(p pair) {
	labels := prometheus.Labels{"priority_level": p.level, "flow_schema": p.schema}
	m.rejected.DeletePartialMatch(labels)
	m.dispatched.DeletePartialMatch(labels)
	for _, h := range []*prometheus.HistogramVec{m.waited, m.executed, m.width, m.length} {
		h.DeletePartialMatch(labels)
	}
}
