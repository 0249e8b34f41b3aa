// Package serviceaccount gives every namespace its service account "default", as which pods run that name no other.
//
// What flows through it: a namespace is read and the account created where it is missing. What must stay true: an account
// that exists is never changed; a namespace that is being deleted gets none. Tests: TestEveryNamespaceHasADefaultAccount,
// TestNamespaceThatGoesGetsNone.
package serviceaccount

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// defaultName is the account that admission gives to pods without one.
const defaultName = "default"

type reconciler struct {
	client client.Client
}

// New declares the service account controller. Its keys are namespaces.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name:    "serviceaccount",
		Workers: 2,
		Watches: []controller.Watch{
			{Resource: api.Namespaces},
			{Resource: api.ServiceAccounts, Keys: accountKeys},
		},
		Writes: []controller.Write{
			controller.Creates(api.ServiceAccounts).Of(defaultName),
		},
		Reconciler: &reconciler{client: c},
	}
}

// accountKeys maps a default account that went to its namespace.
func accountKeys(e client.Event) []api.Key {
	if e.Type != client.Deleted || e.Object.GetName() != defaultName {
		return nil
	}
	return []api.Key{{Name: e.Object.GetNamespace()}}
}

// Reconcile creates the default account of the namespace named key.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	ns, err := client.Get[*corev1.Namespace](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if ns.DeletionTimestamp != nil || ns.Status.Phase == corev1.NamespaceTerminating {
		return 0, nil
	}
	_, err = client.Get[*corev1.ServiceAccount](ctx, r.client, api.Key{Namespace: ns.Name, Name: defaultName})
	if !apierrors.IsNotFound(err) {
		return 0, err
	}
	_, err = r.client.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns.Name, Name: defaultName}})
	if err == nil || apierrors.IsAlreadyExists(err) || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return 0, nil
	}
	return 0, fmt.Errorf("creating the default service account of namespace %s: %w", ns.Name, err)
}
