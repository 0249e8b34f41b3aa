package workload

import (
	"bytes"
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
)

// History reads and writes the ControllerRevisions of owners of one kind.
type History struct {
	Client client.Client
	Kind   schema.GroupVersionKind
	Owners *Owners // of its own, as it remembers for which owners orphaned revisions were looked for
}

// Writes declares what History writes, for owners called only.
func (h *History) Writes(only string) []controller.Write {
	return []controller.Write{
		controller.Creates(api.ControllerRevisions).Of(only),
		controller.Deletes(api.ControllerRevisions).Of(only),
		controller.Sets(api.ControllerRevisions, "revision").Of(only),
		controller.Sets(api.ControllerRevisions, "metadata", "ownerReferences").Of(only),
		controller.Sets(api.ControllerRevisions, "metadata", "labels", rollout.ConfigHash).Of(only),
	}
}

// Of returns the revisions of owner, after adopting and releasing, lowest number first.
func (h *History) Of(ctx context.Context, owner api.Object, selector labels.Selector) ([]*appsv1.ControllerRevision, error) {
	all, err := client.List[*appsv1.ControllerRevision](ctx, h.Client, client.ListOptions{
		Namespace: owner.GetNamespace(), Index: client.IndexOwner, Value: string(owner.GetUID())})
	if err != nil {
		return nil, err
	}
	if h.Owners.Look(api.KeyOf(owner), owner.GetUID()) {
		matching, err := client.List[*appsv1.ControllerRevision](ctx, h.Client, client.ListOptions{Namespace: owner.GetNamespace(), Labels: selector})
		if err != nil {
			h.Owners.Again(api.KeyOf(owner))
			return nil, err
		}
		for _, r := range matching {
			if metav1.GetControllerOfNoCopy(r) == nil {
				all = append(all, r)
			}
		}
	}
	mine, adopt, release := ownership.Sort(owner, selector, all)
	for _, r := range release {
		if err := ownership.Release(ctx, h.Client, owner, r); err != nil {
			return nil, err
		}
	}
	for _, r := range adopt {
		got, err := ownership.Adopt(ctx, h.Client, owner, h.Kind, r)
		if err != nil {
			h.Owners.Again(api.KeyOf(owner))
			return nil, err
		}
		if got != nil {
			mine = append(mine, got)
		}
	}
	SortRevisions(mine)
	return mine, nil
}

// Create stores the revision that build makes. Where its name is taken by another's, or by one that keeps other data, it is built again
// with a higher count of collisions. It returns the revision as stored, and the count.
func (h *History) Create(ctx context.Context, owner api.Object, collisions int32, build func(collisions int32) *appsv1.ControllerRevision) (*appsv1.ControllerRevision, int32, error) {
	for ; ; collisions++ {
		want := build(collisions)
		got, err := h.Client.Create(ctx, want)
		if err == nil {
			return got.(*appsv1.ControllerRevision), collisions, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, collisions, fmt.Errorf("creating ControllerRevision %s: %w", api.KeyOf(want), err)
		}
		there, err := client.Get[*appsv1.ControllerRevision](ctx, h.Client, api.KeyOf(want))
		if err != nil {
			return nil, collisions, err // gone meanwhile: the next try creates it
		}
		if metav1.IsControlledBy(there, owner) && bytes.Equal(there.Data.Raw, want.Data.Raw) && there.Labels[rollout.ConfigHash] == want.Labels[rollout.ConfigHash] {
			return there, collisions, nil
		}
	}
}

// Renumber gives a revision another number, and notes what it was made for, if config says so.
func (h *History) Renumber(ctx context.Context, rev *appsv1.ControllerRevision, number int64, config *podconfig.Now) (*appsv1.ControllerRevision, error) {
	right := func(r *appsv1.ControllerRevision) bool {
		return r.Revision == number && (config == nil || config.Hash == "" || r.Labels[rollout.ConfigHash] == config.Hash)
	}
	if right(rev) {
		return rev, nil
	}
	return client.Mutate(ctx, h.Client, api.KeyOf(rev), "", func(r *appsv1.ControllerRevision) bool {
		if r.UID != rev.UID || right(r) {
			return false
		}
		r.Revision = number
		LabelConfig(r, config)
		return true
	})
}

// LabelConfig notes on a revision what it is made for, if config says so.
func LabelConfig(rev *appsv1.ControllerRevision, config *podconfig.Now) {
	if config == nil || config.Hash == "" {
		return
	}
	if rev.Labels == nil {
		rev.Labels = map[string]string{}
	}
	rev.Labels[rollout.ConfigHash] = config.Hash
}

// Remove deletes revisions. Those that are gone already, perhaps with a successor of the same name, are no error.
func (h *History) Remove(ctx context.Context, revisions []*appsv1.ControllerRevision) error {
	doomed := make([]api.Object, len(revisions))
	for i := range revisions {
		doomed[i] = revisions[i]
	}
	for _, res := range h.Client.DeleteMany(ctx, doomed, metav1.DeleteOptions{}) {
		if res.Err != nil && !apierrors.IsNotFound(res.Err) && !apierrors.IsConflict(res.Err) {
			return res.Err
		}
	}
	return nil
}
