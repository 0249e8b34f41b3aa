package rollout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/runtime/schema"
	custom "k8s.io/metrics/pkg/apis/custom_metrics/v1beta2"
	external "k8s.io/metrics/pkg/apis/external_metrics/v1beta1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/knarr-io/knarr/internal/amount"
	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
)

// Ask reads a document of the cluster's API at a path; nil where there are no metrics.
type Ask func(ctx context.Context, path string, query url.Values) ([]byte, error)

// Read reads the figures of checks about the pods of a ReplicaSet.
func Read(ctx context.Context, c client.Client, ask Ask, rs *appsv1.ReplicaSet, checks []spec.Check) []Reading {
	if len(checks) == 0 {
		return nil
	}
	out := make([]Reading, len(checks))
	for i, check := range checks {
		milli, err := read(ctx, c, ask, rs, check)
		out[i] = Reading{Value: *resource.NewMilliQuantity(milli, resource.DecimalSI), Err: err}
	}
	return out
}

func read(ctx context.Context, c client.Client, ask Ask, rs *appsv1.ReplicaSet, check spec.Check) (int64, error) {
	pods := url.Values{"labelSelector": {appsv1.DefaultDeploymentUniqueLabelKey + "=" + rs.Labels[appsv1.DefaultDeploymentUniqueLabelKey]}}
	switch check.Source {
	case spec.Restarts:
		return restarts(ctx, c, rs)
	case spec.Pods:
		if check.Selector != "" {
			pods.Set("metricLabelSelector", check.Selector)
		}
		var list custom.MetricValueList
		if err := document(ctx, ask, &list, pods, custom.SchemeGroupVersion, "namespaces", rs.Namespace, "pods", "*", check.Metric); err != nil {
			return 0, err
		}
		sum := int64(0)
		for _, m := range list.Items {
			sum = amount.Add(sum, amount.Milli(m.Value))
		}
		return average(sum, len(list.Items))
	case spec.External:
		query := url.Values{}
		if check.Selector != "" {
			query.Set("labelSelector", check.Selector)
		}
		var list external.ExternalMetricValueList
		if err := document(ctx, ask, &list, query, external.SchemeGroupVersion, "namespaces", rs.Namespace, check.Metric); err != nil {
			return 0, err
		}
		sum := int64(0)
		for _, m := range list.Items {
			sum = amount.Add(sum, amount.Milli(m.Value))
		}
		if len(list.Items) == 0 {
			return 0, errors.New("there are no figures")
		}
		return sum, nil
	}
	var list metrics.PodMetricsList
	if err := document(ctx, ask, &list, pods, metrics.SchemeGroupVersion, "namespaces", rs.Namespace, "pods"); err != nil {
		return 0, err
	}
	sum := int64(0)
	for _, m := range list.Items {
		for _, container := range m.Containers {
			sum = amount.Add(sum, amount.Milli(container.Usage[corev1.ResourceName(check.Source)]))
		}
	}
	return average(sum, len(list.Items))
}

func average(sum int64, of int) (int64, error) {
	if of == 0 {
		return 0, errors.New("there are no figures of the new pods yet")
	}
	return sum / int64(of), nil
}

// restarts counts how often containers of a ReplicaSet's pods were started again.
func restarts(ctx context.Context, c client.Client, rs *appsv1.ReplicaSet) (int64, error) {
	pods, err := client.List[*corev1.Pod](ctx, c, client.ListOptions{Namespace: rs.Namespace, Index: client.IndexOwner, Value: string(rs.UID)})
	if err != nil {
		return 0, err
	}
	n := int64(0)
	for _, p := range pods {
		for _, s := range p.Status.ContainerStatuses {
			n += int64(s.RestartCount)
		}
	}
	return n * 1000, nil
}

// document reads the document at a path below a version of an API.
func document(ctx context.Context, ask Ask, into any, query url.Values, gv schema.GroupVersion, path ...string) error {
	if ask == nil {
		return errors.New("this control plane serves no metrics")
	}
	at := "/apis/" + gv.String()
	for _, p := range path {
		at += "/" + url.PathEscape(p)
	}
	body, err := ask(ctx, at, query)
	if err != nil {
		return fmt.Errorf("asking %s: %w", gv, err)
	}
	return json.Unmarshal(body, into)
}
