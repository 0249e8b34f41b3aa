package space

import "github.com/prometheus/client_golang/prometheus"

func freeDesc() *prometheus.Desc {
	return prometheus.NewDesc("knarr_storage_free_bytes", "What the disk of the cluster's data has left.", nil, nil)
}

func readOnlyDesc() *prometheus.Desc {
	return prometheus.NewDesc("knarr_storage_read_only", "1 while writes are refused because the disk of the cluster's data is full, else 0.", nil, nil)
}

// Describe implements prometheus.Collector.
func (g *Guard) Describe(to chan<- *prometheus.Desc) { to <- freeDesc(); to <- readOnlyDesc() }

// Collect implements prometheus.Collector.
func (g *Guard) Collect(to chan<- prometheus.Metric) {
	readOnly := 0.0
	if g.look(lookAfter).Level != Ample {
		readOnly = 1
	}
	g.mu.Lock()
	free := float64(g.room.Free)
	g.mu.Unlock()
	to <- prometheus.MustNewConstMetric(freeDesc(), prometheus.GaugeValue, free)
	to <- prometheus.MustNewConstMetric(readOnlyDesc(), prometheus.GaugeValue, readOnly)
}
