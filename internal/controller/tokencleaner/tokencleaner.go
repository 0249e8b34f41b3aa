// Package tokencleaner removes bootstrap tokens whose time is over.
//
// What flows through it: Secrets of kube-system of type bootstrap.kubernetes.io/token. What must stay true: nothing else is ever
// deleted, and no token before its time. Tests: TestTokensGoWhenTheirTimeIsOver.
package tokencleaner

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/server/authn"
)

type reconciler struct{ client client.Client }

// New declares the controller.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name:    "tokencleaner",
		Watches: []controller.Watch{{Resource: api.Secrets, Keys: tokenKeys}},
		Writes: []controller.Write{
			controller.Deletes(api.Secrets).Of("of bootstrap tokens that have expired"),
		},
		Reconciler: reconciler{c},
	}
}

func tokenKeys(e client.Event) []api.Key {
	s := e.Object.(*corev1.Secret)
	if s.Namespace != metav1.NamespaceSystem || s.Type != authn.BootstrapTokenType {
		return nil
	}
	return []api.Key{api.KeyOf(s)}
}

// Reconcile deletes the token named key if its time is over.
func (r reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	s, err := client.Get[*corev1.Secret](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	if s.Type != authn.BootstrapTokenType || s.DeletionTimestamp != nil {
		return 0, nil
	}
	if !authn.BootstrapTokenExpired(s, now) {
		if t, err := time.Parse(time.RFC3339, string(s.Data["expiration"])); err == nil {
			return max(t.Sub(now), time.Second), nil
		}
		return 0, nil
	}
	uid := s.UID
	err = client.Delete[*corev1.Secret](ctx, r.client, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		err = nil
	}
	return 0, err
}
