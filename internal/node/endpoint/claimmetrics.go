package endpoint

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// claimFigure is a figure of claims, as the kubelet's.
type claimFigure struct {
	desc  *prometheus.Desc
	value func(*kubelet.FsStats) *uint64
}

// claimMetrics collects the kubelet's figures of claims: kubelet_volume_stats_*
// (https://kubernetes.io/docs/reference/instrumentation/metrics/).
type claimMetrics struct {
	claims  *Claims
	figures []claimFigure
}

func newClaimMetrics(c *Claims) *claimMetrics {
	figure := func(name, help string, value func(*kubelet.FsStats) *uint64) claimFigure {
		return claimFigure{prometheus.NewDesc("kubelet_volume_stats_"+name, help, []string{"namespace", "persistentvolumeclaim"}, nil), value}
	}
	return &claimMetrics{c, []claimFigure{
		figure("capacity_bytes", "Capacity in bytes of the volume", func(s *kubelet.FsStats) *uint64 { return s.CapacityBytes }),
		figure("available_bytes", "Number of available bytes in the volume", func(s *kubelet.FsStats) *uint64 { return s.AvailableBytes }),
		figure("used_bytes", "Number of used bytes in the volume", func(s *kubelet.FsStats) *uint64 { return s.UsedBytes }),
		figure("inodes", "Maximum number of inodes in the volume", func(s *kubelet.FsStats) *uint64 { return s.Inodes }),
		figure("inodes_free", "Number of free inodes in the volume", func(s *kubelet.FsStats) *uint64 { return s.InodesFree }),
		figure("inodes_used", "Number of used inodes in the volume", func(s *kubelet.FsStats) *uint64 { return s.InodesUsed }),
	}}
}

// Describe implements prometheus.Collector.
func (m *claimMetrics) Describe(ch chan<- *prometheus.Desc) {
	for _, f := range m.figures {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector: one series for a claim, however many pods have it.
func (m *claimMetrics) Collect(ch chan<- prometheus.Metric) {
	seen := map[kubelet.PVCReference]bool{}
	for _, volumes := range m.claims.stats(context.Background(), time.Now()) {
		for i := range volumes {
			v := &volumes[i]
			if seen[*v.PVCRef] {
				continue
			}
			seen[*v.PVCRef] = true
			for _, f := range m.figures {
				ch <- prometheus.MustNewConstMetric(f.desc, prometheus.GaugeValue, float64(*f.value(&v.FsStats)), v.PVCRef.Namespace, v.PVCRef.Name)
			}
		}
	}
}
