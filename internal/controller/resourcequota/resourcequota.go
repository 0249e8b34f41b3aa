// Package resourcequota keeps status.hard and status.used of ResourceQuotas equal to what they ask for and what the objects of
// their namespace use. Admission charges a quota before it lets an object pass; this controller counts again when a quota
// changes, and gives back what objects that went, ended or were never written have left.
//
// What flows through it: all objects of a namespace that has quotas are measured (package admission/quota) and the sums written.
// What must stay true: namespaces without quotas cost nothing but a look-up. Tests:
// TestStatusFollowsTheNamespace.
package resourcequota

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/server/admission/quota"
)

// again is how long a charge may stand that nothing came of: a request that was refused after it had been counted.
const again = 5 * time.Minute

type reconciler struct {
	client client.Client
	now    func() time.Time
}

// New declares the resource quota controller. Its keys are namespaces.
func New(c client.Client) controller.Controller {
	r := &reconciler{client: c, now: time.Now}
	watches := []controller.Watch{{Resource: api.ResourceQuotas, Keys: quotaKeys}, {Every: func(res *api.Resource) func(client.Event) []api.Key {
		if !counted(res) || res == api.ResourceQuotas {
			return nil
		}
		return usageKeys
	}}}
	return controller.Controller{
		Name:    "resourcequota",
		Workers: 2,
		Watches: watches,
		Writes: []controller.Write{
			controller.Sets(api.ResourceQuotas, "status"),
		},
		Reconciler: r,
	}
}

// counted reports whether a quota may count objects of res.
func counted(res *api.Resource) bool {
	return res.Namespaced && res != api.Events && res != api.Leases
}

func namespaceOf(o api.Object) []api.Key { return []api.Key{{Name: o.GetNamespace()}} }

// quotaKeys: what admission writes to a quota's status is no reason to count, and must not be overwritten before the object that it
// was charged for is there.
func quotaKeys(e client.Event) []api.Key {
	if e.Type == client.Modified && e.Old != nil {
		old, q := e.Old.(*corev1.ResourceQuota), e.Object.(*corev1.ResourceQuota)
		if equality.Semantic.DeepEqual(old.Spec, q.Spec) {
			return nil
		}
	}
	return namespaceOf(e.Object)
}

// usageKeys maps an object whose usage may have changed. One that came has been charged for already, but a count at just that
// time may have missed it.
func usageKeys(e client.Event) []api.Key {
	switch e.Type {
	case client.Added, client.Deleted:
		return namespaceOf(e.Object)
	case client.Modified:
		switch o := e.Object.(type) {
		case *corev1.Pod:
			old, ok := e.Old.(*corev1.Pod)
			ended := o.Status.Phase == corev1.PodSucceeded || o.Status.Phase == corev1.PodFailed
			if ok && (ended && old.Status.Phase != o.Status.Phase || old.DeletionTimestamp == nil && o.DeletionTimestamp != nil ||
				old.Generation != o.Generation) {
				return namespaceOf(o)
			}
		case *corev1.Service:
			if old, ok := e.Old.(*corev1.Service); !ok || !equality.Semantic.DeepEqual(old.Spec, o.Spec) {
				return namespaceOf(o)
			}
		case *corev1.PersistentVolumeClaim:
			if old, ok := e.Old.(*corev1.PersistentVolumeClaim); !ok || !equality.Semantic.DeepEqual(old.Spec, o.Spec) {
				return namespaceOf(o)
			}
		}
	}
	return nil
}

// Reconcile counts for all quotas of the namespace named key.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	quotas, err := client.List[*corev1.ResourceQuota](ctx, r.client, client.ListOptions{Namespace: key.Name})
	if err != nil || len(quotas) == 0 {
		return 0, err
	}
	used := make([]corev1.ResourceList, len(quotas))
	for i, q := range quotas {
		used[i] = zero(q.Spec.Hard)
	}
	now := r.now()
	for _, res := range r.client.Served().Now().Stored() {
		if !counted(res) || !measured(quotas, res) {
			continue
		}
		objs, err := r.client.List(ctx, res, client.ListOptions{Namespace: key.Name})
		if err != nil {
			return 0, err
		}
		for _, obj := range objs {
			count(quotas, used, res, obj, now)
		}
	}
	for i, q := range quotas {
		if equality.Semantic.DeepEqual(q.Status.Hard, q.Spec.Hard) && equality.Semantic.DeepEqual(q.Status.Used, used[i]) {
			continue
		}
		next := q.DeepCopy()
		next.Status = corev1.ResourceQuotaStatus{Hard: q.Spec.Hard.DeepCopy(), Used: used[i]}
		if _, err := r.client.Update(ctx, next, "status"); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("counting for quota %s: %w", api.KeyOf(q), err)
		}
	}
	return again, nil
}

func measured(quotas []*corev1.ResourceQuota, res *api.Resource) bool {
	for _, q := range quotas {
		for name := range q.Spec.Hard {
			if quota.Measures(res, name) {
				return true
			}
		}
	}
	return false
}

// count adds what obj uses to the quotas that it counts for.
func count(quotas []*corev1.ResourceQuota, used []corev1.ResourceList, res *api.Resource, obj api.Object, now time.Time) {
	var usage corev1.ResourceList
	for i, q := range quotas {
		if !quota.Applies(q, q.Spec.Hard, res, obj) {
			continue
		}
		if usage == nil {
			usage = quota.Usage(res, obj, now)
		}
		for name := range q.Spec.Hard {
			if u, ok := usage[name]; ok {
				sum := used[i][name]
				sum.Add(u)
				used[i][name] = sum
			}
		}
	}
}

func zero(hard corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range hard {
		out[name] = resource.Quantity{Format: q.Format}
	}
	return out
}
