// Package ownership decides which objects belong to a controlling object (the Pods of a ReplicaSet, the ReplicaSets of a
// Deployment) and writes the owner references that record it.
//
// What flows through it: candidates are split by [Sort] into those the owner has, those it should adopt (they match its
// selector and nobody controls them) and those it should release (it controls them but they no longer match); [Adopt] and
// [Release] write. What must stay true: an object has at most one controller, an object that another one controls is never
// touched, and an owner that is being deleted takes and gives nothing. See
// https://github.com/kubernetes/design-proposals-archive/blob/main/api-machinery/controller-ref.md. Tests: TestSort.
package ownership

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// Sort splits objs by what owner, which selects them with selector, should do about them. Objects in no result are none of
// its business.
func Sort[T api.Object](owner metav1.Object, selector labels.Selector, objs []T) (mine, adopt, release []T) {
	leaving := owner.GetDeletionTimestamp() != nil
	for _, o := range objs {
		matches := selector.Matches(labels.Set(o.GetLabels()))
		ref := metav1.GetControllerOfNoCopy(o)
		switch {
		case ref != nil && ref.UID != owner.GetUID():
		case ref != nil && matches:
			mine = append(mine, o)
		case ref != nil:
			if !leaving {
				release = append(release, o)
			}
		case matches && !leaving && o.GetDeletionTimestamp() == nil:
			adopt = append(adopt, o)
		}
	}
	return mine, adopt, release
}

// Adopt makes owner, of kind gvk, the controller of obj. It returns obj as stored, or the zero T where obj is gone, is
// being deleted or was taken by another meanwhile. owner must have been seen alive. obj gets the finalizers, too.
func Adopt[T api.Object](ctx context.Context, c client.Client, owner metav1.Object, gvk schema.GroupVersionKind, obj T, finalizers ...string) (T, error) {
	var none T
	took := false
	got, err := client.Mutate(ctx, c, api.KeyOf(obj), "", func(o T) bool {
		took = o.GetUID() == obj.GetUID() && o.GetDeletionTimestamp() == nil && metav1.GetControllerOfNoCopy(o) == nil
		if took {
			refs := slices.DeleteFunc(o.GetOwnerReferences(), func(r metav1.OwnerReference) bool { return r.UID == owner.GetUID() })
			o.SetOwnerReferences(append(refs, *metav1.NewControllerRef(owner, gvk)))
			o.SetFinalizers(append(without(o.GetFinalizers(), finalizers), finalizers...))
		}
		return took
	})
	switch {
	case apierrors.IsNotFound(err) || err == nil && !took:
		return none, nil
	case err != nil:
		return none, fmt.Errorf("adopting %s: %w", api.KeyOf(obj), err)
	}
	return got, nil
}

// Release takes owner out of obj's owner references, and takes the finalizers off obj.
func Release[T api.Object](ctx context.Context, c client.Client, owner metav1.Object, obj T, finalizers ...string) error {
	_, err := client.Mutate(ctx, c, api.KeyOf(obj), "", func(o T) bool {
		refs := slices.DeleteFunc(slices.Clone(o.GetOwnerReferences()), func(r metav1.OwnerReference) bool { return r.UID == owner.GetUID() })
		if o.GetUID() != obj.GetUID() || len(refs) == len(o.GetOwnerReferences()) {
			return false
		}
		o.SetOwnerReferences(refs)
		o.SetFinalizers(without(o.GetFinalizers(), finalizers))
		return true
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("releasing %s: %w", api.KeyOf(obj), err)
	}
	return nil
}

// without returns list without those in taken.
func without(list, taken []string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(s string) bool { return slices.Contains(taken, s) })
}

// ControllerKey returns the key of the object of kind gk that controls obj.
func ControllerKey(obj metav1.Object, gk schema.GroupKind) (api.Key, bool) {
	ref := metav1.GetControllerOfNoCopy(obj)
	if ref == nil || ref.Kind != gk.Kind {
		return api.Key{}, false
	}
	if gv, err := schema.ParseGroupVersion(ref.APIVersion); err != nil || gv.Group != gk.Group {
		return api.Key{}, false
	}
	return api.Key{Namespace: obj.GetNamespace(), Name: ref.Name}, true
}

// EventKeys maps an event of an object that owners of kind gk control to the owners to look at: its controller now and
// before, and, where nobody controls it, those that orphans returns.
func EventKeys(e client.Event, gk schema.GroupKind, orphans func(obj api.Object) []api.Key) []api.Key {
	var keys []api.Key
	if k, ok := ControllerKey(e.Object, gk); ok {
		keys = append(keys, k)
	} else if e.Type != client.Deleted && metav1.GetControllerOfNoCopy(e.Object) == nil {
		keys = append(keys, orphans(e.Object)...)
	}
	if e.Old != nil {
		if k, ok := ControllerKey(e.Old, gk); ok && !slices.Contains(keys, k) {
			keys = append(keys, k)
		}
	}
	return keys
}
