package apiservers

import (
	"context"
	"net/netip"
	"slices"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

type reconciler struct {
	client  client.Client
	name    string
	address netip.AddrPort
	seen    map[string]sighting
}

var serviceKey = api.Key{Namespace: metav1.NamespaceDefault, Name: serviceName}

// New declares the controller of the server with a name, which is reached at address.
func New(c client.Client, name string, address netip.AddrPort) controller.Controller {
	return controller.Controller{
		Name: "apiservers",
		Watches: []controller.Watch{
			{Resource: api.Leases, Keys: leaseKeys},
			{Resource: api.EndpointSlices, Keys: serviceKeys},
			{Resource: api.Endpoints, Keys: serviceKeys},
		},
		Writes:     writes(),
		Reconciler: &reconciler{client: c, name: name, address: address, seen: map[string]sighting{}},
	}
}

func writes() []controller.Write {
	const mine = "of Service default/kubernetes"
	return []controller.Write{
		controller.Creates(api.EndpointSlices).Of(mine), controller.Deletes(api.EndpointSlices).Of(mine),
		controller.Sets(api.EndpointSlices, "endpoints").Of(mine), controller.Sets(api.EndpointSlices, "ports").Of(mine),
		controller.Creates(api.Endpoints).Of(mine), controller.Sets(api.Endpoints, "subsets").Of(mine),
		controller.Deletes(api.Leases).Of("of servers that are gone"),
	}
}

func leaseKeys(e client.Event) []api.Key {
	if e.Object.GetNamespace() != metav1.NamespaceSystem || e.Object.GetLabels()[identityLabel] == "" {
		return nil
	}
	return []api.Key{serviceKey}
}

func serviceKeys(e client.Event) []api.Key {
	o := e.Object
	if o.GetNamespace() == serviceKey.Namespace && (o.GetName() == serviceName || o.GetLabels()[discoveryv1.LabelManagedBy] == managedBy) {
		return []api.Key{serviceKey}
	}
	return nil
}

// Reconcile brings the endpoints of Service default/kubernetes up to date. There is one key, so it is never called twice at a time.
func (r *reconciler) Reconcile(ctx context.Context, _ api.Key) (time.Duration, error) {
	all, err := client.List[*coordinationv1.Lease](ctx, r.client, client.ListOptions{Namespace: metav1.NamespaceSystem})
	if err != nil {
		return 0, err
	}
	leases := slices.DeleteFunc(all, func(l *coordinationv1.Lease) bool { return l.Labels[identityLabel] == "" })
	now := time.Now()
	look(r.seen, leases, now)
	c := count(r.seen, leases, r.address, LeaseKey(r.name).Name, now)
	for _, l := range c.forgotten {
		uid := l.UID
		err := client.Delete[*coordinationv1.Lease](ctx, r.client, api.KeyOf(l), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, err
		}
	}
	if err := r.writeSlices(ctx, slicesOf(c.addresses)); err != nil {
		return 0, err
	}
	return c.next, r.writeEndpoints(ctx, endpointsOf(c.addresses))
}

func (r *reconciler) writeSlices(ctx context.Context, want []*discoveryv1.EndpointSlice) error {
	for _, w := range want {
		_, err := client.Mutate(ctx, r.client, api.KeyOf(w), "", func(s *discoveryv1.EndpointSlice) bool {
			if equality.Semantic.DeepEqual(s.Endpoints, w.Endpoints) && equality.Semantic.DeepEqual(s.Ports, w.Ports) {
				return false
			}
			s.Endpoints, s.Ports = w.Endpoints, w.Ports
			return true
		})
		if apierrors.IsNotFound(err) {
			_, err = r.client.Create(ctx, w)
		}
		if err != nil {
			return err
		}
	}
	have, err := client.List[*discoveryv1.EndpointSlice](ctx, r.client, client.ListOptions{Index: client.IndexService, Value: serviceKey.Namespace + "/" + serviceName})
	if err != nil {
		return err
	}
	for _, s := range have {
		if s.Labels[discoveryv1.LabelManagedBy] != managedBy || slices.ContainsFunc(want, func(w *discoveryv1.EndpointSlice) bool { return w.Name == s.Name }) {
			continue
		}
		if err := client.Delete[*discoveryv1.EndpointSlice](ctx, r.client, api.KeyOf(s), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	return nil
}

func (r *reconciler) writeEndpoints(ctx context.Context, want *corev1.Endpoints) error {
	_, err := client.Mutate(ctx, r.client, api.KeyOf(want), "", func(e *corev1.Endpoints) bool {
		if equality.Semantic.DeepEqual(e.Subsets, want.Subsets) {
			return false
		}
		e.Subsets = want.Subsets
		return true
	})
	if apierrors.IsNotFound(err) {
		_, err = r.client.Create(ctx, want)
	}
	return err
}
