package aggregate

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/transport"

	"github.com/knarr-io/knarr/internal/server/call"
)

// serve hands a call to the backend and its answer to the client. What fails on the way is said as kube-aggregator says it: in plain text.
func (b *backend) serve(c *call.Call) error {
	if d := b.discovered.Load(); d != nil {
		name := c.Target.Resource
		if c.Target.Subresource != "" {
			name += "/" + c.Target.Subresource
		}
		c.Target.Known = d.names[name]
	}
	switch {
	case !b.available:
		http.Error(c.W, "service unavailable", http.StatusServiceUnavailable)
		return nil
	case b.broken != nil:
		http.Error(c.W, b.broken.Error(), http.StatusInternalServerError)
		return nil
	}
	c.HasBegun() // the time that it takes from now on is another server's
	b.pass(c)
	return nil
}

// pass is the way to the backend and back.
func (b *backend) pass(c *call.Call) {
	through := b.plain
	if c.R.Header.Get("Upgrade") != "" {
		through = b.upgrades
	}
	p := &httputil.ReverseProxy{
		Transport: through,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.Host = b.at.Scheme, b.at.Host, b.at.Host
			for h := range r.Out.Header {
				if strings.HasPrefix(h, "Impersonate-") {
					r.Out.Header.Del(h)
				}
			}
			r.SetXForwarded()
			if body := c.Body(); body != nil { // a connection that ended while it was idle costs no request
				r.Out.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
			}
			who := c.Target.User
			transport.SetAuthProxyHeaders(r.Out, who.GetName(), who.GetUID(), who.GetGroups(), who.GetExtra())
		},
		FlushInterval: -1,
		ErrorHandler: func(_ http.ResponseWriter, _ *http.Request, err error) {
			var unresolved *unresolvedError
			switch {
			case c.W.Code != 0:
				panic(http.ErrAbortHandler)
			case errors.As(err, &unresolved):
				http.Error(c.W, "service unavailable", http.StatusServiceUnavailable)
			case errors.Is(err, context.DeadlineExceeded):
				c.Fail(apierrors.NewTimeoutError("request did not complete within the allotted timeout", 0))
			default:
				http.Error(c.W, "error trying to reach service: "+err.Error(), http.StatusServiceUnavailable)
			}
		},
	}
	p.ServeHTTP(c.W, c.R)
}
