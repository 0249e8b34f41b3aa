package apiservice

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// Check asks the server that an APIService names for the list of what it serves.
type Check func(ctx context.Context, s *apiregistrationv1.APIService) error

type prober struct {
	client client.Client
	check  Check
}

// NewAvailability declares the controller of the condition Available. Its keys are APIServices.
func NewAvailability(c client.Client, check Check) controller.Controller {
	p := &prober{client: c, check: check}
	return controller.Controller{
		Name:    "apiservice-availability",
		Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.APIServices},
			{Resource: api.Services, Keys: func(e client.Event) []api.Key { return p.of(api.KeyOf(e.Object)) }},
			{Resource: api.EndpointSlices, Keys: func(e client.Event) []api.Key {
				return p.of(api.Key{Namespace: e.Object.GetNamespace(), Name: e.Object.GetLabels()[discoveryv1.LabelServiceName]})
			}},
		},
		Writes:     []controller.Write{controller.Sets(api.APIServices, "status", "conditions", string(apiregistrationv1.Available))},
		Reconciler: p,
	}
}

// of returns the keys of the APIServices that name a Service. There are few APIServices that name any.
func (p *prober) of(service api.Key) (out []api.Key) {
	all, err := client.List[*apiregistrationv1.APIService](context.Background(), p.client, client.ListOptions{})
	if err != nil {
		return nil // each is looked at again soon
	}
	for _, s := range all {
		if ref := s.Spec.Service; ref != nil && ref.Namespace == service.Namespace && ref.Name == service.Name {
			out = append(out, api.Key{Name: s.Name})
		}
	}
	return out
}

// Reconcile finds out whether the APIService named key is available, and writes it down.
func (p *prober) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	s, err := client.Get[*apiregistrationv1.APIService](ctx, p.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	c, err := p.observe(ctx, s)
	if err != nil {
		return 0, err
	}
	now := time.Now()
	if next := withCondition(s, c, metav1.NewTime(now.Truncate(time.Second))); next != nil {
		if _, err := p.client.Update(ctx, next, "status"); err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
	}
	if s.Spec.Service == nil {
		return 0, nil
	}
	return again(s, c, now), nil
}

// observe looks at the Service of s, and asks the server behind it.
func (p *prober) observe(ctx context.Context, s *apiregistrationv1.APIService) (apiregistrationv1.APIServiceCondition, error) {
	var svc *corev1.Service
	var endpoints []*discoveryv1.EndpointSlice
	if ref := s.Spec.Service; ref != nil {
		var err error
		svc, err = client.Get[*corev1.Service](ctx, p.client, api.Key{Namespace: ref.Namespace, Name: ref.Name})
		if apierrors.IsNotFound(err) {
			svc, err = nil, nil
		}
		if err == nil {
			endpoints, err = client.List[*discoveryv1.EndpointSlice](ctx, p.client, client.ListOptions{Index: api.IndexService, Value: ref.Namespace + "/" + ref.Name})
		}
		if err != nil {
			return apiregistrationv1.APIServiceCondition{}, err
		}
	}
	c, ask := available(s, svc, endpoints)
	if !ask {
		return c, nil
	}
	if err := p.check(ctx, s); err != nil {
		c = condition(apiregistrationv1.ConditionFalse, "FailedDiscoveryCheck", err.Error())
	}
	return c, ctx.Err()
}
