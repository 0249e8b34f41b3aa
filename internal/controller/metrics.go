package controller

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/util/workqueue"

	"github.com/knarr-io/knarr/internal/api"
)

// Metrics are the figures of the controllers' queues, under the names that kube-controller-manager gives them
// (https://kubernetes.io/docs/reference/instrumentation/metrics/). What lasts is measured when somebody asks: the measuring that comes with
// workqueue wakes up twice a second for every queue. It outlives a Runner, as a server may lead more than once.
type Metrics struct {
	adds, retries *prometheus.CounterVec
	waits, works  *prometheus.HistogramVec

	mu     sync.Mutex
	queues map[string]*measured
}

// NewMetrics returns Metrics without queues. It is a prometheus.Collector.
func NewMetrics() *Metrics {
	name := []string{"name"}
	buckets := prometheus.ExponentialBuckets(10e-9, 10, 10)
	return &Metrics{
		adds:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_adds_total", Help: "Keys that were put into the queue."}, name),
		retries: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "workqueue_retries_total", Help: "Keys that are to be looked at again, after a failure or later on."}, name),
		waits: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_queue_duration_seconds", Buckets: buckets,
			Help: "How long a key waited in the queue."}, name),
		works: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "workqueue_work_duration_seconds", Buckets: buckets,
			Help: "How long a key was worked on."}, name),
		queues: map[string]*measured{},
	}
}

// The gauges, which are made when somebody asks.
func depthDesc() *prometheus.Desc {
	return prometheus.NewDesc("workqueue_depth", "Keys that wait in the queue.", []string{"name"}, nil)
}

func unfinishedDesc() *prometheus.Desc {
	return prometheus.NewDesc("workqueue_unfinished_work_seconds", "How long the keys that are worked on now have been, all together.", []string{"name"}, nil)
}

func longestDesc() *prometheus.Desc {
	return prometheus.NewDesc("workqueue_longest_running_processor_seconds", "How long the key has been worked on that has been longest.", []string{"name"}, nil)
}

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(out chan<- *prometheus.Desc) {
	for _, c := range []prometheus.Collector{m.adds, m.retries, m.waits, m.works} {
		c.Describe(out)
	}
	out <- depthDesc()
	out <- unfinishedDesc()
	out <- longestDesc()
}

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(out chan<- prometheus.Metric) {
	for _, c := range []prometheus.Collector{m.adds, m.retries, m.waits, m.works} {
		c.Collect(out)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	depth, unfinished, longest := depthDesc(), unfinishedDesc(), longestDesc()
	for name, q := range m.queues {
		sum, most := q.unfinished(time.Now())
		out <- prometheus.MustNewConstMetric(depth, prometheus.GaugeValue, float64(q.Len()), name)
		out <- prometheus.MustNewConstMetric(unfinished, prometheus.GaugeValue, sum.Seconds(), name)
		out <- prometheus.MustNewConstMetric(longest, prometheus.GaugeValue, most.Seconds(), name)
	}
}

// queue returns a new queue of the controller called name, and a counter of its retries.
func (m *Metrics) queue(name string) (workqueue.TypedRateLimitingInterface[api.Key], prometheus.Counter) {
	q := &measured{
		TypedInterface: workqueue.NewTyped[api.Key](),
		adds:           m.adds.WithLabelValues(name), waits: m.waits.WithLabelValues(name), works: m.works.WithLabelValues(name),
		added: map[api.Key]time.Time{}, begun: map[api.Key]time.Time{},
	}
	m.mu.Lock()
	m.queues[name] = q
	m.mu.Unlock()
	limiter := workqueue.NewTypedItemExponentialFailureRateLimiter[api.Key](backOffFirst, backOffMax)
	delaying := workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[api.Key]{Queue: q})
	return workqueue.NewTypedRateLimitingQueueWithConfig(limiter, workqueue.TypedRateLimitingQueueConfig[api.Key]{DelayingQueue: delaying}),
		m.retries.WithLabelValues(name)
}

// measured is a queue that notes when keys come, are taken and are done with.
type measured struct {
	workqueue.TypedInterface[api.Key]
	adds         prometheus.Counter
	waits, works prometheus.Observer

	mu    sync.Mutex
	added map[api.Key]time.Time // since when a key waits
	begun map[api.Key]time.Time // since when it is worked on
}

// Add implements workqueue.TypedInterface. A key that waits already is not put in again.
func (q *measured) Add(key api.Key) {
	q.mu.Lock()
	if _, waits := q.added[key]; !waits {
		q.added[key] = time.Now()
		q.adds.Inc()
	}
	q.mu.Unlock()
	q.TypedInterface.Add(key)
}

// Get implements workqueue.TypedInterface.
func (q *measured) Get() (key api.Key, shutdown bool) {
	key, shutdown = q.TypedInterface.Get()
	if shutdown {
		return key, true
	}
	now := time.Now()
	q.mu.Lock()
	defer q.mu.Unlock()
	if since, ok := q.added[key]; ok {
		q.waits.Observe(now.Sub(since).Seconds())
		delete(q.added, key)
	}
	q.begun[key] = now
	return key, false
}

// Done implements workqueue.TypedInterface.
func (q *measured) Done(key api.Key) {
	q.mu.Lock()
	if since, ok := q.begun[key]; ok {
		q.works.Observe(time.Since(since).Seconds())
		delete(q.begun, key)
	}
	q.mu.Unlock()
	q.TypedInterface.Done(key)
}

// unfinished returns how long the keys that are worked on at now have been, all together and the longest.
func (q *measured) unfinished(now time.Time) (sum, most time.Duration) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, since := range q.begun {
		age := now.Sub(since)
		sum += age
		most = max(most, age)
	}
	return sum, most
}
