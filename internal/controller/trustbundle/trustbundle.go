// Package trustbundle publishes the certificate authority of the API server as a ClusterTrustBundle, from which volumes of pods are
// made (KEP-3257).
//
// What flows through it: the bundles of signer kubernetes.io/kube-apiserver-serving are read, the present one is created or put right, and
// those of authorities that are no longer in use go. What must stay true: bundles of other signers are left alone; the present bundle is
// there before an old one goes; its name says what it holds, as kube-controller-manager names it. Tests: TestPublishedAndRestored,
// TestOldBundlesGo.
package trustbundle

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// signerName is the signer of the certificate by which the API server is known.
const signerName = "kubernetes.io/kube-apiserver-serving"

type reconciler struct {
	client client.Client
	bundle string
}

// New declares the controller that publishes bundle, PEM certificates. It has one key.
func New(c client.Client, bundle []byte) controller.Controller {
	own := "of signer " + signerName
	return controller.Controller{
		Name: "trustbundle",
		Watches: []controller.Watch{
			{Resource: api.ClusterTrustBundles, Keys: ownKey},
		},
		Follow: func(_ context.Context, look func(api.Key)) { look(api.Key{}) }, // once, where there is no bundle yet
		Writes: []controller.Write{
			controller.Creates(api.ClusterTrustBundles).Of(own),
			controller.Sets(api.ClusterTrustBundles, "spec").Of(own),
			controller.Deletes(api.ClusterTrustBundles).Of(own),
		},
		Reconciler: &reconciler{client: c, bundle: string(bundle)},
	}
}

func ownKey(e client.Event) []api.Key {
	if e.Object.(*certificatesv1.ClusterTrustBundle).Spec.SignerName != signerName {
		return nil
	}
	return []api.Key{{}}
}

// bundleName returns the name of the bundle that holds these certificates.
func bundleName(bundle string) string {
	hash := sha256.Sum256([]byte(bundle))
	return fmt.Sprintf("%s:%x", strings.ReplaceAll(signerName, "/", ":"), hash[:12])
}

// actions are what to do, in this order.
type actions struct {
	create, update *certificatesv1.ClusterTrustBundle
	remove         []*certificatesv1.ClusterTrustBundle
}

// plan compares the bundles that there are with the one that should be.
func plan(bundle string, have []*certificatesv1.ClusterTrustBundle) actions {
	name := bundleName(bundle)
	var do actions
	there := false
	for _, b := range have {
		switch {
		case b.Spec.SignerName != signerName:
		case b.Name != name:
			do.remove = append(do.remove, b)
		case b.Spec.TrustBundle != bundle:
			there = true
			do.update = b.DeepCopy()
			do.update.Spec.TrustBundle = bundle
		default:
			there = true
		}
	}
	if !there {
		do.create = &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: signerName, TrustBundle: bundle},
		}
	}
	return do
}

// Reconcile publishes the bundle.
func (r *reconciler) Reconcile(ctx context.Context, _ api.Key) (time.Duration, error) {
	have, err := client.List[*certificatesv1.ClusterTrustBundle](ctx, r.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	do := plan(r.bundle, have)
	switch {
	case do.create != nil:
		_, err = r.client.Create(ctx, do.create)
	case do.update != nil:
		_, err = r.client.Update(ctx, do.update, "")
	}
	if err != nil {
		return 0, fmt.Errorf("publishing the root certificates: %w", err)
	}
	for _, b := range do.remove {
		uid := b.UID
		err := r.client.Delete(ctx, api.ClusterTrustBundles, api.KeyOf(b), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return 0, fmt.Errorf("removing the old trust bundle %s: %w", b.Name, err)
		}
	}
	return 0, nil
}
