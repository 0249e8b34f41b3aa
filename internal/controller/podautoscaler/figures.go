package podautoscaler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api"
)

// defaultWindow is that of a custom metric that names none.
const defaultWindow = time.Minute

// Ask reads a document of the cluster's API at a path, in the name of the autoscaler.
type Ask func(ctx context.Context, path string, query url.Values) ([]byte, error)

// read asks for the metrics of hpa, one after the other; what several of them need is asked for once.
func (r *reconciler) read(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, selector labels.Selector, pods []*corev1.Pod) []reading {
	var used []metrics.PodMetrics
	var failed error
	usage := func(resource corev1.ResourceName, container string) reading {
		if used == nil && failed == nil {
			used, failed = r.podUsage(ctx, hpa, selector, pods)
		}
		if failed != nil {
			return reading{err: failed}
		}
		return reading{figures: usageOf(used, resource, container)}
	}
	out := make([]reading, len(hpa.Spec.Metrics))
	for i, m := range hpa.Spec.Metrics {
		began := time.Now()
		switch m.Type {
		case autoscalingv2.ResourceMetricSourceType:
			out[i] = usage(m.Resource.Name, "")
		case autoscalingv2.ContainerResourceMetricSourceType:
			out[i] = usage(m.ContainerResource.Name, m.ContainerResource.Container)
		case autoscalingv2.PodsMetricSourceType:
			out[i] = r.podMetric(ctx, hpa.Namespace, m.Pods.Metric, selector)
		case autoscalingv2.ObjectMetricSourceType:
			out[i] = r.objectMetric(ctx, hpa.Namespace, m.Object)
		case autoscalingv2.ExternalMetricSourceType:
			out[i] = r.externalMetric(ctx, hpa.Namespace, m.External.Metric)
		}
		out[i].took = time.Since(began)
	}
	return out
}

// podUsage returns what pods use: as their nodes push it, or else as the metrics API says.
func (r *reconciler) podUsage(ctx context.Context, hpa *autoscalingv2.HorizontalPodAutoscaler, selector labels.Selector, pods []*corev1.Pod) ([]metrics.PodMetrics, error) {
	var items []metrics.PodMetrics
	complete := false
	if r.cfg.Feed != nil {
		r.cfg.Feed.Want(api.KeyOf(hpa), pods)
		items, complete = r.cfg.Feed.Usage(pods)
	}
	if !complete {
		var list metrics.PodMetricsList
		err := r.ask(ctx, &list, url.Values{"labelSelector": {selector.String()}}, metrics.SchemeGroupVersion, "namespaces", hpa.Namespace, "pods")
		if err != nil {
			return nil, fmt.Errorf("unable to fetch metrics from resource metrics API: %w", err)
		}
		items = list.Items
	}
	if len(items) == 0 {
		return nil, errors.New("no metrics returned from resource metrics API")
	}
	return items, nil
}

// usageOf returns what each pod, or one container of each, uses. A pod of which a container is missing is left out.
func usageOf(items []metrics.PodMetrics, resource corev1.ResourceName, container string) map[string]figure {
	out := map[string]figure{}
	for _, m := range items {
		f := figure{at: m.Timestamp.Time, window: m.Window.Duration}
		known := false
		for _, c := range m.Containers {
			if container != "" && c.Name != container {
				continue
			}
			q, ok := c.Usage[resource]
			if known = ok; !ok {
				break
			}
			f.value = amount.Add(f.value, amount.Milli(q))
		}
		if known {
			out[m.Name] = f
		}
	}
	return out
}

func (r *reconciler) podMetric(ctx context.Context, namespace string, metric autoscalingv2.MetricIdentifier, selector labels.Selector) reading {
	list, err := r.custom(ctx, url.Values{"labelSelector": {selector.String()}}, metric.Selector, "namespaces", namespace, "pods", "*", metric.Name)
	if err != nil {
		return reading{err: err}
	}
	figures := map[string]figure{}
	for _, m := range list {
		f := figure{value: amount.Milli(m.Value), at: m.Timestamp.Time, window: defaultWindow}
		if m.WindowSeconds != nil {
			f.window = time.Duration(*m.WindowSeconds) * time.Second
		}
		figures[m.DescribedObject.Name] = f
	}
	return reading{figures: figures}
}

// objectMetric asks for the metric of one object, or of the namespace, whatever name is given for that.
func (r *reconciler) objectMetric(ctx context.Context, namespace string, source *autoscalingv2.ObjectMetricSource) reading {
	about := source.DescribedObject
	path := []string{"namespaces", namespace, "metrics", source.Metric.Name}
	if about.Kind != "Namespace" || about.APIVersion != "v1" {
		res, err := r.resource(about.APIVersion, about.Kind)
		if err != nil {
			return reading{err: err}
		}
		path = []string{"namespaces", namespace, res.GroupResource().String(), about.Name, source.Metric.Name}
	}
	list, err := r.custom(ctx, url.Values{}, source.Metric.Selector, path...)
	if err != nil {
		return reading{err: err}
	}
	return reading{values: []int64{amount.Milli(list[0].Value)}}
}

func (r *reconciler) custom(ctx context.Context, query url.Values, selector *metav1.LabelSelector, path ...string) ([]custom.MetricValue, error) {
	if selector != nil {
		s, err := metav1.LabelSelectorAsSelector(selector)
		if err != nil {
			return nil, err
		}
		query.Set("metricLabelSelector", s.String())
	}
	var list custom.MetricValueList
	if err := r.ask(ctx, &list, query, custom.SchemeGroupVersion, path...); err != nil {
		return nil, fmt.Errorf("unable to fetch metrics from custom metrics API: %w", err)
	}
	if len(list.Items) == 0 {
		return nil, errors.New("no metrics returned from custom metrics API")
	}
	return list.Items, nil
}

func (r *reconciler) externalMetric(ctx context.Context, namespace string, metric autoscalingv2.MetricIdentifier) reading {
	query := url.Values{}
	if metric.Selector != nil {
		s, err := metav1.LabelSelectorAsSelector(metric.Selector)
		if err != nil {
			return reading{err: err}
		}
		query.Set("labelSelector", s.String())
	}
	var list external.ExternalMetricValueList
	if err := r.ask(ctx, &list, query, external.SchemeGroupVersion, "namespaces", namespace, metric.Name); err != nil {
		return reading{err: fmt.Errorf("unable to fetch metrics from external metrics API: %w", err)}
	}
	if len(list.Items) == 0 {
		return reading{err: errors.New("no metrics returned from external metrics API")}
	}
	var out reading
	for _, m := range list.Items {
		out.values = append(out.values, amount.Milli(m.Value))
	}
	return out
}

// ask reads the document at a path below a version of an API.
func (r *reconciler) ask(ctx context.Context, into any, query url.Values, gv schema.GroupVersion, path ...string) error {
	if r.cfg.Ask == nil {
		return errors.New("this control plane serves no metrics")
	}
	at := "/apis/" + gv.String()
	for _, p := range path {
		at += "/" + url.PathEscape(p)
	}
	body, err := r.cfg.Ask(ctx, at, query)
	if err != nil {
		return err
	}
	return json.Unmarshal(body, into)
}
