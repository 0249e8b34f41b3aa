package podautoscaler

import (
	"errors"
	"fmt"
	"math"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/amount"
)

// proposal is how many replicas one metric asks for.
type proposal struct {
	replicas int32
	metric   string // what it is called
	status   autoscalingv2.MetricStatus
}

// failure is why a metric asks for nothing.
type failure struct {
	reason string // of the condition
	cause  error
	what   string // what could not be had
}

func (f *failure) Error() string { return f.what + ": " + f.cause.Error() }
func (f *failure) Unwrap() error { return f.cause }

// propose decides by the metric of the spec at i.
func propose(hpa *autoscalingv2.HorizontalPodAutoscaler, m autoscalingv2.MetricSpec, obs observed, i int, now time.Time) (proposal, *failure) {
	var r reading
	if i < len(obs.readings) {
		r = obs.readings[i]
	}
	c := calculation{obs: obs, tol: tolerancesOf(hpa), now: now, reading: r}
	out := proposal{status: autoscalingv2.MetricStatus{Type: m.Type}}
	var err error
	var reason, what string
	switch m.Type {
	case autoscalingv2.ResourceMetricSourceType:
		reason, what = "FailedGetResourceMetric", fmt.Sprintf("failed to get %s resource metric value", m.Resource.Name)
		s := &autoscalingv2.ResourceMetricStatus{Name: m.Resource.Name}
		out.status.Resource = s
		out.replicas, out.metric, s.Current, err = c.resource(m.Resource.Name, "", m.Resource.Target)
	case autoscalingv2.ContainerResourceMetricSourceType:
		source := m.ContainerResource
		reason, what = "FailedGetContainerResourceMetric", fmt.Sprintf("failed to get %s container metric value", source.Container)
		s := &autoscalingv2.ContainerResourceMetricStatus{Name: source.Name, Container: source.Container}
		out.status.ContainerResource = s
		out.replicas, out.metric, s.Current, err = c.resource(source.Name, source.Container, source.Target)
	case autoscalingv2.PodsMetricSourceType:
		reason, what = "FailedGetPodsMetric", "failed to get pods metric value"
		s := &autoscalingv2.PodsMetricStatus{Metric: m.Pods.Metric}
		out.status.Pods, out.metric = s, "pods metric "+m.Pods.Metric.Name
		out.replicas, s.Current, err = c.perPod(m.Pods.Metric.Name, m.Pods.Target)
	case autoscalingv2.ObjectMetricSourceType:
		reason, what = "FailedGetObjectMetric", "failed to get object metric value"
		s := &autoscalingv2.ObjectMetricStatus{Metric: m.Object.Metric, DescribedObject: m.Object.DescribedObject}
		out.status.Object, out.metric = s, fmt.Sprintf("%s metric %s", m.Object.DescribedObject.Kind, m.Object.Metric.Name)
		about := m.Object.DescribedObject
		c.reading.err = wrapped("unable to get metric %s on %s %s/%s: %w", r.err, m.Object.Metric.Name, about.Kind, hpa.Namespace, about.Name)
		out.replicas, s.Current, err = c.single(m.Object.Target, "object")
	case autoscalingv2.ExternalMetricSourceType:
		name := m.External.Metric.Name
		reason, what = "FailedGetExternalMetric", fmt.Sprintf("failed to get %s external metric value", name)
		s := &autoscalingv2.ExternalMetricStatus{Metric: m.External.Metric}
		out.status.External, out.metric = s, fmt.Sprintf("external metric %s(%+v)", name, m.External.Metric.Selector)
		c.reading.err = wrapped("unable to get external metric %s/%s/%+v: %w", r.err, hpa.Namespace, name, m.External.Metric.Selector)
		out.replicas, s.Current, err = c.single(m.External.Target, "external")
	default:
		reason, what, err = "InvalidMetricSourceType", "reading the metric", &specError{fmt.Errorf("unknown metric source type %q", m.Type)}
	}
	if err != nil {
		return proposal{}, &failure{reason, err, what}
	}
	return out, nil
}

func wrapped(format string, err error, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf(format, append(args, err)...)
}

// calculation is what the number of replicas is computed from.
type calculation struct {
	obs     observed
	reading reading
	tol     tolerances
	now     time.Time
}

// resource decides by what pods, or a container of each, use of a resource.
func (c calculation) resource(name corev1.ResourceName, container string, goal autoscalingv2.MetricTarget) (n int32, metric string, s autoscalingv2.MetricValueStatus, err error) {
	what, metric := "usage", fmt.Sprintf("%s resource", name)
	var t target
	switch {
	case goal.AverageValue != nil:
		t.average = amount.Milli(*goal.AverageValue)
	case goal.AverageUtilization != nil:
		what, metric = "utilization", fmt.Sprintf("%s resource utilization (percentage of request)", name)
		if container != "" {
			metric = fmt.Sprintf("%s container resource utilization (percentage of request)", name)
		}
		t.percent = *goal.AverageUtilization
	default:
		return 0, "", s, errors.New("invalid resource metric source: neither an average utilization target nor an average value (usage) target was set")
	}
	err = c.reading.err
	if err != nil {
		err = fmt.Errorf("unable to get metrics for resource %s: %w", name, err)
	}
	if err == nil && len(c.obs.pods) == 0 {
		err = errNoPods
	}
	if err == nil && t.percent > 0 {
		t.requests, t.unknown = requests(c.obs.pods, container, name)
	}
	var u usage
	if err == nil {
		n, u, err = average(c.obs.pods, c.reading.figures, name, t, c.tol, c.obs.scale.Spec.Replicas, c.now)
	}
	if err != nil {
		return 0, "", s, fmt.Errorf("failed to get %s %s: %w", name, what, err)
	}
	format := resource.DecimalSI
	if name == corev1.ResourceMemory {
		format = resource.BinarySI
	}
	s.AverageValue = resource.NewMilliQuantity(u.average, format)
	if t.requests != nil {
		s.AverageUtilization = &u.percent
	}
	return n, metric, s, nil
}

// perPod decides by a metric that each pod has.
func (c calculation) perPod(name string, goal autoscalingv2.MetricTarget) (n int32, s autoscalingv2.MetricValueStatus, err error) {
	if c.reading.err != nil {
		return 0, s, fmt.Errorf("unable to get metric %s: %w", name, c.reading.err)
	}
	if goal.AverageValue == nil {
		return 0, s, errors.New("invalid pods metric source: no average value target was set")
	}
	n, u, err := average(c.obs.pods, c.reading.figures, "", target{average: amount.Milli(*goal.AverageValue)}, c.tol, c.obs.scale.Spec.Replicas, c.now)
	s.AverageValue = resource.NewMilliQuantity(u.average, resource.DecimalSI)
	return n, s, err
}

// single decides by a metric of something else than pods; several values count together.
func (c calculation) single(goal autoscalingv2.MetricTarget, kind string) (n int32, s autoscalingv2.MetricValueStatus, err error) {
	if c.reading.err != nil {
		return 0, s, c.reading.err
	}
	value := int64(0)
	for _, v := range c.reading.values {
		if v > 0 && value > math.MaxInt64-v {
			value = math.MaxInt64
			break
		}
		value += v
	}
	switch {
	case goal.AverageValue != nil:
		n, each := share(value, amount.Milli(*goal.AverageValue), c.tol, c.obs.scale.Status.Replicas)
		s.AverageValue = resource.NewMilliQuantity(each, resource.DecimalSI)
		return n, s, nil
	case goal.Value != nil:
		n, err := total(c.obs.pods, value, amount.Milli(*goal.Value), c.tol, c.obs.scale.Spec.Replicas)
		s.Value = resource.NewMilliQuantity(value, resource.DecimalSI)
		return n, s, err
	}
	return 0, s, fmt.Errorf("invalid %s metric source: neither a value target nor an average value target was set", kind)
}
