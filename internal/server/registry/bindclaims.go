package registry

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/claims"
	"github.com/knarr-io/knarr/internal/store"
)

// claims returns the mutations of a pod's claims, for the transaction that binds it. What is not as it was decided is a conflict.
func (r *Registry) claims(ctx context.Context, pod *corev1.Pod, all []claims.Claim, opts metav1.CreateOptions) ([]store.Mutation, error) {
	var out []store.Mutation
	res, t := api.ResourceClaims, r.Table(api.ResourceClaims)
	for i := range all {
		c := &all[i]
		current, ok := t.Get(res.Key(c.Key))
		if !ok {
			return nil, apierrors.NewConflict(res.GroupResource(), c.Key.Name, fmt.Errorf("claim %s is gone", c.Key))
		}
		have := current.Object.(*resourcev1.ResourceClaim)
		next, why := c.Reserve(have, pod, now())
		if why != "" {
			return nil, apierrors.NewConflict(res.GroupResource(), c.Key.Name, fmt.Errorf("claim %s %s", c.Key, why))
		}
		if next == nil {
			continue
		}
		update := &metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager}
		if err := r.Admit(ctx, &admission.Attributes{Operation: admission.Update, Resource: res, Subresource: "status", Key: c.Key, Object: next,
			Old: have, Options: update, DryRun: len(opts.DryRun) > 0}); err != nil {
			return nil, err
		}
		r.times.Cut(next)
		if errs := res.ValidateUpdate(next, have, "status"); len(errs) > 0 {
			return nil, invalid(res, next, errs)
		}
		if err := r.record(ctx, res, "status", have, next, opts.FieldManager); err != nil {
			return nil, err
		}
		next.ResourceVersion = ""
		out = append(out, store.Mutation{Table: t, Key: current.Key, Object: next, If: current.Rev})
	}
	return out, nil
}

// tooEarly reports whether one of a pod's claims has no devices yet that another pod of the same batch may bring.
func (r *Registry) tooEarly(all []claims.Claim) bool {
	return slices.ContainsFunc(all, func(c claims.Claim) bool {
		current, ok := r.Table(api.ResourceClaims).Get(api.ResourceClaims.Key(c.Key))
		return ok && c.Early(current.Object.(*resourcev1.ResourceClaim))
	})
}
