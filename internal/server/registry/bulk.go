package registry

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// Result is the outcome of one item of a bulk write.
type Result struct {
	Object api.Object
	Err    error
}

// Binding assigns a pod to a node. UID, if set, must be the pod's.
type Binding struct {
	Pod  api.Key
	UID  string
	Node string
}

// CreateMany creates objects in as few transactions as possible; each succeeds or fails on its own.
func (r *Registry) CreateMany(ctx context.Context, res *api.Resource, objs []api.Object) []Result {
	results := make([]Result, len(objs))
	groups := make([][]store.Mutation, 0, len(objs))
	index := make([]int, 0, len(objs))
	for i, obj := range objs {
		if gen := obj.GetGenerateName(); gen != "" && obj.GetName() == "" {
			obj.SetName(r.freeName(res, obj.GetNamespace(), gen))
		}
		if res == api.Services { // allocations are made one by one
			results[i].Object, results[i].Err = r.Create(ctx, res, obj, metav1.CreateOptions{})
			continue
		}
		if err := r.prepareCreate(ctx, res, obj, metav1.CreateOptions{}); err != nil {
			results[i].Err = err
			continue
		}
		groups = append(groups, r.createGroup(res, obj))
		index = append(index, i)
	}
	for g, err := range r.store.CommitEach(ctx, groups) {
		i := index[g]
		var conflict *store.ConflictError
		switch {
		case errors.As(err, &conflict):
			results[i].Err = apierrors.NewAlreadyExists(res.GroupResource(), objs[i].GetName())
		case err != nil:
			results[i].Err = r.storeError(err, res, "create", objs[i].GetName())
		default:
			results[i].Object = objs[i]
		}
	}
	return results
}

// UpdateMany replaces objects (or what subresource sub writes of them) in as few transactions as possible; each succeeds or
// fails on its own. An object without a resourceVersion is written whatever has happened since it was read; a status then leaves
// the metadata that others may have changed alone.
func (r *Registry) UpdateMany(ctx context.Context, res *api.Resource, objs []api.Object, sub string) []Result {
	results := make([]Result, len(objs))
	pinned := make([]bool, len(objs))
	todo := make([]int, len(objs))
	for i, obj := range objs {
		pinned[i] = obj.GetResourceVersion() != ""
		todo[i] = i
	}
	t := r.table(res)
	for try := 0; len(todo) > 0; try++ {
		var groups [][]store.Mutation
		var index, again []int
		var written []api.Object
		for _, i := range todo {
			obj := objs[i]
			if try > 0 || res == api.Services { // what the store refused may be shared; what a Service was given is drawn anew
				obj = obj.DeepCopyObject().(api.Object)
			}
			if !pinned[i] {
				obj.SetResourceVersion("")
			}
			group, kept, err := r.replace(ctx, res, t, obj, sub, pinned[i])
			if err != nil || group == nil {
				results[i] = Result{kept, err}
				continue
			}
			groups, index, written = append(groups, group), append(index, i), append(written, obj)
		}
		for g, err := range r.store.CommitEach(ctx, groups) {
			i, obj := index[g], written[g]
			var conflict *store.ConflictError
			switch {
			case errors.As(err, &conflict) && conflict.Ops[0] == 0 && pinned[i]:
				results[i].Err = apierrors.NewConflict(res.GroupResource(), obj.GetName(), errors.New(conflictMessage))
			case errors.As(err, &conflict) && ctx.Err() == nil:
				again = append(again, i)
			case err != nil:
				results[i].Err = r.storeError(err, res, "update", obj.GetName())
			default:
				results[i].Object = obj
			}
		}
		todo = again
	}
	return results
}

// replace prepares obj and returns the mutations that store it; none, and what is there, where nothing changes.
func (r *Registry) replace(ctx context.Context, res *api.Resource, t *store.Table, obj api.Object, sub string, pinned bool) ([]store.Mutation, api.Object, error) {
	current, ok := t.Get(res.Key(api.KeyOf(obj)))
	if !ok {
		return nil, nil, apierrors.NewNotFound(res.GroupResource(), obj.GetName())
	}
	if !pinned && sub == "status" {
		keepMetadata(obj, current.Object)
	}
	if err := r.prepareUpdate(ctx, res, obj, current.Object, sub, metav1.UpdateOptions{}); err != nil {
		return nil, nil, err
	}
	if unchanged(obj, current.Object) {
		return nil, current.Object, nil
	}
	return r.updateGroup(res, t, obj, current), nil, nil
}

// keepMetadata gives obj the present labels, annotations, finalizers and owners: the status subresource would write them.
func keepMetadata(obj, current api.Object) {
	obj.SetLabels(current.GetLabels())
	obj.SetAnnotations(current.GetAnnotations())
	obj.SetFinalizers(current.GetFinalizers())
	obj.SetOwnerReferences(current.GetOwnerReferences())
	obj.SetManagedFields(current.GetManagedFields())
}

// BindMany assigns pods to nodes in as few transactions as possible, as the binding subresource does: each pod must exist, not be
// bound and not be on its way out.
func (r *Registry) BindMany(ctx context.Context, bindings []Binding) []Result {
	results := make([]Result, len(bindings))
	todo := make([]int, len(bindings))
	for i := range todo {
		todo[i] = i
	}
	for len(todo) > 0 {
		var groups [][]store.Mutation
		var index, again []int
		for _, i := range todo {
			m, err := r.bind(bindings[i])
			if err != nil {
				results[i].Err = err
				continue
			}
			groups = append(groups, []store.Mutation{m})
			index = append(index, i)
		}
		for g, err := range r.store.CommitEach(ctx, groups) {
			i := index[g]
			var conflict *store.ConflictError
			switch {
			case errors.As(err, &conflict) && ctx.Err() == nil:
				again = append(again, i)
			case err != nil:
				results[i].Err = r.storeError(err, api.Pods, "bind", bindings[i].Pod.Name)
			default:
				results[i].Object = groups[g][0].Object.(api.Object)
			}
		}
		todo = again
	}
	return results
}

// bind returns the mutation that sets the node and the PodScheduled condition of one pod.
func (r *Registry) bind(b Binding) (store.Mutation, error) {
	t := r.table(api.Pods)
	current, ok := t.Get(api.Pods.Key(b.Pod))
	if !ok {
		return store.Mutation{}, apierrors.NewNotFound(api.Pods.GroupResource(), b.Pod.Name)
	}
	refuse := func(format string, args ...any) (store.Mutation, error) {
		return store.Mutation{}, apierrors.NewConflict(api.Pods.GroupResource(), b.Pod.Name, fmt.Errorf(format, args...))
	}
	pod := current.Object.(*corev1.Pod)
	switch {
	case b.UID != "" && b.UID != string(pod.UID):
		return refuse("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, pod.UID)
	case pod.DeletionTimestamp != nil:
		return refuse("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return refuse("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return refuse("pod %s has non-empty .spec.schedulingGates", pod.Name)
	}
	bound := store.Shallow(pod).(*corev1.Pod)
	bound.ResourceVersion = ""
	bound.Spec.NodeName = b.Node
	conditions := make([]corev1.PodCondition, 0, len(pod.Status.Conditions)+1)
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodScheduled {
			conditions = append(conditions, c)
		}
	}
	bound.Status.Conditions = append(conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Time{Time: now()}, ObservedGeneration: bound.Generation,
	})
	return store.Mutation{Table: t, Key: current.Key, Object: bound, If: current.Rev}, nil
}
