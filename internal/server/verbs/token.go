package verbs

import (
	"net/http"

	authenticationv1 "k8s.io/api/authentication/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/call"
)

// TokenIssuer answers TokenRequests; authn.Tokens is one.
type TokenIssuer interface {
	TokenRequest(account api.Key, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error)
}

// token issues a service account token (KEP-1205).
func (v *Verbs) token(c *call.Call) error {
	gvk := authenticationv1.SchemeGroupVersion.WithKind("TokenRequest")
	req, opts, err := decodeSub(c, gvk, &authenticationv1.TokenRequest{})
	if err != nil {
		return err
	}
	if v.cfg.Issuer == nil {
		return apierrors.NewServiceUnavailable("this server does not issue service account tokens")
	}
	if err := v.cfg.Registry.Admit(c.R.Context(), &admission.Attributes{
		Operation: admission.Create, Resource: c.Target.Res, Subresource: c.Target.Subresource, Key: c.Target.Key(), Object: req,
		Options: &opts, DryRun: len(opts.DryRun) > 0,
	}); err != nil {
		return err
	}
	out, err := v.cfg.Issuer.TokenRequest(c.Target.Key(), req)
	if err != nil {
		return err
	}
	c.Document(http.StatusCreated, out, gvk)
	return nil
}
