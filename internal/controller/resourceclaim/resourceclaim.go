// Package resourceclaim makes the ResourceClaims that pods want from templates, and keeps true who a claim is reserved for (KEP-4381).
//
// What flows through it: a pod, the claims that it owns and the templates that it names go through [planPod], which says which claims to
// make; a claim and the pods that it names, or that name it, go through [planClaim], which says who still uses it, whether its devices are
// given back, and whether it goes. Allocating and reserving are the scheduler's, in the transaction of the binding.
//
// What must stay true: a pod gets one claim an entry, whatever is cut short (TestAClaimIsMadeOnce); devices are given back when the last
// user has ended, and not before (TestDevicesAreGivenBack); a claim that was made for a pod goes with its use (TestPlanClaim).
package resourceclaim

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/dynamic-resource-allocation/resourceclaim"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
)

const component = "resource_claim"

type makerOfClaims struct {
	client client.Client

	mu      sync.Mutex
	waiting map[api.Key]map[api.Key]bool // pods by the template that they wait for
}

// New declares the controller that makes claims from templates.
func New(c client.Client) controller.Controller {
	m := &makerOfClaims{client: c, waiting: map[api.Key]map[api.Key]bool{}}
	return controller.Controller{
		Name: "resourceclaim", Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.Pods, Keys: podKeys},
			{Resource: api.ResourceClaims, Keys: ownerKeys},
			{Resource: api.ResourceClaimTemplates, Keys: m.waitingFor},
		},
		Writes: []controller.Write{
			controller.Creates(api.ResourceClaims),
			controller.Sets(api.Pods, "status", "resourceClaimStatuses").Of("that lack a claim of a template"),
		},
		Reconciler: m,
	}
}

// podKeys maps events of pods to those that want claims from templates.
func podKeys(e client.Event) []api.Key {
	if e.Type == client.Deleted {
		return nil
	}
	for _, c := range e.Object.(*corev1.Pod).Spec.ResourceClaims {
		if c.ResourceClaimTemplateName != nil {
			return []api.Key{api.KeyOf(e.Object)}
		}
	}
	return nil
}

// ownerKeys maps the end of a claim to the pod for which it was made: it gets another one.
func ownerKeys(e client.Event) []api.Key {
	owner := metav1.GetControllerOfNoCopy(e.Object)
	if e.Type != client.Deleted || owner == nil || owner.Kind != "Pod" {
		return nil
	}
	return []api.Key{{Namespace: e.Object.GetNamespace(), Name: owner.Name}}
}

// waitingFor maps a template to the pods that wait for it.
func (m *makerOfClaims) waitingFor(e client.Event) []api.Key {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := api.KeyOf(e.Object)
	pods := slices.Collect(maps.Keys(m.waiting[key]))
	delete(m.waiting, key)
	return pods
}

func (m *makerOfClaims) wait(template, pod api.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.waiting[template] == nil {
		m.waiting[template] = map[api.Key]bool{}
	}
	m.waiting[template][pod] = true
}

// Reconcile makes the claims that the pod named key lacks, and writes their names into its status.
func (m *makerOfClaims) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	pod, err := client.Get[*corev1.Pod](ctx, m.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	owned, templates, err := m.observe(ctx, pod)
	if err != nil {
		return 0, err
	}
	plan := planPod(pod, owned, templates)
	var events []event.Event
	var failure error
	for entry, template := range plan.missing {
		err := apierrors.NewNotFound(api.ResourceClaimTemplates.GroupResource(), template)
		events = append(events, event.Warning(pod, "FailedResourceClaimCreation", "PodResourceClaim %s: resource claim template %q: %v", entry, template, err))
	}
	for _, claim := range plan.create {
		entry := claim.Annotations[resourcev1.PodResourceClaimAnnotation]
		got, err := m.client.Create(ctx, claim)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, nil
		}
		if err != nil {
			failure = fmt.Errorf("creating the claim %s of pod %s: %w", entry, key, err)
			events = append(events, event.Warning(pod, "FailedResourceClaimCreation", "PodResourceClaim %s: create ResourceClaim : %v", entry, err))
			continue
		}
		plan.statuses = append(plan.statuses, corev1.PodResourceClaimStatus{Name: entry, ResourceClaimName: new(got.GetName())})
	}
	event.Write(ctx, m.client, component, time.Now(), events...)
	if len(plan.statuses) > 0 {
		_, err := client.Mutate(ctx, m.client, key, "status", func(p *corev1.Pod) bool {
			p.Status.ResourceClaimStatuses = merged(p.Status.ResourceClaimStatuses, plan.statuses)
			return p.UID == pod.UID
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("writing the claims of pod %s: %w", key, err)
		}
	}
	return 0, failure
}

// observe reads the claims that a pod controls and the templates that it names.
func (m *makerOfClaims) observe(ctx context.Context, pod *corev1.Pod) ([]*resourcev1.ResourceClaim, map[string]*resourcev1.ResourceClaimTemplate, error) {
	all, err := client.List[*resourcev1.ResourceClaim](ctx, m.client, client.ListOptions{Namespace: pod.Namespace, Index: client.IndexOwner, Value: string(pod.UID)})
	if err != nil {
		return nil, nil, err
	}
	owned := slices.DeleteFunc(all, func(c *resourcev1.ResourceClaim) bool { return !metav1.IsControlledBy(c, pod) })
	templates := map[string]*resourcev1.ResourceClaimTemplate{}
	for _, entry := range pod.Spec.ResourceClaims {
		if entry.ResourceClaimTemplateName == nil {
			continue
		}
		key := api.Key{Namespace: pod.Namespace, Name: *entry.ResourceClaimTemplateName}
		m.wait(key, api.KeyOf(pod)) // before it is looked for: it may come between
		t, err := client.Get[*resourcev1.ResourceClaimTemplate](ctx, m.client, key)
		if err == nil {
			templates[key.Name] = t
			m.arrived(key, api.KeyOf(pod))
		} else if !apierrors.IsNotFound(err) {
			return nil, nil, err
		}
	}
	return owned, templates, nil
}

// arrived takes back wait.
func (m *makerOfClaims) arrived(template, pod api.Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if delete(m.waiting[template], pod); len(m.waiting[template]) == 0 {
		delete(m.waiting, template)
	}
}

// claimKeys maps a pod to the claims that it names, and that it named.
func claimKeys(e client.Event) []api.Key {
	var keys []api.Key
	for _, o := range []api.Object{e.Object, e.Old} {
		pod, ok := o.(*corev1.Pod)
		if !ok {
			continue
		}
		for name := range resourceclaim.PodClaims(pod) {
			if key := (api.Key{Namespace: pod.Namespace, Name: name}); !slices.Contains(keys, key) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}
