package endpoint

import (
	"net/http"
	goruntime "runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// ownMetrics are the agent's own figures, and those of its process.
func (e *Endpoint) ownMetrics() http.Handler {
	reg := prometheus.NewRegistry()
	gauge := func(name, help string, labels prometheus.Labels, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	gauge("kubelet_node_name", "The node's name. The count is always 1.", prometheus.Labels{"node": e.Node}, func() float64 { return 1 })
	gauge("kubernetes_build_info", "The version, with a constant value of 1.",
		prometheus.Labels{"git_version": e.Version, "go_version": goruntime.Version(), "platform": goruntime.GOOS + "/" + goruntime.GOARCH}, func() float64 { return 1 })
	gauge("kubelet_desired_pods", "Number of pods that the node is to run.", nil, func() float64 { return float64(len(e.Pods.All())) })
	gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox.", nil, func() float64 { p, _ := e.running(); return float64(p) })
	for state, name := range map[lifecycle.State]string{lifecycle.Running: "running", lifecycle.Exited: "exited", lifecycle.Created: "created", lifecycle.Unknown: "unknown"} {
		gauge("kubelet_running_containers", "Number of containers by state.", prometheus.Labels{"container_state": name}, func() float64 { _, c := e.running(); return float64(c[state]) })
	}
	if e.Claims != nil {
		reg.MustRegister(newClaimMetrics(e.Claims))
	}
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	all := prometheus.Gatherers{reg}
	if e.Metrics != nil {
		all = append(all, e.Metrics)
	}
	return promhttp.HandlerFor(all, promhttp.HandlerOpts{})
}

// running counts pods with a sandbox, and containers by state.
func (e *Endpoint) running() (pods int, containers map[lifecycle.State]int) {
	containers = map[lifecycle.State]int{}
	for _, w := range e.Pods.All() {
		obs := w.Seen()
		if sb := obs.Sandbox(); sb != nil && sb.Ready {
			pods++
		}
		for i := range obs.Containers {
			containers[obs.Containers[i].State]++
		}
	}
	return pods, containers
}
