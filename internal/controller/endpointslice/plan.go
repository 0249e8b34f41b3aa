package endpointslice

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/knarr-io/knarr/internal/api"
)

// maxEndpoints is how many endpoints one slice holds.
const maxEndpoints = 100

// actions is what to write for one Service.
type actions struct {
	create, update []api.Object
	remove         []*discoveryv1.EndpointSlice
}

func (a *actions) empty() bool { return len(a.create)+len(a.update)+len(a.remove) == 0 }

// planSlices compares the slices that svc has with the endpoints its pods make. zones has the zone of every node that exists and runs
// one of the pods.
func planSlices(svc *corev1.Service, pods []*corev1.Pod, existing []*discoveryv1.EndpointSlice, zones map[string]string) actions {
	var act actions
	types := addressTypes(svc)
	byType := map[discoveryv1.AddressType][]*discoveryv1.EndpointSlice{}
	for _, s := range existing {
		switch {
		case s.DeletionTimestamp != nil:
		case !slices.Contains(types, s.AddressType) || !ownedBy(s, svc):
			act.remove = append(act.remove, s)
		default:
			byType[s.AddressType] = append(byType[s.AddressType], s)
		}
	}
	for _, t := range types {
		planType(svc, t, groups(svc, pods, t, zones), byType[t], &act)
	}
	return act
}

// planType plans the slices with addresses of type t.
func planType(svc *corev1.Service, t discoveryv1.AddressType, want map[string]*group, have []*discoveryv1.EndpointSlice, act *actions) {
	// A Service without endpoints has one empty slice, so that who waits for it sees that there is nothing yet.
	if len(want) == 0 {
		want = map[string]*group{"": {ports: []discoveryv1.EndpointPort{}}}
	}
	byPorts := map[string][]*discoveryv1.EndpointSlice{}
	for _, s := range have {
		key := portsKey(s.Ports)
		if want[key] == nil {
			act.remove = append(act.remove, s)
			continue
		}
		byPorts[key] = append(byPorts[key], s)
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		planGroup(svc, t, want[key], byPorts[key], act)
	}
}

// draft is a slice in the plan.
type draft struct {
	was       *discoveryv1.EndpointSlice // nil for a new one
	endpoints []discoveryv1.Endpoint
	changed   bool
}

// planGroup plans the slices of endpoints with the same ports. To write few slices, new endpoints go first to slices that
// change anyway, then all together to the one they fill best, and only then to new slices.
func planGroup(svc *corev1.Service, t discoveryv1.AddressType, g *group, have []*discoveryv1.EndpointSlice, act *actions) {
	labels := labelsOf(svc)
	missing := map[string]discoveryv1.Endpoint{}
	for _, ep := range g.endpoints {
		missing[endpointKey(ep)] = ep
	}
	var drafts []*draft
	for _, s := range have {
		d := &draft{was: s, changed: !maps.Equal(s.Labels, labels)}
		for _, ep := range s.Endpoints {
			now, ok := missing[endpointKey(ep)]
			if !ok {
				d.changed = true
				continue
			}
			delete(missing, endpointKey(ep))
			d.changed = d.changed || !apiequality.Semantic.DeepEqual(ep, now)
			d.endpoints = append(d.endpoints, now)
		}
		drafts = append(drafts, d)
	}
	var rest []discoveryv1.Endpoint
	for _, ep := range g.endpoints { // in the pods' order, not the map's
		if _, ok := missing[endpointKey(ep)]; ok {
			delete(missing, endpointKey(ep))
			rest = append(rest, ep)
		}
	}
	for _, d := range fill(drafts, rest) {
		switch {
		case d.was == nil:
			s := newSlice(svc, t, g.ports, d.endpoints)
			noteTrigger(s, latest(d.trigger(g.turned), created(svc, have)))
			act.create = append(act.create, s)
		case d.changed && len(d.endpoints) == 0 && len(g.endpoints) > 0:
			act.remove = append(act.remove, d.was)
		case d.changed:
			s := d.was.DeepCopy()
			s.Labels, s.Endpoints, s.Ports = labels, d.endpoints, g.ports
			noteTrigger(s, d.trigger(g.turned))
			act.update = append(act.update, s)
		}
	}
	if len(g.endpoints) == 0 { // the empty slice: one is enough
		switch {
		case len(have) == 0:
			act.create = append(act.create, newSlice(svc, t, g.ports, nil))
		case len(have) > 1:
			act.remove = append(act.remove, have[1:]...)
			act.update = slices.DeleteFunc(act.update, func(o api.Object) bool {
				return slices.ContainsFunc(have[1:], func(s *discoveryv1.EndpointSlice) bool { return s.Name == o.GetName() })
			})
		}
	}
}

// trigger returns when the last of the pods turned ready or not whose turn the draft is to make known, or the zero time.
func (d *draft) trigger(turned map[string]time.Time) time.Time {
	before := map[string]discoveryv1.EndpointConditions{}
	if d.was != nil {
		for _, ep := range d.was.Endpoints {
			before[endpointKey(ep)] = ep.Conditions
		}
	}
	var at time.Time
	for _, ep := range d.endpoints {
		key := endpointKey(ep)
		if old, had := before[key]; !had || !apiequality.Semantic.DeepEqual(old.Serving, ep.Conditions.Serving) {
			at = latest(at, turned[key])
		}
	}
	return at
}

// created returns when svc was made if it has no slice yet: that is what its first one makes known.
func created(svc *corev1.Service, have []*discoveryv1.EndpointSlice) time.Time {
	if len(have) > 0 {
		return time.Time{}
	}
	return svc.CreationTimestamp.Time
}

func latest(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// noteTrigger notes at in s, from which proxies tell how long it took until they had the change
// (https://github.com/kubernetes/community/blob/master/sig-scalability/slos/network_programming_latency.md). No time removes the note: what
// changed is no pod's readiness.
func noteTrigger(s *discoveryv1.EndpointSlice, at time.Time) {
	if at.IsZero() {
		delete(s.Annotations, corev1.EndpointsLastChangeTriggerTime)
		return
	}
	if s.Annotations == nil {
		s.Annotations = map[string]string{}
	}
	s.Annotations[corev1.EndpointsLastChangeTriggerTime] = at.UTC().Format(time.RFC3339Nano)
}

// fill places the endpoints rest in drafts and new ones.
func fill(drafts []*draft, rest []discoveryv1.Endpoint) []*draft {
	add := func(d *draft, n int) {
		d.endpoints = append(d.endpoints, rest[:n]...)
		d.changed = true
		rest = rest[n:]
	}
	// The fullest first: the others may run empty and go.
	byRoom := slices.Clone(drafts)
	slices.SortStableFunc(byRoom, func(a, b *draft) int { return len(b.endpoints) - len(a.endpoints) })
	for _, d := range byRoom {
		if d.changed && len(rest) > 0 && len(d.endpoints) < maxEndpoints {
			add(d, min(len(rest), maxEndpoints-len(d.endpoints)))
		}
	}
	for len(rest) > 0 {
		n := min(len(rest), maxEndpoints)
		var best *draft
		for _, d := range byRoom { // the first with enough room is the fullest such
			if len(d.endpoints)+n <= maxEndpoints {
				best = d
				break
			}
		}
		if best == nil {
			best = &draft{}
			drafts = append(drafts, best)
		}
		add(best, n)
	}
	return drafts
}

// endpointKey identifies the pod of an endpoint.
func endpointKey(ep discoveryv1.Endpoint) string {
	if ep.TargetRef == nil {
		return strings.Join(ep.Addresses, ",")
	}
	return ep.TargetRef.Namespace + "/" + ep.TargetRef.Name + "/" + string(ep.TargetRef.UID)
}

func ownedBy(s *discoveryv1.EndpointSlice, svc *corev1.Service) bool {
	return slices.ContainsFunc(s.OwnerReferences, func(r metav1.OwnerReference) bool {
		return r.UID == svc.UID && r.Kind == "Service" && r.APIVersion == "v1"
	})
}

// labelsOf are the labels of svc's slices: the Service's own and those by which slices are found.
func labelsOf(svc *corev1.Service) map[string]string {
	out := map[string]string{}
	maps.Copy(out, svc.Labels)
	delete(out, corev1.IsHeadlessService)
	if headless(svc) {
		out[corev1.IsHeadlessService] = ""
	}
	out[discoveryv1.LabelServiceName] = svc.Name
	out[discoveryv1.LabelManagedBy] = managedBy
	return out
}

func headless(svc *corev1.Service) bool {
	return svc.Spec.ClusterIP == corev1.ClusterIPNone || svc.Spec.ClusterIP == ""
}

func newSlice(svc *corev1.Service, t discoveryv1.AddressType, ports []discoveryv1.EndpointPort, endpoints []discoveryv1.Endpoint) *discoveryv1.EndpointSlice {
	prefix := svc.Name + "-"
	if len(prefix) > validation.DNS1123SubdomainMaxLength {
		prefix = svc.Name
	}
	if endpoints == nil {
		endpoints = []discoveryv1.Endpoint{}
	}
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: svc.Namespace, GenerateName: prefix, Labels: labelsOf(svc),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(svc, corev1.SchemeGroupVersion.WithKind("Service"))},
		},
		AddressType: t, Ports: ports, Endpoints: endpoints,
	}
}
