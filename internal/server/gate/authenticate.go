package gate

import (
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
)

// authenticate sets the request's user, after impersonation.
func (g *Gate) authenticate(c *call.Call) error {
	who, ok, err := g.cfg.Authenticator.Authenticate(c.R)
	if !ok {
		if err != nil {
			g.cfg.Log.Debug("authentication failed", "path", c.R.URL.Path, "err", err)
		}
		if c.R.ProtoMajor == 2 {
			c.W.Header().Set("Connection", "close") // net/http says GOAWAY: strangers do not keep a connection busy (CVE-2023-44487)
		}
		return apierrors.NewUnauthorized("Unauthorized")
	}
	if s := c.R.TLS; s != nil && len(s.VerifiedChains) > 0 {
		g.metrics.certificate.Observe(time.Until(s.VerifiedChains[0][0].NotAfter).Seconds())
	}
	c.Target.User = who
	as, err := authz.Impersonate(c.R.Context(), g.cfg.Authorizer, c.R.Header, attributes(c))
	if err != nil {
		return err
	}
	c.Target.User = as
	c.R.Header.Del("Authorization") // nobody behind this may come to see it
	authn.ClearRemote(c.R.Header)
	return nil
}
