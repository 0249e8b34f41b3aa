// Package namespace empties namespaces that are being deleted and then lets them go.
//
// What flows through it: a namespace with a deletionTimestamp; first its pods are deleted and waited for, then everything
// else (KEP-5080: what pods depend on, such as NetworkPolicies, outlives them), and at last the finalizer "kubernetes" is
// taken off, with which the server removes the namespace. What must stay true: a namespace that is not being deleted is never
// touched; what still stands in the way is told in the namespace's conditions, and so is an API server beside this one that does not say what
// it holds. Tests: TestActiveNamespaceIsLeftAlone, TestFinalizersHoldANamespace, TestOtherServersHoldANamespace.
package namespace

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/server/aggregate"
)

// lookAgain is when a namespace whose content does not go is looked at without an event.
const lookAgain = 15 * time.Second

type reconciler struct {
	client    client.Client
	elsewhere Elsewhere
}

// Elsewhere deletes what other API servers hold in a namespace, and returns what is left.
type Elsewhere func(ctx context.Context, namespace string) aggregate.Left

// New declares the namespace controller. elsewhere is nil where there are no other API servers.
func New(c client.Client, elsewhere Elsewhere) controller.Controller {
	r := &reconciler{client: c, elsewhere: elsewhere}
	return controller.Controller{
		Name:    "namespace",
		Workers: 5,
		Watches: []controller.Watch{{Resource: api.Namespaces}, {Every: func(res *api.Resource) func(client.Event) []api.Key {
			if !content(res) {
				return nil
			}
			return r.contentKeys
		}}},
		Writes: []controller.Write{
			controller.Sets(api.Namespaces, "status"),
			controller.Sets(api.Namespaces, "spec", "finalizers"),
			controller.Deletes(nil).Of("in namespaces that are being deleted"),
		},
		Reconciler: r,
	}
}

// content reports whether objects of res are a namespace's, and can be deleted with it.
func content(res *api.Resource) bool {
	return res.Namespaced && (res.Verbs == nil || slices.Contains(res.Verbs, "delete"))
}

// contentKeys maps an object that came or went to its namespace, if that is being deleted.
func (r *reconciler) contentKeys(e client.Event) []api.Key {
	if e.Type == client.Modified {
		return nil
	}
	key := api.Key{Name: e.Object.GetNamespace()}
	ns, err := client.Get[*corev1.Namespace](context.Background(), r.client, key)
	if err != nil || ns.DeletionTimestamp == nil {
		return nil
	}
	return []api.Key{key}
}

// Reconcile takes the next step in deleting the namespace named key.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	ns, err := client.Get[*corev1.Namespace](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if ns.DeletionTimestamp == nil || !slices.Contains(ns.Spec.Finalizers, corev1.FinalizerKubernetes) {
		return 0, nil
	}
	left := r.empty(ctx, ns.Name)
	others := len(ns.Spec.Finalizers) > 1 || len(ns.Finalizers) > 0
	if left.any() || others {
		if err := r.report(ctx, ns, left); err != nil {
			return 0, err
		}
	}
	if left.any() {
		return lookAgain, left.err()
	}
	_, err = client.Mutate(ctx, r.client, key, "finalize", func(o *corev1.Namespace) bool {
		had := len(o.Spec.Finalizers)
		o.Spec.Finalizers = slices.DeleteFunc(o.Spec.Finalizers, func(f corev1.FinalizerName) bool { return f == corev1.FinalizerKubernetes })
		return o.UID == ns.UID && len(o.Spec.Finalizers) < had
	})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

// empty deletes the pods of a namespace, and once there are none everything else, and counts what is left.
func (r *reconciler) empty(ctx context.Context, namespace string) *remains {
	left := newRemains()
	r.clear(ctx, api.Pods, namespace, left)
	if left.any() {
		return left
	}
	for _, res := range r.client.Served().Now().Stored() {
		if content(res) {
			r.clear(ctx, res, namespace, left)
		}
	}
	if r.elsewhere != nil {
		left.add(r.elsewhere(ctx, namespace))
	}
	return left
}

// clear deletes the objects of one resource in namespace and adds what remains of them to left.
func (r *reconciler) clear(ctx context.Context, res *api.Resource, namespace string, left *remains) {
	objs, err := r.client.List(ctx, res, client.ListOptions{Namespace: namespace})
	if err != nil {
		left.fail(err)
		return
	}
	var doomed []api.Object
	for _, o := range objs {
		if o.GetDeletionTimestamp() == nil {
			doomed = append(doomed, o)
		}
	}
	background := metav1.DeletePropagationBackground
	for i, result := range r.client.DeleteMany(ctx, doomed, metav1.DeleteOptions{PropagationPolicy: &background}) {
		if err := result.Err; err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			left.fail(fmt.Errorf("deleting %s %s: %w", res.Plural, api.KeyOf(doomed[i]), err))
		}
	}
	if len(doomed) > 0 {
		if objs, err = r.client.List(ctx, res, client.ListOptions{Namespace: namespace}); err != nil {
			left.fail(err)
			return
		}
	}
	left.count(res, objs)
}

// report writes what is left into the namespace's conditions.
func (r *reconciler) report(ctx context.Context, ns *corev1.Namespace, left *remains) error {
	_, err := client.Mutate(ctx, r.client, api.KeyOf(ns), "status", func(o *corev1.Namespace) bool {
		if o.UID != ns.UID {
			return false
		}
		conditions, changed := left.conditions(o.Status.Conditions, time.Now())
		changed = changed || o.Status.Phase != corev1.NamespaceTerminating
		o.Status.Phase, o.Status.Conditions = corev1.NamespaceTerminating, conditions
		return changed
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
