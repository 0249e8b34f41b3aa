package join

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// RoundTrip implements http.RoundTripper: the request goes to the server that is used now, whichever it names. Where that one fails,
// another one is used from then on, and asked at once if nothing can come of asking twice.
func (i *Identity) RoundTrip(r *http.Request) (*http.Response, error) {
	servers, _ := i.servers.All()
	for try := 1; ; try++ {
		server := i.servers.Current()
		resp, err := i.send(r, server, try)
		if err == nil && resp.StatusCode != http.StatusServiceUnavailable {
			resp.Body = &watchedBody{ReadCloser: resp.Body, ctx: r.Context(), failed: func(err error) { i.servers.Fail(server, err) }}
			return resp, nil
		}
		if r.Context().Err() != nil {
			return resp, err
		}
		why := err
		if why == nil {
			why = errors.New(resp.Status)
		}
		i.servers.Fail(server, why)
		if try >= len(servers) || !repeatable(r, err) {
			return resp, err
		}
		if resp != nil {
			_ = resp.Body.Close() // another server's answer counts
		}
	}
}

// send sends a request to one server.
func (i *Identity) send(r *http.Request, server string, try int) (*http.Response, error) {
	u, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	out := r.Clone(r.Context())
	out.URL.Scheme, out.URL.Host, out.Host = u.Scheme, u.Host, ""
	if try > 1 && r.Body != nil {
		if out.Body, err = r.GetBody(); err != nil {
			return nil, err
		}
	}
	return i.transport.Load().RoundTrip(out)
}

// repeatable reports whether a request that failed with err (nil for an answer of 503) may be sent to another server: one that only reads,
// or one that never left.
func repeatable(r *http.Request, err error) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	var dial *net.OpError
	return errors.As(err, &dial) && dial.Op == "dial" && (r.Body == nil || r.GetBody != nil)
}

// watchedBody is an answer; one that breaks off means that its server has failed. Watches notice it first.
type watchedBody struct {
	io.ReadCloser
	ctx    context.Context
	failed func(error)
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && b.ctx.Err() == nil {
		b.failed(err)
	}
	return n, err
}

// lines is the form of lists in files.
func lines(list []string) []byte { return []byte(strings.Join(list, "\n") + "\n") }
