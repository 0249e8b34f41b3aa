// Package rootca publishes the certificate authority of the API server to pods: as the ConfigMap kube-root-ca.crt of every
// namespace, which the token volume of each pod mounts.
//
// What flows through it: a namespace is read, and the ConfigMap created or put right. What must stay true: its data are exactly
// the bundle, whoever edited them; a namespace that is being deleted gets none. Tests: TestPublishedAndRestored,
// TestNewBundleReachesOldNamespaces.
package rootca

import (
	"context"
	"fmt"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

const (
	configMapName = "kube-root-ca.crt"
	bundleKey     = "ca.crt"
	// description is where kubectl shows a reader what the ConfigMap is for.
	description     = "kubernetes.io/description"
	descriptionText = "The certificate authority by which pods recognise the API server at its Service address (kubernetes.default.svc). Kept up to date by the cluster; changes are undone."
)

type reconciler struct {
	client client.Client
	bundle string
}

// New declares the controller that publishes bundle, PEM certificates. Its keys are namespaces.
func New(c client.Client, bundle []byte) controller.Controller {
	return controller.Controller{
		Name:    "rootca",
		Workers: 2,
		Watches: []controller.Watch{
			{Resource: api.Namespaces},
			{Resource: api.ConfigMaps, Keys: configMapKeys},
		},
		Writes: []controller.Write{
			controller.Creates(api.ConfigMaps).Of(configMapName),
			controller.Sets(api.ConfigMaps, "data").Of(configMapName),
			controller.Sets(api.ConfigMaps, "binaryData").Of(configMapName),
			controller.Sets(api.ConfigMaps, "metadata", "annotations").Of(configMapName),
		},
		Reconciler: &reconciler{client: c, bundle: string(bundle)},
	}
}

func configMapKeys(e client.Event) []api.Key {
	if e.Object.GetName() != configMapName {
		return nil
	}
	return []api.Key{{Name: e.Object.GetNamespace()}}
}

// plan returns the ConfigMap that namespace should have, or nil where old is it.
func plan(namespace, bundle string, old *corev1.ConfigMap) *corev1.ConfigMap {
	data := map[string]string{bundleKey: bundle}
	if old == nil {
		return &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: configMapName, Annotations: map[string]string{description: descriptionText}},
			Data:       data,
		}
	}
	if maps.Equal(old.Data, data) && len(old.BinaryData) == 0 && old.Annotations[description] == descriptionText {
		return nil
	}
	cm := old.DeepCopy()
	cm.Data, cm.BinaryData = data, nil
	metav1.SetMetaDataAnnotation(&cm.ObjectMeta, description, descriptionText)
	return cm
}

// Reconcile puts right the ConfigMap of the namespace named key.
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
	old, err := client.Get[*corev1.ConfigMap](ctx, r.client, api.Key{Namespace: ns.Name, Name: configMapName})
	if apierrors.IsNotFound(err) {
		old, err = nil, nil
	}
	if err != nil {
		return 0, err
	}
	cm := plan(ns.Name, r.bundle, old)
	switch {
	case cm == nil:
		return 0, nil
	case old == nil:
		_, err = r.client.Create(ctx, cm)
	default:
		_, err = r.client.Update(ctx, cm, "")
	}
	if err == nil || apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
		return 0, nil
	}
	return 0, fmt.Errorf("publishing the root certificates to namespace %s: %w", ns.Name, err)
}
