// Package garbagecollector deletes objects whose owners are gone, and carries out what a deletion asked for its dependents:
// in the background, in the foreground (dependents first) or orphaned.
//
// What flows through it: every object with owner references is looked at when it comes, when its references change and when
// an owner goes; every object that is being deleted with one of the collector's finalizers when that begins and when a
// dependent goes. There is no graph to keep: dependents are found in the shared copy's index of owner UIDs, owners by their name.
// What must stay true: an object is deleted only if none of its owners exists, at exactly the revision at which that was seen; an
// owner of an unknown kind counts as existing. See
// https://kubernetes.io/docs/concepts/architecture/garbage-collection/. Tests: TestDependentsOfWhatWentWhileNobodyLooked,
// TestOwnersThatNeverWere, TestPlan.
package garbagecollector

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
)

const component = "garbage-collector-controller"

type reconciler struct {
	client client.Client

	mu  sync.Mutex
	now collected
}

// collected are the resources of a catalogue whose objects may own and be owned.
type collected struct {
	catalog   *api.Catalog
	resources []*api.Resource
	byName    map[string]*api.Resource // by PLURAL.GROUP, as keys name them
}

// New declares the garbage collector.
func New(c client.Client) controller.Controller {
	r := &reconciler{client: c}
	return controller.Controller{
		Name:    "garbagecollector",
		Workers: 10,
		Watches: []controller.Watch{{Every: func(res *api.Resource) func(client.Event) []api.Key {
			if !owning(res) {
				return nil
			}
			return func(e client.Event) []api.Key { return r.keys(res, e) }
		}}},
		Writes: []controller.Write{
			controller.Deletes(nil).Of("with their owners"),
			controller.Sets(nil, "metadata", "ownerReferences").Of("to owners that are gone or go"),
			controller.Sets(nil, "metadata", "finalizers", metav1.FinalizerOrphanDependents),
			controller.Sets(nil, "metadata", "finalizers", metav1.FinalizerDeleteDependents),
		},
		Reconciler: r,
	}
}

// owning reports whether objects of res may own and be owned. Events come by the thousand and own nothing.
func owning(res *api.Resource) bool {
	return res != api.Events && (res.Verbs == nil || slices.Contains(res.Verbs, "delete"))
}

// present returns the resources of the present catalogue.
func (r *reconciler) present() collected {
	r.mu.Lock()
	defer r.mu.Unlock()
	if catalog := r.client.Served().Now(); catalog != r.now.catalog {
		r.now = collected{catalog: catalog, byName: map[string]*api.Resource{}}
		for _, res := range catalog.Stored() {
			if owning(res) {
				r.now.resources = append(r.now.resources, res)
				r.now.byName[res.GroupResource().String()] = res
			}
		}
	}
	return r.now
}

// keyOf names an object of any resource in a queue key: the resource as namespace, NAMESPACE/NAME as name.
func keyOf(res *api.Resource, obj metav1.Object) api.Key {
	return api.Key{Namespace: res.GroupResource().String(), Name: obj.GetNamespace() + "/" + obj.GetName()}
}

func (r *reconciler) parse(key api.Key) (*api.Resource, api.Key) {
	namespace, name, _ := strings.Cut(key.Name, "/")
	return r.present().byName[key.Namespace], api.Key{Namespace: namespace, Name: name}
}

// keys maps a change to what it may set going: the object itself, its dependents if it went, and its owners that wait for it.
func (r *reconciler) keys(res *api.Resource, e client.Event) []api.Key {
	obj := e.Object
	if e.Type == client.Deleted {
		var keys []api.Key
		for _, d := range r.dependents(context.Background(), obj) {
			keys = append(keys, keyOf(d.res, d.Object))
		}
		return append(keys, r.waitingOwners(obj, obj.GetOwnerReferences())...)
	}
	var keys []api.Key
	had, has := []metav1.OwnerReference(nil), obj.GetOwnerReferences()
	sameTask := false // a second deletion may ask for another one
	if e.Old != nil {
		had = e.Old.GetOwnerReferences()
		sameTask = collecting(e.Old) && hasFinalizer(e.Old, metav1.FinalizerOrphanDependents) == hasFinalizer(obj, metav1.FinalizerOrphanDependents)
	}
	changed := !slices.EqualFunc(had, has, sameReference)
	if changed && len(has) > 0 || collecting(obj) && (!sameTask || changed) {
		keys = append(keys, keyOf(res, obj))
	}
	if changed && len(had) > 0 {
		keys = append(keys, r.waitingOwners(obj, had)...)
	}
	return keys
}

// collecting reports whether obj is being deleted and waits for the collector.
func collecting(obj metav1.Object) bool {
	return obj.GetDeletionTimestamp() != nil && (hasFinalizer(obj, metav1.FinalizerOrphanDependents) || hasFinalizer(obj, metav1.FinalizerDeleteDependents))
}

func hasFinalizer(obj metav1.Object, name string) bool {
	return slices.Contains(obj.GetFinalizers(), name)
}

func sameReference(a, b metav1.OwnerReference) bool {
	return a.UID == b.UID && a.Name == b.Name && a.Kind == b.Kind && a.APIVersion == b.APIVersion && blocks(a) == blocks(b)
}

func blocks(ref metav1.OwnerReference) bool {
	return ref.BlockOwnerDeletion != nil && *ref.BlockOwnerDeletion
}

// waitingOwners returns the keys of those owners of obj that are being deleted in the foreground.
func (r *reconciler) waitingOwners(obj metav1.Object, refs []metav1.OwnerReference) []api.Key {
	var keys []api.Key
	for _, ref := range refs {
		owner, state := r.owner(context.Background(), obj, ref)
		if state == waiting {
			keys = append(keys, keyOf(owner.res, owner.Object))
		}
	}
	return keys
}

// object is an object and its resource.
type object struct {
	api.Object
	res *api.Resource
}

// dependents returns all objects that name owner in their owner references.
func (r *reconciler) dependents(ctx context.Context, owner metav1.Object) []object {
	var out []object
	for _, res := range r.present().resources {
		objs, err := r.client.List(ctx, res, client.ListOptions{Index: client.IndexOwner, Value: string(owner.GetUID())})
		if err != nil {
			continue // only if the index is missing, which a test would show
		}
		for _, o := range objs {
			out = append(out, object{o, res})
		}
	}
	return out
}

// owner looks up one owner of obj and says what state it is in.
func (r *reconciler) owner(ctx context.Context, obj metav1.Object, ref metav1.OwnerReference) (object, ownerState) {
	gv, err := schema.ParseGroupVersion(ref.APIVersion)
	if err != nil {
		return object{}, unknown
	}
	res := r.present().catalog.Kind(gv.WithKind(ref.Kind))
	if res == nil {
		return object{}, unknown
	}
	key := api.Key{Name: ref.Name}
	if res.Namespaced {
		if obj.GetNamespace() == "" {
			return object{}, misplaced
		}
		key.Namespace = obj.GetNamespace()
	}
	o, err := r.client.Get(ctx, res, key)
	switch {
	case apierrors.IsNotFound(err), err == nil && o.GetUID() != ref.UID:
		return object{res: res}, dangling
	case err != nil:
		return object{}, unknown
	case o.GetDeletionTimestamp() != nil && hasFinalizer(o, metav1.FinalizerDeleteDependents):
		return object{o, res}, waiting
	}
	return object{o, res}, solid
}

// Reconcile looks at the object that key names.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	res, k := r.parse(key)
	if res == nil {
		return 0, nil
	}
	o, err := r.client.Get(ctx, res, k)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	obj := object{o, res}
	switch {
	case o.GetDeletionTimestamp() == nil:
		return r.collect(ctx, obj)
	case hasFinalizer(o, metav1.FinalizerOrphanDependents):
		return 0, r.orphan(ctx, obj)
	case hasFinalizer(o, metav1.FinalizerDeleteDependents):
		return 0, r.foreground(ctx, obj)
	}
	return 0, nil // on its way; its dependents' turn comes when it is gone
}

// unknownAgain is when an object with an owner of an unknown kind is looked at again: the kind may have come, or come back, without that owner.
const unknownAgain = 5 * time.Minute

// collect deletes obj if its owners are gone, or cleans its references. after > 0 asks for another look then.
func (r *reconciler) collect(ctx context.Context, obj object) (after time.Duration, err error) {
	refs := obj.GetOwnerReferences()
	if len(refs) == 0 {
		return 0, nil
	}
	states := make([]ownerState, len(refs))
	for i, ref := range refs {
		var owner object
		owner, states[i] = r.owner(ctx, obj, ref)
		switch states[i] {
		case misplaced:
			r.tellMisplaced(ctx, obj, ref)
		case dangling:
			if owner.res.Namespaced && r.elsewhere(ctx, owner.res, ref) {
				r.tellMisplaced(ctx, obj, ref)
			}
		}
	}
	var dependents []metav1.Object
	if slices.Contains(states, waiting) {
		for _, d := range r.dependents(ctx, obj) {
			dependents = append(dependents, d.Object)
		}
	}
	if slices.Contains(states, unknown) {
		after = unknownAgain
	}
	return after, r.apply(ctx, obj, plan(obj, states, dependents))
}

// elsewhere reports whether the owner that ref means exists, in another namespace than its dependent.
func (r *reconciler) elsewhere(ctx context.Context, res *api.Resource, ref metav1.OwnerReference) bool {
	all, err := r.client.List(ctx, res, client.ListOptions{})
	return err == nil && slices.ContainsFunc(all, func(o api.Object) bool { return o.GetUID() == ref.UID })
}

func (r *reconciler) tellMisplaced(ctx context.Context, obj object, ref metav1.OwnerReference) {
	event.Write(ctx, r.client, component, time.Now(), event.Warning(obj.Object, "OwnerRefInvalidNamespace",
		"ownerRef [%s/%s, namespace: %s, name: %s, uid: %s] does not exist in namespace %q",
		ref.APIVersion, ref.Kind, obj.GetNamespace(), ref.Name, ref.UID, obj.GetNamespace()))
}

// orphan takes obj out of its dependents' references and then lets it go.
func (r *reconciler) orphan(ctx context.Context, obj object) error {
	for _, d := range r.dependents(ctx, obj) {
		if err := r.dropReferences(ctx, d, obj.GetUID()); err != nil {
			return fmt.Errorf("orphaning %s %s: %w", d.res.Plural, api.KeyOf(d), err)
		}
	}
	return r.dropFinalizer(ctx, obj, metav1.FinalizerOrphanDependents)
}

// foreground deletes the dependents of obj, and lets it go when none is left that blocks it.
func (r *reconciler) foreground(ctx context.Context, obj object) error {
	deps := r.dependents(ctx, obj)
	if !slices.ContainsFunc(deps, func(d object) bool { return blocking(d, obj.GetUID()) }) {
		return r.dropFinalizer(ctx, obj, metav1.FinalizerDeleteDependents)
	}
	for _, d := range deps {
		if d.GetDeletionTimestamp() == nil {
			if _, err := r.collect(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil // comes back when one of them is gone
}

// blocking reports whether d keeps its owner with this UID from being removed.
func blocking(d metav1.Object, owner types.UID) bool {
	return slices.ContainsFunc(d.GetOwnerReferences(), func(ref metav1.OwnerReference) bool { return ref.UID == owner && blocks(ref) })
}
