package registry

import (
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/store"
)

// volumes returns the mutations that give a pod's claims their volumes, for the transaction that binds it. What is not as it was decided is a
// conflict, so that no room is taken that the scheduler did not see, and no pod gets to a node without its volumes.
func (r *Registry) volumes(ctx context.Context, all []volume.Binding, opts metav1.CreateOptions) ([]store.Mutation, error) {
	var out []store.Mutation
	res, t := api.PersistentVolumeClaims, r.Table(api.PersistentVolumeClaims)
	for i := range all {
		b := &all[i]
		conflict := func(format string, args ...any) error {
			return apierrors.NewConflict(res.GroupResource(), b.Claim.Name, fmt.Errorf("claim %s %s", b.Claim, fmt.Sprintf(format, args...)))
		}
		current, ok := t.Get(res.Key(b.Claim))
		if !ok {
			return nil, conflict("is gone")
		}
		claim := current.Object.(*corev1.PersistentVolumeClaim)
		switch {
		case claim.UID != b.UID:
			return nil, conflict("is another one by now")
		case claim.DeletionTimestamp != nil:
			return nil, conflict("got deleted in the meantime")
		case volume.Complete(claim) && (b.Volume == nil || b.Volume.Name == claim.Spec.VolumeName):
			continue
		case b.Volume == nil:
			return nil, conflict("is not bound")
		case claim.Spec.VolumeName != "":
			return nil, conflict("got volume %s in the meantime", claim.Spec.VolumeName)
		}
		changed, next, err := r.boundVolume(ctx, b, claim, opts)
		if err != nil {
			return nil, err
		}
		if err := r.changedWith(ctx, res, claim, next, opts); err != nil {
			return nil, err
		}
		out = append(out, changed, store.Mutation{Table: t, Key: current.Key, Object: next, If: current.Rev})
	}
	return out, nil
}

// boundVolume returns the mutation that makes a claim's volume, or binds one that is there, and the claim with it.
func (r *Registry) boundVolume(ctx context.Context, b *volume.Binding, claim *corev1.PersistentVolumeClaim, opts metav1.CreateOptions) (store.Mutation, *corev1.PersistentVolumeClaim, error) {
	res, t := api.PersistentVolumes, r.Table(api.PersistentVolumes)
	if b.New {
		made := b.Volume.DeepCopy()
		if err := r.prepareCreate(ctx, res, made, creation{CreateOptions: opts}); err != nil {
			return store.Mutation{}, nil, err
		}
		v, next, err := volume.Bind(made, claim)
		if err != nil {
			return store.Mutation{}, nil, apierrors.NewBadRequest(err.Error())
		}
		return store.Mutation{Table: t, Key: res.Key(api.KeyOf(v)), Object: v, If: 0}, next, nil
	}
	current, ok := t.Get(res.Key(api.KeyOf(b.Volume)))
	if !ok {
		return store.Mutation{}, nil, apierrors.NewConflict(res.GroupResource(), b.Volume.Name, fmt.Errorf("volume %s is gone", b.Volume.Name))
	}
	have := current.Object.(*corev1.PersistentVolume)
	if have.DeletionTimestamp != nil || have.Spec.ClaimRef != nil && !storage.IsVolumeBoundToClaim(have, claim) {
		return store.Mutation{}, nil, apierrors.NewConflict(res.GroupResource(), have.Name, fmt.Errorf("volume %s was deleted, or is another claim's by now", have.Name))
	}
	v, next, err := volume.Bind(have, claim)
	if err != nil {
		return store.Mutation{}, nil, apierrors.NewBadRequest(err.Error())
	}
	if have.Status.Phase != v.Status.Phase {
		v.Status.LastPhaseTransitionTime = &metav1.Time{Time: now()}
	}
	if err := r.changedWith(ctx, res, have, v, opts); err != nil {
		return store.Mutation{}, nil, err
	}
	return store.Mutation{Table: t, Key: current.Key, Object: v, If: current.Rev}, next, nil
}

// changedWith prepares an object that changes with the binding of a pod: admission is asked, and it has to be valid.
func (r *Registry) changedWith(ctx context.Context, res *api.Resource, have, next api.Object, opts metav1.CreateOptions) error {
	update := &metav1.UpdateOptions{DryRun: opts.DryRun, FieldManager: opts.FieldManager}
	if err := r.Admit(ctx, &admission.Attributes{Operation: admission.Update, Resource: res, Key: api.KeyOf(next), Object: next, Old: have,
		Options: update, DryRun: len(opts.DryRun) > 0}); err != nil {
		return err
	}
	r.times.Cut(next)
	if errs := res.ValidateUpdate(next, have, ""); len(errs) > 0 {
		return invalid(res, next, errs)
	}
	if err := r.record(ctx, res, "", have, next, opts.FieldManager); err != nil {
		return err
	}
	next.SetResourceVersion("")
	return nil
}

// unbound reports whether one of a pod's claims is not bound yet that another pod of the same batch may bind.
func (r *Registry) unbound(all []volume.Binding) bool {
	return slices.ContainsFunc(all, func(b volume.Binding) bool {
		if b.Volume != nil {
			return false
		}
		current, ok := r.Table(api.PersistentVolumeClaims).Get(api.PersistentVolumeClaims.Key(b.Claim))
		return ok && !volume.Complete(current.Object.(*corev1.PersistentVolumeClaim))
	})
}
