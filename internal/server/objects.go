package server

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// objectCounts is how many objects of each resource there are.
type objectCounts struct{ registry *registry.Registry }

func (objectCounts) desc() *prometheus.Desc {
	return prometheus.NewDesc("apiserver_resource_objects", "Number of stored objects by resource.", []string{"group", "resource"}, nil)
}

// Describe implements prometheus.Collector.
func (o objectCounts) Describe(to chan<- *prometheus.Desc) { to <- o.desc() }

// Collect implements prometheus.Collector.
func (o objectCounts) Collect(to chan<- prometheus.Metric) {
	desc := o.desc()
	for _, res := range api.Builtin {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(o.registry.Count(res)), res.Group, res.Plural)
	}
}
