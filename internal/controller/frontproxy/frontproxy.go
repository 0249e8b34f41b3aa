// Package frontproxy publishes how aggregated API servers know the users of this cluster: as ConfigMap
// kube-system/extension-apiserver-authentication, which they read at their start and follow.
//
// What flows through it: the ConfigMap is read, and created or put right. What must stay true: every server of the cluster runs this, for
// each adds the authority of its own front proxy, and none takes away another's; an authority that has expired goes. Tests:
// TestPublishedAndRestored, TestServersAddTheirAuthorities.
package frontproxy

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

const configMapName = "extension-apiserver-authentication"

type reconciler struct {
	client client.Client
	trust  Trust
}

// New declares the controller that publishes trust. Its key is the ConfigMap.
func New(c client.Client, trust Trust) controller.Controller {
	return controller.Controller{
		Name: "frontproxy",
		Watches: []controller.Watch{
			{Resource: api.Namespaces, Keys: namespaceKeys},
			{Resource: api.ConfigMaps, Keys: configMapKeys},
		},
		Writes: []controller.Write{
			controller.Creates(api.ConfigMaps).Of(configMapName),
			controller.Sets(api.ConfigMaps, "data").Of(configMapName),
		},
		Reconciler: &reconciler{client: c, trust: trust},
	}
}

func namespaceKeys(e client.Event) []api.Key {
	if e.Object.GetName() != metav1.NamespaceSystem {
		return nil
	}
	return []api.Key{{Namespace: metav1.NamespaceSystem, Name: configMapName}}
}

func configMapKeys(e client.Event) []api.Key {
	if e.Object.GetNamespace() != metav1.NamespaceSystem || e.Object.GetName() != configMapName {
		return nil
	}
	return []api.Key{api.KeyOf(e.Object)}
}

// lookAgain is when the ConfigMap is looked at without an event: authorities expire.
const lookAgain = 24 * time.Hour

// Reconcile puts the ConfigMap right.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	old, err := client.Get[*corev1.ConfigMap](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		old, err = nil, nil
	}
	if err != nil {
		return 0, err
	}
	cm := plan(old, r.trust, time.Now())
	switch {
	case cm == nil:
		return lookAgain, nil
	case old == nil:
		_, err = r.client.Create(ctx, cm)
	default:
		_, err = r.client.Update(ctx, cm, "")
	}
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("publishing how aggregated servers know users: %w", err)
	}
	return lookAgain, nil
}
