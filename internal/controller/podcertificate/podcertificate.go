// Package podcertificate removes PodCertificateRequests that are over: the node has its certificate by then, or asks again.
//
// What flows through it: each request is looked at when it is fifteen minutes old, as kube-controller-manager's cleaner does. What must stay
// true: no request goes before. Tests: TestRequestsGoAfterAQuarterOfAnHour.
package podcertificate

import (
	"context"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// keep is how long a request is kept.
const keep = 15 * time.Minute

type reconciler struct{ client client.Client }

// New declares the controller.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name:       "podcertificate",
		Watches:    []controller.Watch{{Resource: api.PodCertificateRequests}},
		Writes:     []controller.Write{controller.Deletes(api.PodCertificateRequests)},
		Reconciler: reconciler{c},
	}
}

// Reconcile deletes the request named key if it is old.
func (r reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	req, err := client.Get[*certificatesv1.PodCertificateRequest](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if left := time.Until(req.CreationTimestamp.Add(keep)); left > 0 {
		return left, nil
	}
	uid := req.UID
	err = r.client.Delete(ctx, api.PodCertificateRequests, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		err = nil
	}
	return 0, err
}
