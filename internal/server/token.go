package server

import (
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

type groupVersionKind = schema.GroupVersionKind

// TokenIssuer answers TokenRequests; authn.Tokens is one.
type TokenIssuer interface {
	TokenRequest(account api.Key, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// token issues a service account token (KEP-1205).
func (x *exchange) token() error {
	gvk := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
	req, opts, err := decodeSub(x, gvk, &authenticationv1.TokenRequest{})
	if err != nil {
		return err
	}
	if x.s.cfg.Issuer == nil {
		return apierrors.NewServiceUnavailable("this server does not issue service account tokens")
	}
	if err := x.admit(admission.Create, req, opts); err != nil {
		return err
	}
	out, err := x.s.cfg.Issuer.TokenRequest(x.t.key(), req)
	if err != nil {
		return err
	}
	x.document(http.StatusCreated, out, gvk)
	return nil
}
