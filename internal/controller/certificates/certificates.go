// Package certificates answers CertificateSigningRequests: it approves those by which machines join as nodes, signs what has been approved
// for one of Kubernetes' own four signers, and removes old ones.
//
// What flows through it: a request is read, [plan] decides by its content and by what its author may do, the decision or the
// certificate is written. What must stay true: a certificate of a node is approved only for whom RBAC lets create
// certificatesigningrequests/nodeclient (machines that bootstrap) or, for their own name, selfnodeclient (nodes that renew);
// everybody else's requests wait for a person; what is signed is exactly what the signer promises
// (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers), and nobody becomes a server of
// the cluster by it. Tests: TestPlan, TestApprovedAndSignedOnlyForWhomItMay, TestSigners.
package certificates

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// Sign issues the certificate that a PEM certificate request asks for.
type Sign func(request []byte, usage x509.KeyUsage, extended []x509.ExtKeyUsage, lifetime time.Duration) (certificate []byte, err error)

type reconciler struct {
	client     client.Client
	authorizer authz.Authorizer
	sign       Sign
}

// New declares the controller. authorizer decides whose requests are approved.
func New(c client.Client, authorizer authz.Authorizer, sign Sign) controller.Controller {
	return controller.Controller{
		Name:    "certificates",
		Watches: []controller.Watch{{Resource: api.CertificateSigningRequests}},
		Writes: []controller.Write{
			controller.Sets(api.CertificateSigningRequests, "status"),
			controller.Deletes(api.CertificateSigningRequests),
		},
		Reconciler: &reconciler{client: c, authorizer: authorizer, sign: sign},
	}
}

// Reconcile takes the next step with the request named key.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	csr, err := client.Get[*certificatesv1.CertificateSigningRequest](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	p := plan(csr, time.Now())
	switch {
	case p.remove:
		uid := csr.UID
		err := r.client.Delete(ctx, api.CertificateSigningRequests, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
			err = nil
		}
		return 0, err
	case p.approve != "":
		ok, err := r.may(ctx, csr, p.approve)
		if err != nil || !ok {
			return p.after, err
		}
		_, err = r.condition(ctx, csr, "approval", certificatesv1.CertificateApproved, "AutoApproved", "Auto approving kubelet client certificate after SubjectAccessReview.")
		return p.after, err
	case p.fail != "":
		_, err := r.condition(ctx, csr, "status", certificatesv1.CertificateFailed, "SignerValidationFailure", p.fail)
		return p.after, err
	case p.issue:
		return p.after, r.issue(ctx, csr, p)
	}
	return p.after, nil
}

// may asks whether the request's author may have it approved at once.
func (r *reconciler) may(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, sub string) (bool, error) {
	extra := map[string][]string{}
	for k, v := range csr.Spec.Extra {
		extra[k] = v
	}
	who := &user.DefaultInfo{Name: csr.Spec.Username, UID: csr.Spec.UID, Groups: csr.Spec.Groups, Extra: extra}
	d, _, err := r.authorizer.Authorize(ctx, &authz.Attributes{
		User: who, Verb: "create", IsResource: true, Group: certificatesv1.GroupName, Version: "v1", Resource: "certificatesigningrequests", Subresource: sub,
	})
	return d == authz.Allow, err
}

func (r *reconciler) condition(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, sub string, t certificatesv1.RequestConditionType, reason, message string) (api.Object, error) {
	csr = csr.DeepCopy()
	csr.Status.Conditions = append(csr.Status.Conditions, certificatesv1.CertificateSigningRequestCondition{
		Type: t, Status: corev1.ConditionTrue, Reason: reason, Message: message,
	})
	return r.client.Update(ctx, csr, sub)
}

func (r *reconciler) issue(ctx context.Context, csr *certificatesv1.CertificateSigningRequest, p step) error {
	cert, err := r.sign(csr.Spec.Request, p.usages.key, p.usages.extended, p.lifetime)
	if err != nil {
		return fmt.Errorf("signing certificate request %s: %w", csr.Name, err)
	}
	csr = csr.DeepCopy()
	csr.Status.Certificate = cert
	_, err = r.client.Update(ctx, csr, "status")
	return err
}
