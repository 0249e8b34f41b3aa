package plugins

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/quota"
)

// ResourceQuota refuses what would exceed one of the namespace's quotas, and charges the quotas for what it lets pass: it raises
// status.used before the object is written, so that two requests at a time cannot both take the last of it. The quota
// controller gives back what is not used in the end.
type ResourceQuota struct {
	Reader admission.Reader
	Quotas StatusWriter
}

// Name implements admission.Plugin.
func (ResourceQuota) Name() string { return "ResourceQuota" }

// Admit implements admission.Plugin.
func (ResourceQuota) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (p ResourceQuota) Validate(ctx context.Context, a *admission.Attributes) error {
	if a.Key.Namespace == "" || !charged(a) || a.Refused {
		return nil
	}
	var quotas []*corev1.ResourceQuota
	p.Reader.List(api.ResourceQuotas, a.Key.Namespace, func(o api.Object) bool {
		quotas = append(quotas, o.(*corev1.ResourceQuota))
		return true
	})
	if len(quotas) == 0 {
		return nil
	}
	now := time.Now()
	// All are looked at before the first is charged.
	for _, q := range quotas {
		if _, err := charge(a, q, now); err != nil {
			return err
		}
	}
	if a.DryRun {
		return nil
	}
	for _, q := range quotas {
		if err := p.write(ctx, a, q, now); err != nil {
			return err
		}
	}
	return nil
}

// charged tells whether the write can use more than before.
func charged(a *admission.Attributes) bool {
	switch {
	case a.Resource == api.Events || a.Resource == api.Leases: // written all the time, and by the system
		return false
	case a.Operation == admission.Create:
		return a.Subresource == ""
	case a.Operation != admission.Update:
		return false
	case a.Resource == api.Pods:
		return a.Subresource == "resize" || a.Subresource == "" &&
			(a.Object.(*corev1.Pod).Spec.ActiveDeadlineSeconds == nil) != (a.Old.(*corev1.Pod).Spec.ActiveDeadlineSeconds == nil)
	}
	return a.Subresource == "" && (a.Resource == api.Services || a.Resource == api.PersistentVolumeClaims)
}

// write charges one quota, again if someone else was faster.
func (p ResourceQuota) write(ctx context.Context, a *admission.Attributes, q *corev1.ResourceQuota, now time.Time) error {
	for {
		used, err := charge(a, q, now)
		if err != nil || used == nil {
			return err
		}
		next := q.DeepCopy()
		next.Status.Used = used
		_, err = p.Quotas.Update(ctx, next, "status")
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			return fmt.Errorf("charging quota %s: %w", q.Name, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		obj, ok := p.Reader.Get(api.ResourceQuotas, api.KeyOf(q))
		if !ok {
			return nil
		}
		q = obj.(*corev1.ResourceQuota)
	}
}

// charge returns what a quota's status.used is once the write has happened; nil if it does not change. The error is the 403 if
// the quota does not allow the write.
func charge(a *admission.Attributes, q *corev1.ResourceQuota, now time.Time) (corev1.ResourceList, error) {
	hard := q.Status.Hard
	if len(hard) == 0 {
		hard = q.Spec.Hard // the controller has not seen it yet
	}
	if !quota.Applies(q, hard, a.Resource, a.Object) {
		return nil, nil
	}
	var limited []corev1.ResourceName
	for _, name := range slices.Sorted(maps.Keys(hard)) {
		if quota.Measures(a.Resource, name) {
			limited = append(limited, name)
		}
	}
	if pod, ok := a.Object.(*corev1.Pod); ok {
		if missing := quota.Missing(pod, limited); missing != "" {
			return nil, forbidden(a, "failed quota: %s: must specify %s", q.Name, missing)
		}
	}
	for _, name := range limited {
		if _, ok := q.Status.Used[name]; !ok {
			return nil, forbidden(a, "status unknown for quota: %s, resources: %s", q.Name, joinNames(limited))
		}
	}
	delta := quota.Usage(a.Resource, a.Object, now)
	if a.Old != nil && quota.Applies(q, hard, a.Resource, a.Old) {
		subtract(delta, quota.Usage(a.Resource, a.Old, now))
	}
	var exceeded []corev1.ResourceName
	more := corev1.ResourceList{}
	for _, name := range limited {
		d, ok := delta[name]
		if !ok || d.Sign() <= 0 {
			continue
		}
		more[name] = d
		sum := q.Status.Used[name].DeepCopy()
		sum.Add(d)
		if sum.Cmp(hard[name]) > 0 {
			exceeded = append(exceeded, name)
		}
	}
	switch {
	case len(exceeded) > 0:
		return nil, forbidden(a, "exceeded quota: %s, requested: %s, used: %s, limited: %s", q.Name,
			quota.Write(more, exceeded), quota.Write(q.Status.Used, exceeded), quota.Write(hard, exceeded))
	case len(more) == 0:
		return nil, nil
	}
	return quota.Add(q.Status.Used, more), nil
}

func subtract(from, what corev1.ResourceList) {
	for name, q := range what {
		if f, ok := from[name]; ok {
			f = f.DeepCopy()
			f.Sub(q)
			from[name] = f
		}
	}
}

func joinNames(names []corev1.ResourceName) string {
	s := make([]string, len(names))
	for i, n := range names {
		s[i] = string(n)
	}
	return strings.Join(s, ",")
}
