package workloads

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
	customclient "k8s.io/metrics/pkg/client/custom_metrics"
	externalclient "k8s.io/metrics/pkg/client/external_metrics"
)

// figures is what the metrics APIs answer, to autoscalers of either side.
type figures struct {
	pods     map[string]metrics.PodMetrics
	perPod   map[string]int64
	object   int64
	external []int64
	away     bool // nothing answers
}

var errAway = errors.New("no answer")

// draw measures pods anew: each uses about as much of a core as load says, in thousandths; of some nothing is known, or not of each container.
func (f *figures) draw(r *rand.Rand, pods []*corev1.Pod, load int64) {
	f.pods, f.perPod = map[string]metrics.PodMetrics{}, map[string]int64{}
	f.away = r.IntN(25) == 0
	f.object, f.external = int64(r.IntN(60)), nil
	for range r.IntN(3) {
		f.external = append(f.external, int64(r.IntN(40)))
	}
	for _, p := range pods {
		if r.IntN(12) > 0 {
			f.perPod[p.Name] = load/10 + int64(r.IntN(10))
		}
		if r.IntN(12) == 0 {
			continue
		}
		m := metrics.PodMetrics{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name}, Timestamp: metav1.NewTime(time.Now().Add(-time.Duration(r.IntN(40)) * time.Second)),
			Window: metav1.Duration{Duration: pick(r, time.Second, 15*time.Second, time.Minute)}}
		for _, c := range p.Spec.Containers {
			if r.IntN(25) == 0 {
				continue
			}
			use := corev1.ResourceList{corev1.ResourceCPU: *resource.NewScaledQuantity(load*1_000_000/2+int64(r.IntN(20_000_000)), resource.Nano)}
			if r.IntN(12) > 0 {
				use[corev1.ResourceMemory] = *resource.NewQuantity((load+int64(r.IntN(50)))<<20, resource.BinarySI)
			}
			m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: c.Name, Usage: use})
		}
		f.pods[p.Name] = m
	}
}

// ask answers what is asked at a path.
func (f *figures) ask(_ context.Context, path string, _ url.Values) ([]byte, error) {
	if f.away {
		return nil, errAway
	}
	switch {
	case strings.HasPrefix(path, "/apis/metrics.k8s.io/"):
		list := metrics.PodMetricsList{TypeMeta: metav1.TypeMeta{Kind: "PodMetricsList", APIVersion: metrics.SchemeGroupVersion.String()}}
		for _, name := range slices.Sorted(maps.Keys(f.pods)) {
			list.Items = append(list.Items, f.pods[name])
		}
		return json.Marshal(list)
	case strings.HasPrefix(path, "/apis/external.metrics.k8s.io/"):
		var list external.ExternalMetricValueList
		for _, v := range f.external {
			list.Items = append(list.Items, external.ExternalMetricValue{Value: *resource.NewQuantity(v, resource.DecimalSI)})
		}
		return json.Marshal(list)
	case strings.Contains(path, "/pods/"):
		var list custom.MetricValueList
		for _, name := range slices.Sorted(maps.Keys(f.perPod)) {
			list.Items = append(list.Items, custom.MetricValue{DescribedObject: corev1.ObjectReference{Name: name}, Value: *resource.NewQuantity(f.perPod[name], resource.DecimalSI), Timestamp: metav1.Now()})
		}
		return json.Marshal(list)
	}
	return json.Marshal(custom.MetricValueList{Items: []custom.MetricValue{{Value: *resource.NewQuantity(f.object, resource.DecimalSI), Timestamp: metav1.Now()}}})
}

// RoundTrip lets Kubernetes' client of metrics.k8s.io ask.
func (f *figures) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := f.ask(r.Context(), r.URL.Path, r.URL.Query())
	if err != nil {
		return nil, err
	}
	return inMemory{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(body)
	})}.RoundTrip(r)
}

// Kubernetes' clients of the other two APIs, whose discovery would add nothing here.

func (f *figures) RootScopedMetrics() customclient.MetricsInterface { return f }

type namespaced struct{ *figures }

func (n namespaced) NamespacedMetrics(string) customclient.MetricsInterface { return n.figures }

func (f *figures) GetForObject(kind schema.GroupKind, name, metric string, _ labels.Selector) (*custom.MetricValue, error) {
	var list custom.MetricValueList
	if err := f.read("/apis/custom.metrics.k8s.io/v1beta2/"+kind.String()+"/"+name+"/"+metric, &list); err != nil {
		return nil, err
	}
	return &list.Items[0], nil
}

func (f *figures) GetForObjects(_ schema.GroupKind, _ labels.Selector, metric string, _ labels.Selector) (*custom.MetricValueList, error) {
	var list custom.MetricValueList
	return &list, f.read("/apis/custom.metrics.k8s.io/v1beta2/pods/*/"+metric, &list)
}

func (f *figures) read(path string, into any) error {
	body, err := f.ask(context.Background(), path, nil)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}

type outside struct{ *figures }

func (o outside) NamespacedMetrics(string) externalclient.MetricsInterface { return o }

func (o outside) List(metric string, _ labels.Selector) (*external.ExternalMetricValueList, error) {
	var list external.ExternalMetricValueList
	return &list, o.read("/apis/external.metrics.k8s.io/v1beta1/"+metric, &list)
}
