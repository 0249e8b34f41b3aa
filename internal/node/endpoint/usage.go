package endpoint

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/node/stats"
)

func (e *Endpoint) serveSummary(w http.ResponseWriter, r *http.Request) error {
	pair, err := e.stats.Rates(r.Context())
	if err != nil {
		return err
	}
	summary := stats.Rates(pair)
	if only, _ := strconv.ParseBool(r.URL.Query().Get("only_cpu_and_memory")); only {
		return sendJSON(w, stats.CPUAndMemory(summary))
	}
	e.addDisks(r.Context(), &summary, time.Now())
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

func (e *Endpoint) serveResource(w http.ResponseWriter, r *http.Request) error {
	s, err := e.stats.Counters(r.Context())
	if err != nil {
		return err
	}
	return sendMetrics(w, func(out io.Writer) error { return stats.Resource(out, &s.Summary) })
}

func (e *Endpoint) serveCadvisor(w http.ResponseWriter, r *http.Request) error {
	s, err := e.stats.Counters(r.Context())
	if err != nil {
		return err
	}
	summary, groups, machine := e.groups(s.Summary, time.Now())
	return sendMetrics(w, func(out io.Writer) error { return stats.Cadvisor(out, &summary, groups, machine) })
}

func (e *Endpoint) serveNodeUsage(w http.ResponseWriter, r *http.Request) error {
	pair, err := e.stats.Rates(r.Context())
	if err != nil {
		return err
	}
	node := stats.NodeUsage(pair)
	if node == nil {
		return apierrors.NewServiceUnavailable("the machine's use of processor and memory is not known")
	}
	return sendJSON(w, node)
}

func (e *Endpoint) servePodUsage(w http.ResponseWriter, r *http.Request) error {
	pair, err := e.stats.Rates(r.Context())
	if err != nil {
		return err
	}
	return sendJSON(w, metrics.PodMetricsList{Items: stats.PodUsage(pair)})
}

// pushPodUsage says what pods use again and again, in a line of JSON each time, until the client goes.
func (e *Endpoint) pushPodUsage(w http.ResponseWriter, r *http.Request) error {
	w.Header().Set("Content-Type", "application/json")
	out, flush := json.NewEncoder(w), http.NewResponseController(w).Flush
	begun := false
	err := e.stats.Push(r.Context(), func(pair stats.Pair) error {
		begun = true
		if err := out.Encode(metrics.PodMetricsList{Items: stats.PodUsage(pair)}); err != nil {
			return err
		}
		return flush()
	})
	if begun { // a client that reads no longer has no use for the error, and the end of the answer says that there is one
		return nil
	}
	return err
}

func (e *Endpoint) servePods(w http.ResponseWriter, _ *http.Request) error {
	list := corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, Items: []corev1.Pod{}}
	for _, w := range e.Pods.All() {
		p := *w.Pod()
		if last := w.Reported(); last != nil {
			p.Status = *last
		}
		list.Items = append(list.Items, p)
	}
	slices.SortFunc(list.Items, comparePods)
	return sendJSON(w, list)
}
