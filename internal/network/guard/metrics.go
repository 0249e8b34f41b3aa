package guard

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// metrics are the guard's figures.
type metrics struct {
	policies    prometheus.Gauge
	failures    prometheus.Counter
	writing     prometheus.Histogram
	programming prometheus.Histogram

	pods atomic.Pointer[map[netip.Addr]api.Key] // of this node, for [Drops]
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	steps := prometheus.ExponentialBuckets(0.0005, 2, 15)
	return &metrics{
		policies: auto.NewGauge(prometheus.GaugeOpts{Name: "knarr_network_policies", Help: "NetworkPolicies in force."}),
		failures: auto.NewCounter(prometheus.CounterOpts{Name: "knarr_network_policy_failures_total", Help: "Transactions that the kernel refused."}),
		writing: auto.NewHistogram(prometheus.HistogramOpts{Name: "knarr_network_policy_transaction_duration_seconds",
			Help: "How long writing changed rules took.", Buckets: steps}),
		programming: auto.NewHistogram(prometheus.HistogramOpts{Name: "knarr_network_policy_programming_duration_seconds",
			Help: "From the moment that a change of a policy, namespace or pod was heard of to the rules that have it.", Buckets: steps}),
	}
}

// wrote records one transaction, which began at start.
func (m *metrics) wrote(start time.Time, err error) {
	m.writing.Observe(time.Since(start).Seconds())
	if err != nil {
		m.failures.Inc()
	}
}

// show records what is in force, for whom.
func (m *metrics) show(policies int, attached map[netip.Addr]policy.Attachment) {
	m.policies.Set(float64(policies))
	if old := m.pods.Load(); old != nil && len(*old) == len(attached) {
		same := true
		for addr, a := range attached {
			same = same && (*old)[addr] == a.Pod
		}
		if same {
			return
		}
	}
	pods := make(map[netip.Addr]api.Key, len(attached))
	for addr, a := range attached {
		pods[addr] = a.Pod
	}
	m.pods.Store(&pods)
}

// Drops shows how many packets were dropped, by pod and direction, as the kernel counts them: it asks when it is asked.
type Drops struct {
	guard   *Guard
	mu      sync.Mutex
	kernels []*Kernel
}

var dropped = prometheus.NewDesc("knarr_network_policy_dropped_packets_total",
	"Packets that no policy of the pod let pass, by the direction of their connection as the pod sees it.", []string{"namespace", "pod", "direction"}, nil)

// NewDrops returns what shows the drops of g, read by kernels of its own.
func NewDrops(g *Guard, kernels ...*Kernel) *Drops { return &Drops{guard: g, kernels: kernels} }

// Describe implements prometheus.Collector.
func (d *Drops) Describe(to chan<- *prometheus.Desc) { to <- dropped }

// Collect implements prometheus.Collector.
func (d *Drops) Collect(to chan<- prometheus.Metric) {
	d.mu.Lock()
	defer d.mu.Unlock()
	pods := d.guard.metrics.pods.Load()
	if pods == nil {
		return
	}
	type series struct {
		pod       api.Key
		direction policy.Direction
	}
	sums := map[series]uint64{} // a pod may have an address of each family
	for _, k := range d.kernels {
		if exists, err := k.Exists(); err != nil || !exists {
			continue
		}
		for direction := range policy.NumDirections {
			counts, err := k.Dropped(direction)
			if err != nil {
				continue // there is no table at the moment
			}
			for addr, n := range counts {
				if pod, known := (*pods)[addr]; known {
					sums[series{pod, direction}] += n
				}
			}
		}
	}
	for s, n := range sums {
		to <- prometheus.MustNewConstMetric(dropped, prometheus.CounterValue, float64(n), s.pod.Namespace, s.pod.Name, s.direction.String())
	}
}
