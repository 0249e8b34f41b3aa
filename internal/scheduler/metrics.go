package scheduler

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// Metrics are kube-scheduler's, with its names, labels and buckets, so that dashboards and alerts made for it work. They outlive a
// Scheduler: a server that leads again goes on counting.
type Metrics struct {
	pending           *prometheus.GaugeVec
	attempts          *prometheus.CounterVec
	attemptDuration   *prometheus.HistogramVec
	algorithmDuration prometheus.Histogram
	sliDuration       *prometheus.HistogramVec
	podAttempts       prometheus.Histogram
	preemptions       prometheus.Counter
	victims           prometheus.Histogram
}

// The results of an attempt.
const (
	resultScheduled     = "scheduled"
	resultUnschedulable = "unschedulable"
	resultError         = "error"
)

// NewMetrics registers the metrics with reg; nil registers them nowhere.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	auto := promauto.With(reg)
	return &Metrics{
		pending: auto.NewGaugeVec(prometheus.GaugeOpts{Name: "scheduler_pending_pods",
			Help: "Pods without a node, by the queue they are in: active, backoff, unschedulable (waiting for something to change) or gated."}, []string{"queue"}),
		attempts: auto.NewCounterVec(prometheus.CounterOpts{Name: "scheduler_schedule_attempts_total",
			Help: "Attempts to schedule pods, by result: scheduled, unschedulable, or error where the binding failed."}, []string{"result", "profile"}),
		attemptDuration: auto.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_scheduling_attempt_duration_seconds",
			Help: "How long an attempt took, with the binding.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}, []string{"result", "profile"}),
		algorithmDuration: auto.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_scheduling_algorithm_duration_seconds",
			Help: "How long the decision about a pod took, the mean of its batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 15)}),
		sliDuration: auto.NewHistogramVec(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_sli_duration_seconds",
			Help: "From when a pod came into the queue until it was bound, by the number of attempts.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 20)}, []string{"attempts"}),
		podAttempts: auto.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_pod_scheduling_attempts",
			Help: "How many attempts it took to schedule a pod.", Buckets: prometheus.ExponentialBuckets(1, 2, 5)}),
		preemptions: auto.NewCounter(prometheus.CounterOpts{Name: "scheduler_preemption_attempts_total", Help: "Preemptions so far."}),
		victims: auto.NewHistogram(prometheus.HistogramOpts{Name: "scheduler_preemption_victims",
			Help: "Pods chosen as victims of one preemption.", Buckets: prometheus.ExponentialBuckets(1, 2, 7)}),
	}
}

// queued notes how many pods wait where.
func (m *Metrics) queued(q *queue, gated int) {
	m.pending.WithLabelValues("active").Set(float64(len(q.active)))
	m.pending.WithLabelValues("backoff").Set(float64(len(q.backoff)))
	m.pending.WithLabelValues("unschedulable").Set(float64(len(q.aside)))
	m.pending.WithLabelValues("gated").Set(float64(gated))
}

// decided notes a batch of n decisions that took so long in all.
func (m *Metrics) decided(n int, took time.Duration) {
	each := took.Seconds() / float64(n)
	for range n {
		m.algorithmDuration.Observe(each)
	}
}

// rejected notes a pod that was not placed.
func (m *Metrics) rejected(profile string, why *placement.Rejection, took time.Duration) {
	m.attempts.WithLabelValues(resultUnschedulable, profile).Inc()
	m.attemptDuration.WithLabelValues(resultUnschedulable, profile).Observe(took.Seconds())
	if len(why.Victims) > 0 {
		m.preemptions.Inc()
		m.victims.Observe(float64(len(why.Victims)))
	}
}

// landed notes what became of a binding, at now.
func (m *Metrics) landed(profile string, f *flight, err error, now time.Time) {
	result := resultScheduled
	if err != nil {
		result = resultError
	}
	m.attempts.WithLabelValues(result, profile).Inc()
	m.attemptDuration.WithLabelValues(result, profile).Observe(now.Sub(f.began).Seconds())
	if err != nil {
		return
	}
	attempts := "16+"
	if f.attempts < 16 {
		attempts = strconv.Itoa(f.attempts)
	}
	m.sliDuration.WithLabelValues(attempts).Observe(now.Sub(f.entered).Seconds())
	m.podAttempts.Observe(float64(f.attempts))
}
