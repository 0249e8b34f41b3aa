package endpointslice

import (
	"cmp"
	"context"
	"maps"
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
	"github.com/knarr-io/knarr/internal/controller/pace"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

const (
	endpointsManagedBy    = "endpoints.kubernetes.io/managed-by"
	endpointsController   = "endpoint-controller"
	maxEndpointsAddresses = 1000
	// endpointsPace is longer than slicePace: an Endpoints is written whole at every change, and nothing in Knarr waits for it.
	endpointsPace = 500 * time.Millisecond
)

type endpointsReconciler struct {
	client client.Client
	pace   *pace.Pace
}

// NewEndpoints declares the controller of Endpoints, the deprecated form of what New writes, kept for clients that know no other.
func NewEndpoints(c client.Client) controller.Controller {
	return controller.Controller{
		Name:    "endpoints",
		Workers: 2,
		Watches: []controller.Watch{
			{Resource: api.Services},
			{Resource: api.Pods, Keys: func(e client.Event) []api.Key { return podKeys(c, e) }},
			{Resource: api.ReplicaSets, Keys: func(e client.Event) []api.Key { return trafficKeys(c, e) }},
			{Resource: api.Endpoints},
		},
		Writes:     declare(api.Endpoints, "of Services with a selector", "subsets"),
		Reconciler: &endpointsReconciler{client: c, pace: pace.New(endpointsPace)},
	}
}

// Reconcile brings the Endpoints of one Service up to date.
func (r *endpointsReconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	svc, err := client.Get[*corev1.Service](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.pace.Forget(key)
		return 0, r.remove(ctx, key)
	}
	if err != nil || !selects(svc) {
		return 0, err
	}
	if wait := r.pace.Wait(key, time.Now()); wait > 0 {
		return wait, nil
	}
	pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{
		Namespace: svc.Namespace, Labels: labels.SelectorFromSet(svc.Spec.Selector)})
	if err != nil {
		return 0, err
	}
	pods = reachable(ctx, r.client, svc, pods)
	old, err := client.Get[*corev1.Endpoints](ctx, r.client, key)
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	if apierrors.IsNotFound(err) {
		old = nil
	}
	want := planEndpoints(svc, pods, old)
	if want == nil {
		return 0, nil
	}
	r.pace.Wrote(key, time.Now())
	if old == nil {
		_, err = r.client.Create(ctx, want)
	} else {
		_, err = r.client.Update(ctx, want, "")
	}
	if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		err = nil
	}
	return 0, err
}

// remove deletes the Endpoints of a Service that is gone, if they were ours.
func (r *endpointsReconciler) remove(ctx context.Context, key api.Key) error {
	old, err := client.Get[*corev1.Endpoints](ctx, r.client, key)
	if err == nil && old.Labels[endpointsManagedBy] == endpointsController {
		uid := old.UID
		err = client.Delete[*corev1.Endpoints](ctx, r.client, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}

// planEndpoints returns the Endpoints that svc should have, or nil where old is as it should be.
func planEndpoints(svc *corev1.Service, pods []*corev1.Pod, old *corev1.Endpoints) *corev1.Endpoints {
	ep := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name}}
	if old != nil {
		ep = old.DeepCopy()
	}
	ep.Labels = map[string]string{}
	maps.Copy(ep.Labels, svc.Labels)
	delete(ep.Labels, corev1.IsHeadlessService)
	if headless(svc) {
		ep.Labels[corev1.IsHeadlessService] = ""
	}
	ep.Labels[endpointsManagedBy] = endpointsController
	var cut bool
	ep.Subsets, cut = subsetsOf(svc, pods)
	if cut {
		metav1.SetMetaDataAnnotation(&ep.ObjectMeta, corev1.EndpointsOverCapacity, "truncated")
	} else {
		delete(ep.Annotations, corev1.EndpointsOverCapacity)
	}
	if old != nil && apiequality.Semantic.DeepEqual(old, ep) {
		return nil
	}
	return ep
}

// subsetsOf groups pods by their ports. cut says that there were more than an Endpoints may hold; those that are ready have
// precedence.
func subsetsOf(svc *corev1.Service, pods []*corev1.Pod) (subsets []corev1.EndpointSubset, cut bool) {
	byPorts := map[string]*corev1.EndpointSubset{}
	t := addressTypes(svc)[0] // Endpoints know one address family
	for _, wantReady := range []bool{true, false} {
		left := maxEndpointsAddresses
		for _, s := range byPorts {
			left -= len(s.Addresses)
		}
		for _, p := range pods {
			if podstate.Finished(p) || p.DeletionTimestamp != nil && !svc.Spec.PublishNotReadyAddresses {
				continue
			}
			ips := addressesOf(p, t)
			ready := svc.Spec.PublishNotReadyAddresses || podstate.Ready(p)
			ports := portsOf(svc, p)
			if len(ips) == 0 || ready != wantReady || len(ports) == 0 && (len(svc.Spec.Ports) > 0 || !headless(svc)) {
				continue
			}
			if left--; left < 0 {
				cut = true
				break
			}
			key := portsKey(ports)
			s := byPorts[key]
			if s == nil {
				s = &corev1.EndpointSubset{Ports: endpointsPorts(ports)}
				byPorts[key] = s
			}
			addr := addressOf(svc, p, ips[0])
			if ready {
				s.Addresses = append(s.Addresses, addr)
			} else {
				s.NotReadyAddresses = append(s.NotReadyAddresses, addr)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(byPorts)) {
		s := byPorts[key]
		byIP := func(a, b corev1.EndpointAddress) int {
			return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.TargetRef.UID, b.TargetRef.UID))
		}
		slices.SortFunc(s.Addresses, byIP)
		slices.SortFunc(s.NotReadyAddresses, byIP)
		subsets = append(subsets, *s)
	}
	return subsets, cut
}

func addressOf(svc *corev1.Service, pod *corev1.Pod, ip string) corev1.EndpointAddress {
	a := corev1.EndpointAddress{
		IP: ip, Hostname: hostnameOf(svc, pod),
		TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: pod.Namespace, Name: pod.Name, UID: pod.UID},
	}
	if pod.Spec.NodeName != "" {
		name := pod.Spec.NodeName
		a.NodeName = &name
	}
	return a
}

func endpointsPorts(ports []discoveryv1.EndpointPort) []corev1.EndpointPort {
	var out []corev1.EndpointPort
	for _, p := range ports {
		out = append(out, corev1.EndpointPort{Name: *p.Name, Port: *p.Port, Protocol: *p.Protocol, AppProtocol: p.AppProtocol})
	}
	slices.SortFunc(out, func(a, b corev1.EndpointPort) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Protocol, b.Protocol))
	})
	return out
}
