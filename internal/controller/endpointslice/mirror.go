package endpointslice

import (
	"context"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

const (
	mirrorManagedBy = "endpointslicemirroring-controller.k8s.io"
	// maxMirrored addresses of each subset are mirrored, as in Kubernetes.
	maxMirrored = 1000
	// leaderAnnotation marks Endpoints that were used as a lock.
	leaderAnnotation = "control-plane.alpha.kubernetes.io/leader"
)

type mirrorReconciler struct{ client client.Client }

// NewMirror declares the controller that makes EndpointSlices of the Endpoints that someone wrote for a Service without a
// selector (KEP-752). DNS and the network read nothing but slices.
func NewMirror(c client.Client) controller.Controller {
	return controller.Controller{
		Name:    "endpointslicemirroring",
		Workers: 1,
		Watches: []controller.Watch{
			{Resource: api.Endpoints},
			{Resource: api.Services},
			{Resource: api.EndpointSlices, Keys: mirrorKeys},
		},
		Writes:     declare(api.EndpointSlices, "of Endpoints of Services without a selector", "endpoints", "ports", "addressType"),
		Reconciler: &mirrorReconciler{client: c},
	}
}

// mirrorKeys maps one of our slices to its Endpoints.
func mirrorKeys(e client.Event) []api.Key {
	l := e.Object.GetLabels()
	if l[discoveryv1.LabelManagedBy] != mirrorManagedBy || l[discoveryv1.LabelServiceName] == "" {
		return nil
	}
	return []api.Key{{Namespace: e.Object.GetNamespace(), Name: l[discoveryv1.LabelServiceName]}}
}

// Reconcile brings the slices of one Endpoints up to date.
func (r *mirrorReconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	svc, err := client.Get[*corev1.Service](ctx, r.client, key)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	there := err == nil && !selects(svc)
	ep, err := client.Get[*corev1.Endpoints](ctx, r.client, key)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	var want []*discoveryv1.EndpointSlice
	if there && err == nil {
		want = mirror(ep)
	}
	have, err := client.List[*discoveryv1.EndpointSlice](ctx, r.client, client.ListOptions{Namespace: key.Namespace,
		Labels: labels.SelectorFromSet(labels.Set{discoveryv1.LabelServiceName: key.Name, discoveryv1.LabelManagedBy: mirrorManagedBy})})
	if err != nil {
		return 0, err
	}
	create, update, remove := planMirror(want, have)
	for _, s := range update {
		if _, err := r.client.Update(ctx, s, ""); err != nil {
			return 0, err
		}
	}
	for _, s := range create {
		if _, err := r.client.Create(ctx, s); err != nil && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, err
		}
	}
	for _, s := range remove {
		if err := client.Delete[*discoveryv1.EndpointSlice](ctx, r.client, api.KeyOf(s), metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
			return 0, err
		}
	}
	return 0, nil
}

// mirror returns the slices that say what ep says: one for each subset and address family.
func mirror(ep *corev1.Endpoints) (out []*discoveryv1.EndpointSlice) {
	if _, lock := ep.Annotations[leaderAnnotation]; lock || ep.Labels[discoveryv1.LabelSkipMirror] == "true" || ep.DeletionTimestamp != nil {
		return nil
	}
	yes := true
	for _, sub := range ep.Subsets {
		families := map[discoveryv1.AddressType][]discoveryv1.Endpoint{}
		count := 0
		add := func(a corev1.EndpointAddress, ready bool) {
			ip, err := netip.ParseAddr(a.IP)
			if err != nil || count == maxMirrored {
				return
			}
			count++
			family := discoveryv1.AddressTypeIPv4
			if ip.Is6() {
				family = discoveryv1.AddressTypeIPv6
			}
			e := discoveryv1.Endpoint{Addresses: []string{a.IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}, TargetRef: a.TargetRef, NodeName: a.NodeName}
			if a.Hostname != "" {
				e.Hostname = &a.Hostname
			}
			families[family] = append(families[family], e)
		}
		for _, a := range sub.Addresses {
			add(a, true)
		}
		for _, a := range sub.NotReadyAddresses {
			add(a, false)
		}
		var ports []discoveryv1.EndpointPort
		for _, p := range sub.Ports {
			ports = append(ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &p.Port, Protocol: &p.Protocol, AppProtocol: p.AppProtocol})
		}
		for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
			if len(families[family]) == 0 {
				continue
			}
			s := &discoveryv1.EndpointSlice{
				ObjectMeta: metav1.ObjectMeta{
					Namespace: ep.Namespace, GenerateName: ep.Name + "-", Labels: map[string]string{},
					OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Endpoints", Name: ep.Name, UID: ep.UID, Controller: &yes, BlockOwnerDeletion: &yes}},
				},
				AddressType: family, Endpoints: families[family], Ports: ports,
			}
			for k, v := range ep.Labels {
				s.Labels[k] = v
			}
			s.Labels[discoveryv1.LabelServiceName], s.Labels[discoveryv1.LabelManagedBy] = ep.Name, mirrorManagedBy
			out = append(out, s)
		}
	}
	return out
}

// planMirror says how have becomes want: what is the same stays, what differs is changed in place where it can be.
func planMirror(want, have []*discoveryv1.EndpointSlice) (create, update, remove []*discoveryv1.EndpointSlice) {
	have = slices.Clone(have)
	take := func(fits func(*discoveryv1.EndpointSlice) bool) *discoveryv1.EndpointSlice {
		i := slices.IndexFunc(have, fits)
		if i < 0 {
			return nil
		}
		s := have[i]
		have = slices.Delete(have, i, i+1)
		return s
	}
	var differ []*discoveryv1.EndpointSlice
	for _, w := range want {
		if take(func(h *discoveryv1.EndpointSlice) bool {
			return h.AddressType == w.AddressType && apiequality.Semantic.DeepEqual(h.Endpoints, w.Endpoints) &&
				apiequality.Semantic.DeepEqual(h.Ports, w.Ports) && apiequality.Semantic.DeepEqual(h.Labels, w.Labels)
		}) == nil {
			differ = append(differ, w)
		}
	}
	for _, w := range differ {
		if h := take(func(h *discoveryv1.EndpointSlice) bool { return h.AddressType == w.AddressType }); h != nil {
			changed := h.DeepCopy()
			changed.Endpoints, changed.Ports, changed.Labels, changed.OwnerReferences = w.Endpoints, w.Ports, w.Labels, w.OwnerReferences
			update = append(update, changed)
		} else {
			create = append(create, w)
		}
	}
	return create, update, have
}
