package server

import (
	"k8s.io/apimachinery/pkg/version"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/server/registry"
)

// built is a metric that says which version runs, as dashboards look for versions that differ.
func built(v version.Info) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "kubernetes_build_info", Help: "A metric with a constant 1, labelled by the version of the API and its build.",
		ConstLabels: prometheus.Labels{"major": v.Major, "minor": v.Minor, "git_version": v.GitVersion, "git_commit": v.GitCommit,
			"git_tree_state": v.GitTreeState, "build_date": v.BuildDate, "go_version": v.GoVersion, "compiler": v.Compiler, "platform": v.Platform},
	}, func() float64 { return 1 })
}

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
	for _, res := range o.registry.Served().Now().Stored() {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, float64(o.registry.Count(res)), res.Group, res.Plural)
	}
}
