// Package endpointslice writes which pods stand behind a Service: as EndpointSlices, of which everything in Knarr reads, and
// as Endpoints for older clients.
//
// What flows through it: a Service with a selector, the pods it selects, the nodes' zones and the Service's slices are read;
// [planSlices] says which slices to create, change and delete so that few of them are written; the changes go out
// in bulk. What must stay true: planning is a pure function of what was read; slices of other controllers and of Services without
// a selector are never touched; the first change of a Service is written at once, a burst of further ones together. Tests:
// TestPlannersArePure (internal/laws), TestLeavesOthersAlone, TestBurstsAreWrittenTogether.
package endpointslice

import (
	"context"
	"errors"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
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
	// managedBy is the value of the label endpointslice.kubernetes.io/managed-by of our slices.
	managedBy = "endpointslice-controller.k8s.io"
	// slicePace is the least time between two writes for one Service: a rollout changes endpoints by the hundred, and every
	// node reads every change.
	slicePace = 50 * time.Millisecond
)

type reconciler struct {
	client client.Client
	pace   *pace.Pace
}

// New declares the EndpointSlice controller.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name:    "endpointslice",
		Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.Services},
			{Resource: api.Pods, Keys: func(e client.Event) []api.Key { return podKeys(c, e) }},
			{Resource: api.ReplicaSets, Keys: func(e client.Event) []api.Key { return trafficKeys(c, e) }},
			{Resource: api.Nodes, Keys: func(e client.Event) []api.Key { return nodeKeys(c, e) }},
			{Resource: api.EndpointSlices, Keys: sliceKeys},
		},
		Writes:     declare(api.EndpointSlices, "of Services with a selector", "endpoints", "ports", "addressType"),
		Reconciler: &reconciler{client: c, pace: pace.New(slicePace)},
	}
}

// declare returns what the controllers of this package write: objects whose labels and annotations follow the Service or the Endpoints, and
// these fields of them.
func declare(res *api.Resource, only string, fields ...string) []controller.Write {
	out := []controller.Write{
		controller.Creates(res).Of(only), controller.Deletes(res).Of(only),
		controller.Sets(res, "metadata", "labels").Of(only), controller.Sets(res, "metadata", "annotations").Of(only),
	}
	for _, f := range fields {
		out = append(out, controller.Sets(res, f).Of(only))
	}
	return out
}

// sliceKeys maps one of our slices to its Service.
func sliceKeys(e client.Event) []api.Key {
	l := e.Object.GetLabels()
	if l[discoveryv1.LabelManagedBy] != managedBy || l[discoveryv1.LabelServiceName] == "" {
		return nil
	}
	return []api.Key{{Namespace: e.Object.GetNamespace(), Name: l[discoveryv1.LabelServiceName]}}
}

// podKeys maps a pod to the Services that select it or did. A change that no endpoint shows maps to none; the end of a pod is one
// that shows, even if nothing told before that it was coming (deletion without grace).
func podKeys(c client.Client, e client.Event) []api.Key {
	pod := e.Object.(*corev1.Pod)
	old, _ := e.Old.(*corev1.Pod)
	if e.Type == client.Modified && old != nil && !endpointChanged(old, pod) {
		return nil
	}
	all, err := client.List[*corev1.Service](context.Background(), c, client.ListOptions{Namespace: pod.Namespace})
	if err != nil {
		return nil
	}
	var keys []api.Key
	for _, svc := range all {
		if selects(svc) && (chooses(svc, pod) || old != nil && chooses(svc, old)) {
			keys = append(keys, api.KeyOf(svc))
		}
	}
	return keys
}

// chooses reports whether svc's selector matches pod. It runs for every pod event and Service of a namespace, so it makes no Selector.
func chooses(svc *corev1.Service, pod *corev1.Pod) bool {
	for k, v := range svc.Spec.Selector {
		if has, ok := pod.Labels[k]; !ok || has != v {
			return false
		}
	}
	return true
}

// endpointChanged reports whether two states of a pod can make different endpoints.
func endpointChanged(a, b *corev1.Pod) bool {
	return a.UID != b.UID || a.Spec.NodeName != b.Spec.NodeName || a.Spec.Hostname != b.Spec.Hostname || a.Spec.Subdomain != b.Spec.Subdomain ||
		podstate.Ready(a) != podstate.Ready(b) || podstate.Finished(a) != podstate.Finished(b) ||
		(a.DeletionTimestamp == nil) != (b.DeletionTimestamp == nil) ||
		!slices.Equal(a.Status.PodIPs, b.Status.PodIPs) || !labels.Equals(a.Labels, b.Labels)
}

// nodeKeys maps a node that came, went or moved to another zone to the Services of its pods.
func nodeKeys(c client.Client, e client.Event) []api.Key {
	if e.Type == client.Modified && e.Old != nil && e.Old.GetLabels()[corev1.LabelTopologyZone] == e.Object.GetLabels()[corev1.LabelTopologyZone] {
		return nil
	}
	pods, err := client.List[*corev1.Pod](context.Background(), c, client.ListOptions{Index: client.IndexNode, Value: e.Object.GetName()})
	if err != nil {
		return nil
	}
	var keys []api.Key
	for _, p := range pods {
		for _, k := range podKeys(c, client.Event{Object: p}) {
			if !slices.Contains(keys, k) {
				keys = append(keys, k)
			}
		}
	}
	return keys
}

// Reconcile brings the slices of one Service up to date.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	svc, err := client.Get[*corev1.Service](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.pace.Forget(key)
		return 0, nil // its slices are collected with it, as its dependents
	}
	if err != nil {
		return 0, err
	}
	if !selects(svc) {
		return 0, nil
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
	all, err := client.List[*discoveryv1.EndpointSlice](ctx, r.client, client.ListOptions{
		Namespace: svc.Namespace, Index: client.IndexService, Value: svc.Namespace + "/" + svc.Name})
	if err != nil {
		return 0, err
	}
	existing := slices.DeleteFunc(all, func(s *discoveryv1.EndpointSlice) bool { return s.Labels[discoveryv1.LabelManagedBy] != managedBy })
	act := planSlices(svc, pods, existing, nodeZones(ctx, r.client, pods))
	if act.empty() {
		return 0, nil
	}
	r.pace.Wrote(key, time.Now())
	return 0, r.apply(ctx, act)
}

// apply writes act. What is new is written before what goes, so that no endpoint is missing in between.
func (r *reconciler) apply(ctx context.Context, act actions) error {
	var errs []error
	for _, res := range r.client.CreateMany(ctx, act.create) {
		if res.Err != nil && !apierrors.HasStatusCause(res.Err, corev1.NamespaceTerminatingCause) {
			errs = append(errs, res.Err)
		}
	}
	for _, res := range r.client.UpdateMany(ctx, act.update, "") {
		if res.Err != nil && !apierrors.IsNotFound(res.Err) {
			errs = append(errs, res.Err)
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	for _, s := range act.remove {
		uid := s.UID
		err := client.Delete[*discoveryv1.EndpointSlice](ctx, r.client, api.KeyOf(s), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// selects reports whether svc's endpoints are ours to write.
func selects(svc *corev1.Service) bool {
	return svc.Spec.Type != corev1.ServiceTypeExternalName && len(svc.Spec.Selector) > 0
}

// nodeZones returns the zones of the nodes of pods; a node that is gone is not among them.
func nodeZones(ctx context.Context, c client.Client, pods []*corev1.Pod) map[string]string {
	out := map[string]string{}
	asked := map[string]bool{}
	for _, p := range pods {
		name := p.Spec.NodeName
		if name == "" || asked[name] {
			continue
		}
		asked[name] = true
		if n, err := client.Get[*corev1.Node](ctx, c, api.Key{Name: name}); err == nil {
			out[name] = n.Labels[corev1.LabelTopologyZone]
		}
	}
	return out
}
