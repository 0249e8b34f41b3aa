package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/stats"
)

// ServeNode answers what tools ask a kubelet on its port 10250 and only read. The node has no such port: the API server asks, on behalf
// of /api/v1/nodes/NAME/proxy/..., and has checked who may. /usage is what metrics.k8s.io is made of.
func (a *Agent) ServeNode(w http.ResponseWriter, r *http.Request) { a.endpoints().ServeHTTP(w, r) }

// newEndpoints routes them.
func (a *Agent) newEndpoints() http.Handler {
	mux := http.NewServeMux()
	handle := func(path string, f func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				endpointError(w, err)
			}
		})
	}
	text := func(w http.ResponseWriter, _ *http.Request) error {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok") // a client that went away has no use for the error
		return nil
	}
	handle("/healthz", text)
	handle("/healthz/ping", text)
	handle("/stats/summary", a.serveSummary)
	handle("/metrics/resource", a.serveResource)
	handle("/metrics/cadvisor", a.serveCadvisor)
	mux.Handle("GET /metrics", a.ownMetrics())
	handle("/pods", a.servePods)
	handle("/configz", a.serveConfig)
	handle("/containerLogs/{namespace}/{pod}/{container}", a.serveLog)
	handle("/usage/node", a.serveNodeUsage)
	handle("/usage/pods", a.servePodUsage)
	return mux
}

// endpointError answers in plain text, as the kubelet does.
func endpointError(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var st apierrors.APIStatus
	if errors.As(err, &st) {
		code = int(st.Status().Code)
	}
	http.Error(w, err.Error(), code)
}

func sendJSON(w http.ResponseWriter, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // a client that went away has no use for the error
	return nil
}

func (a *Agent) serveSummary(w http.ResponseWriter, r *http.Request) error {
	pair, err := a.stats.Rates(r.Context())
	if err != nil {
		return err
	}
	summary := stats.Rates(pair)
	if only, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory")); only {
		return sendJSON(w, stats.CPUAndMemory(summary))
	}
	a.addDisks(r.Context(), &summary, time.Now())
	return sendJSON(w, summary)
}

// sendMetrics answers in Prometheus' text form.
func sendMetrics(w http.ResponseWriter, write func(io.Writer) error) error {
	var b bytes.Buffer
	if err := write(&b); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes()) // as above
	return nil
}

func (a *Agent) serveResource(w http.ResponseWriter, r *http.Request) error {
	s, err := a.stats.Counters(r.Context())
	if err != nil {
		return err
	}
	return sendMetrics(w, func(out io.Writer) error { return stats.Resource(out, &s.Summary) })
}

func (a *Agent) serveCadvisor(w http.ResponseWriter, r *http.Request) error {
	s, err := a.stats.Counters(r.Context())
	if err != nil {
		return err
	}
	return sendMetrics(w, func(out io.Writer) error {
		return stats.Cadvisor(out, &s.Summary, a.capacity.Cpu().Value(), a.capacity.Memory().Value())
	})
}

func (a *Agent) serveNodeUsage(w http.ResponseWriter, r *http.Request) error {
	pair, err := a.stats.Rates(r.Context())
	if err != nil {
		return err
	}
	node := stats.NodeUsage(pair)
	if node == nil {
		return apierrors.NewServiceUnavailable("the machine's use of processor and memory is not known")
	}
	return sendJSON(w, node)
}

func (a *Agent) servePodUsage(w http.ResponseWriter, r *http.Request) error {
	pair, err := a.stats.Rates(r.Context())
	if err != nil {
		return err
	}
	return sendJSON(w, metrics.PodMetricsList{Items: stats.PodUsage(pair)})
}

func (a *Agent) servePods(w http.ResponseWriter, _ *http.Request) error {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, w := range a.allWorkers() {
		pod := *w.podNow()
		if last := w.lastStatus(); last != nil {
			pod.Status = *last
		}
		list.Items = append(list.Items, pod)
	}
	slices.SortFunc(list.Items, func(x, y corev1.Pod) int {
		return strings.Compare(x.Namespace+"/"+x.Name+"/"+string(x.UID), y.Namespace+"/"+y.Name+"/"+string(y.UID))
	})
	return sendJSON(w, list)
}

func (w *worker) lastStatus() *corev1.PodStatus {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// serveConfig shows the settings under the names that a kubelet's configuration has.
func (a *Agent) serveConfig(w http.ResponseWriter, _ *http.Request) error {
	c := &a.cfg
	return sendJSON(w, map[string]any{"kubeletconfig": map[string]any{
		"kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
		"clusterDNS": c.ClusterDNS, "clusterDomain": c.ClusterDomain, "resolvConf": c.ResolvConf, "maxPods": c.MaxPods,
		"cgroupRoot": c.CgroupRoot, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": true,
		"containerLogMaxSize": strconv.FormatInt(c.MaxLogSize, 10), "containerLogMaxFiles": c.MaxLogFiles,
		"imageGCHighThresholdPercent": c.ImageGCHigh, "imageGCLowThresholdPercent": c.ImageGCLow,
		"nodeStatusUpdateFrequency": c.HeartbeatInterval.String(), "nodeStatusReportFrequency": c.StatusInterval.String(),
		"nodeLeaseDurationSeconds": int(4 * c.HeartbeatInterval / time.Second),
	}})
}

// serveLog is the container's log, with the query parameters that the API has.
func (a *Agent) serveLog(w http.ResponseWriter, r *http.Request) error {
	opts := &corev1.PodLogOptions{Container: r.PathValue("container")}
	q := r.URL.Query()
	flag := func(name string) bool { v, _ := strconv.ParseBool(q.Get(name)); return v }
	opts.Follow, opts.Previous, opts.Timestamps = flag("follow"), flag("previous"), flag("timestamps")
	for name, into := range map[string]**int64{"tailLines": &opts.TailLines, "sinceSeconds": &opts.SinceSeconds, "limitBytes": &opts.LimitBytes} {
		if v := q.Get(name); v != "" {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return apierrors.NewBadRequest(fmt.Sprintf("%s=%q is not a number of at least 0", name, v))
			}
			*into = &n
		}
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	return a.Logs(r.Context(), api.Key{Namespace: r.PathValue("namespace"), Name: r.PathValue("pod")}, opts, flushing{w, http.NewResponseController(w)})
}

// flushing sends what is written at once, so that a log can be followed.
type flushing struct {
	w io.Writer
	c *http.ResponseController
}

func (f flushing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err == nil {
		_ = f.c.Flush() // where there is nothing to flush, it is sent at the end
	}
	return n, err
}

// ownMetrics are the agent's own figures, and those of its process.
func (a *Agent) ownMetrics() http.Handler {
	reg := prometheus.NewRegistry()
	gauge := func(name, help string, labels prometheus.Labels, f func() float64) {
		reg.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels}, f))
	}
	gauge("kubelet_node_name", "The node's name. The count is always 1.", prometheus.Labels{"node": a.cfg.NodeName}, func() float64 { return 1 })
	gauge("kubernetes_build_info", "The version, with a constant value of 1.",
		prometheus.Labels{"git_version": a.cfg.Version, "go_version": goruntime.Version(), "platform": goruntime.GOOS + "/" + goruntime.GOARCH}, func() float64 { return 1 })
	gauge("kubelet_desired_pods", "Number of pods that the node is to run.", nil, func() float64 { return float64(len(a.allWorkers())) })
	gauge("kubelet_running_pods", "Number of pods that have a running pod sandbox.", nil, func() float64 { p, _ := a.running(); return float64(p) })
	for state, name := range map[lifecycle.State]string{lifecycle.Running: "running", lifecycle.Exited: "exited", lifecycle.Created: "created", lifecycle.Unknown: "unknown"} {
		gauge("kubelet_running_containers", "Number of containers by state.", prometheus.Labels{"container_state": name}, func() float64 { _, c := a.running(); return float64(c[state]) })
	}
	reg.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{})
}

// running counts pods with a sandbox, and containers by state.
func (a *Agent) running() (pods int, containers map[lifecycle.State]int) {
	containers = map[lifecycle.State]int{}
	for _, w := range a.allWorkers() {
		obs := w.seen()
		if sb := obs.Sandbox(); sb != nil && sb.Ready {
			pods++
		}
		for i := range obs.Containers {
			containers[obs.Containers[i].State]++
		}
	}
	return pods, containers
}
