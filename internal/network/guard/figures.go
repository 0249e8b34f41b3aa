package guard

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// Figures shows since when policies are in force on the node, and how many packets were dropped, as the kernel counts them: it asks when it
// is asked. What no policy of a pod lets pass is counted for each of them.
type Figures struct {
	guard   *Guard
	kernels []*Kernel

	mu     sync.Mutex
	last   map[guarded]uint64 // what the kernel said last
	totals map[about]uint64
}

// about is a policy in one direction.
type about struct {
	policy.Direction
	of api.Key
}

var (
	droppedOfPod = prometheus.NewDesc("knarr_network_policy_dropped_packets_total",
		"Packets that no policy of the pod let pass, by the direction of their connection as the pod sees it.", []string{"namespace", "pod", "direction"}, nil)
	droppedByPolicy = prometheus.NewDesc("knarr_network_policy_denied_packets_total",
		"Packets to and from pods of the node that the policy guards, which neither it nor another let pass, by the direction of their connection as the pod sees it.",
		[]string{"namespace", "policy", "direction"}, nil)
	inForceSince = prometheus.NewDesc("knarr_network_policy_in_force_since_seconds",
		"When the rules of the node's pods had the policy as it is now first, in Unix time: since Knarr was started, at the most.", []string{"namespace", "policy"}, nil)
	revisionInForce = prometheus.NewDesc("knarr_network_policy_revision",
		"The resourceVersion of the last change of a policy that is in force on the node.", nil, nil)
)

// NewFigures returns what shows the figures of g, read by kernels of its own.
func NewFigures(g *Guard, kernels ...*Kernel) *Figures {
	return &Figures{guard: g, kernels: kernels, last: map[guarded]uint64{}, totals: map[about]uint64{}}
}

// Describe implements prometheus.Collector.
func (f *Figures) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{droppedOfPod, droppedByPolicy, inForceSince, revisionInForce} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (f *Figures) Collect(to chan<- prometheus.Metric) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r, ok := f.guard.inForce()
	if !ok {
		return
	}
	to <- prometheus.MustNewConstMetric(revisionInForce, prometheus.GaugeValue, float64(r.revision))
	for key, since := range r.since {
		to <- prometheus.MustNewConstMetric(inForceSince, prometheus.GaugeValue, float64(since.UnixMilli())/1000, key.Namespace, key.Name)
	}
	sums := map[about]uint64{} // by pod: one may have an address of each family
	counts := f.counts()
	for at, n := range counts {
		if pod, known := r.pods[at.addr]; known {
			sums[about{at.Direction, pod}] += n
		}
	}
	for s, n := range sums {
		to <- prometheus.MustNewConstMetric(droppedOfPod, prometheus.CounterValue, float64(n), s.of.Namespace, s.of.Name, s.Direction.String())
	}
	f.add(counts, r)
	for s, n := range f.totals {
		to <- prometheus.MustNewConstMetric(droppedByPolicy, prometheus.CounterValue, float64(n), s.of.Namespace, s.of.Name, s.Direction.String())
	}
}

// counts asks the kernel.
func (f *Figures) counts() map[guarded]uint64 {
	out := map[guarded]uint64{}
	for _, k := range f.kernels {
		if exists, err := k.Exists(); err != nil || !exists {
			continue
		}
		for d := range policy.NumDirections {
			counts, err := k.Dropped(d)
			if err != nil {
				continue // there is no table at the moment
			}
			for addr, n := range counts {
				out[guarded{d, addr}] = n
			}
		}
	}
	return out
}

// add adds what was dropped since the last time to the policies that guard the addresses now, and forgets policies that are gone.
func (f *Figures) add(counts map[guarded]uint64, r report) {
	there := map[about]bool{}
	for at, policies := range r.guards {
		n := counts[at]
		if before := f.last[at]; before <= n {
			n -= before // else it was counted anew
		}
		for _, key := range policies {
			s := about{at.Direction, key}
			there[s] = true
			f.totals[s] += n
		}
	}
	for s := range f.totals {
		if !there[s] {
			delete(f.totals, s)
		}
	}
	f.last = counts
}
