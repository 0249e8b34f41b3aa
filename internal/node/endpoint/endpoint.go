package endpoint

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	corev1 "k8s.io/api/core/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/node/demand"
	"github.com/knarr-io/knarr/internal/node/diskuse"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/stats"
)

// Settings are what an endpoint answers for.
type Settings struct {
	Node    string // its name
	Version string
	Pods    *pod.Set
	Runtime runtime.Runtime
	Cgroups pod.Cgroups
	Disks   *diskuse.Meter
	Claims  *Claims // nil on hollow nodes
	// Capacity is what the machine has.
	Capacity corev1.ResourceList
	// DataDir is the directory whose disk is the node's.
	DataDir string
	// PauseImage is that of the process which holds a pod's namespaces, as its series are labelled.
	PauseImage string
	// Hollow nodes have no machine that could be measured.
	Hollow bool
	// Config is what /configz shows, by the names of the kubelet's configuration.
	Config map[string]any
	// StreamCertificate returns the certificate of the runtime's streaming server; no other is accepted. Without it the server needs one of
	// an authority that this machine trusts, or has to listen on the loopback address.
	StreamCertificate func() *x509.Certificate
	// Metrics has the figures that /metrics shows beside the agent's own; nil means none.
	Metrics prometheus.Gatherer
	// Probes has what probes found.
	Probes prometheus.Gatherer
}

// Endpoint answers for a node and its pods.
type Endpoint struct {
	Settings
	stats   stats.Collector
	demand  demand.Record
	booted  time.Time // when the machine started
	handler func() http.Handler
}

// New returns the endpoint of a node.
func New(s Settings) *Endpoint {
	e := &Endpoint{Settings: s}
	e.stats.Measure, e.handler = e.sample, sync.OnceValue(e.routes)
	if !s.Hollow {
		e.booted = machine.BootTime()
	}
	return e
}

// ServeNode answers what tools ask a kubelet on its port 10250 and only read. The API server asks, on behalf of
// /api/v1/nodes/NAME/proxy/..., and has checked who may. /usage is what metrics.k8s.io is made of.
func (e *Endpoint) ServeNode(w http.ResponseWriter, r *http.Request) { e.handler().ServeHTTP(w, r) }

// routes returns what answers each path.
func (e *Endpoint) routes() http.Handler {
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
	handle("/stats/summary", e.serveSummary)
	handle("/metrics/resource", e.serveResource)
	handle("/metrics/cadvisor", e.serveCadvisor)
	mux.Handle("GET /metrics", e.ownMetrics())
	mux.Handle("GET /metrics/probes", promhttp.HandlerFor(e.Probes, promhttp.HandlerOpts{}))
	handle("/pods", e.servePods)
	handle("/runningpods", e.serveRunningPods)
	handle("/runningpods/{$}", e.serveRunningPods)
	mux.HandleFunc("GET /logs/", e.serveSystemLogs)
	handle("/configz", func(w http.ResponseWriter, _ *http.Request) error {
		return sendJSON(w, map[string]any{"kubeletconfig": e.Config})
	})
	handle("/containerLogs/{namespace}/{pod}/{container}", e.serveLog)
	handle("/volumes", e.serveVolumes)
	handle("/usage/node", e.serveNodeUsage)
	handle("/usage/pods", e.servePodUsage)
	handle("/usage/pushes", e.pushPodUsage)
	handle("/usage/demand", e.serveDemand)
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
