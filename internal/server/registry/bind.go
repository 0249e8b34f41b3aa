package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/exchanged"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/claims"
	"github.com/knarr-io/knarr/internal/store"
)

// Binding assigns a pod to a node. UID, if set, must be the pod's.
type Binding struct {
	Pod  api.Key
	UID  string
	Node string
	// Claims are the pod's ResourceClaims that change with it.
	Claims []claims.Claim
	// Volumes are what its PersistentVolumeClaims get.
	Volumes []volume.Binding
}

// changes are what a binding changes beside the pod.
type changes struct {
	claims  []claims.Claim
	volumes []volume.Binding
}

// BindMany assigns pods to nodes in as few transactions as possible, as the binding subresource does: each pod must exist, not be
// bound and not be on its way out.
func (r *Registry) BindMany(ctx context.Context, bindings []Binding) []Result {
	objs, more := make([]*corev1.Binding, len(bindings)), make([]changes, len(bindings))
	for i, b := range bindings {
		objs[i] = &corev1.Binding{
			ObjectMeta: metav1.ObjectMeta{Namespace: b.Pod.Namespace, Name: b.Pod.Name, UID: types.UID(b.UID)},
			Target:     corev1.ObjectReference{Kind: "Node", Name: b.Node},
		}
		more[i] = changes{b.Claims, b.Volumes}
	}
	return r.bindAll(ctx, objs, more, metav1.CreateOptions{})
}

// Bind assigns the pod that b names to a node and returns it.
func (r *Registry) Bind(ctx context.Context, b *corev1.Binding, opts metav1.CreateOptions) (api.Object, error) {
	if errs := exchanged.Validate(b); len(errs) > 0 {
		return nil, apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Binding").GroupKind(), b.Name, errs)
	}
	result := r.bindAll(ctx, []*corev1.Binding{b}, make([]changes, 1), opts)[0]
	return result.Object, result.Err
}

func (r *Registry) bindAll(ctx context.Context, bindings []*corev1.Binding, more []changes, opts metav1.CreateOptions) []Result {
	results := make([]Result, len(bindings))
	r.each(len(bindings), func(i int) {
		results[i].Err = r.Admit(ctx, &admission.Attributes{
			Operation: admission.Create, Resource: api.Pods, Subresource: "binding", Key: api.KeyOf(bindings[i]), Object: bindings[i],
			Options: &opts, DryRun: len(opts.DryRun) > 0,
		})
	})
	r.rounds(ctx, api.Pods, results, func(i int) api.Key { return api.KeyOf(bindings[i]) }, func(try int, todo []int) (again []int) {
		var groups [][]store.Mutation
		var index []int
		for _, i := range todo {
			if results[i].Err != nil { // not admitted
				continue
			}
			if try == 0 && (r.tooEarly(more[i].claims) || r.unbound(more[i].volumes)) {
				again = append(again, i)
				continue
			}
			group, err := r.bind(ctx, bindings[i], more[i], opts)
			switch {
			case err != nil:
				results[i].Err = err
			case len(opts.DryRun) > 0:
				results[i].Object = group[0].Object.(api.Object)
			default:
				groups, index = append(groups, group), append(index, i)
			}
		}
		for g, err := range r.store.CommitEach(ctx, groups) {
			i := index[g]
			var conflict *store.ConflictError
			switch {
			case errors.As(err, &conflict) && ctx.Err() == nil:
				again = append(again, i)
			case err != nil:
				results[i].Err = r.storeError(err, api.Pods, "bind", bindings[i].Name)
			default:
				results[i].Object = groups[g][0].Object.(api.Object)
			}
		}
		return again
	})
	return results
}

// bind returns the mutations that set the node and the PodScheduled condition of one pod, and what goes with that.
func (r *Registry) bind(ctx context.Context, b *corev1.Binding, with changes, opts metav1.CreateOptions) ([]store.Mutation, error) {
	t := r.Table(api.Pods)
	current, ok := t.Get(api.Pods.Key(api.KeyOf(b)))
	if !ok {
		return nil, apierrors.NewNotFound(api.Pods.GroupResource(), b.Name)
	}
	pod := current.Object.(*corev1.Pod)
	if err := bindable(b, pod); err != nil {
		return nil, apierrors.NewConflict(api.Pods.GroupResource(), b.Name, err)
	}
	if len(opts.DryRun) == 0 {
		if err := r.roomFor(essential(ctx, api.Pods, "binding", pod)); err != nil { // a pod that starts takes room
			return nil, err
		}
	}
	bound := store.Shallow(pod).(*corev1.Pod)
	bound.ResourceVersion = ""
	bound.Spec.NodeName = b.Target.Name
	bound.Status.NominatedNodeName = "" // it was a hint for schedulers
	bound.Labels = overlaid(pod.Labels, b.Labels)
	bound.Annotations = overlaid(pod.Annotations, b.Annotations)
	conditions := make([]corev1.PodCondition, 0, len(pod.Status.Conditions)+1)
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.PodScheduled {
			conditions = append(conditions, c)
		}
	}
	bound.Status.Conditions = append(conditions, corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Time{Time: now()}, ObservedGeneration: bound.Generation,
	})
	if err := r.record(ctx, api.Pods, "binding", pod, bound, opts.FieldManager); err != nil {
		return nil, err
	}
	group := []store.Mutation{{Table: t, Key: current.Key, Object: bound, If: current.Rev}}
	devices, err := r.claims(ctx, pod, with.claims, opts)
	if err != nil || len(with.volumes) == 0 {
		return append(group, devices...), err
	}
	volumes, err := r.volumes(ctx, with.volumes, opts)
	return slices.Concat(group, devices, volumes), err
}

// bindable returns why a pod cannot be bound, if it cannot.
func bindable(b *corev1.Binding, pod *corev1.Pod) error {
	switch {
	case b.UID != "" && b.UID != pod.UID:
		return fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", b.UID, pod.UID)
	case b.ResourceVersion != "" && b.ResourceVersion != pod.ResourceVersion:
		return fmt.Errorf("Precondition failed: ResourceVersion in precondition: %v, ResourceVersion in object meta: %v", b.ResourceVersion, pod.ResourceVersion)
	case pod.DeletionTimestamp != nil:
		return fmt.Errorf("pod %s is being deleted, cannot be assigned to a host", pod.Name)
	case pod.Spec.NodeName != "":
		return fmt.Errorf("pod %s is already assigned to node %q", pod.Name, pod.Spec.NodeName)
	case len(pod.Spec.SchedulingGates) > 0:
		return fmt.Errorf("pod %s has non-empty .spec.schedulingGates", pod.Name)
	}
	return nil
}

// overlaid returns base with what over has; base itself where that is nothing.
func overlaid(base, over map[string]string) map[string]string {
	if len(over) == 0 {
		return base
	}
	out := maps.Clone(base)
	if out == nil {
		out = make(map[string]string, len(over))
	}
	maps.Copy(out, over)
	return out
}
