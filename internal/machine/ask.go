package machine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/server/authn"
)

const (
	// askPatience is how long an answer may take: longer than metrics.k8s.io waits for a node.
	askPatience = 12 * time.Second
	// longestAnswer bounds what is read of an answer.
	longestAnswer = 64 << 20
)

// listened returns where this machine reaches its own server that listens at an address.
func listened(at netip.AddrPort) netip.AddrPort {
	switch {
	case !at.Addr().IsUnspecified():
		return at
	case at.Addr().Is4():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(netip.IPv6Loopback(), at.Port())
}

// newAsk returns a function that reads documents of this server's own API in a user's name, as a front proxy does.
func newAsk(keys *pki.PKI, at netip.AddrPort) func(ctx context.Context, who user.Info, path string, query url.Values) ([]byte, error) {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(keys.CAPEM())
	own := &http.Client{Timeout: askPatience, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		RootCAs: roots, MinVersion: tls.VersionTLS12,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return keys.FrontProxy(), nil },
	}, IdleConnTimeout: time.Minute}}
	return func(ctx context.Context, who user.Info, path string, query url.Values) ([]byte, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+at.String()+path+"?"+query.Encode(), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Accept", "application/json")
		req.Header.Set(authn.RemoteUser, who.GetName())
		for _, g := range who.GetGroups() {
			req.Header.Add(authn.RemoteGroup, g)
		}
		resp, err := own.Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, longestAnswer))
		if err != nil {
			return nil, fmt.Errorf("reading the answer of %s: %w", path, err)
		}
		if resp.StatusCode != http.StatusOK {
			return nil, answered(resp.StatusCode, body)
		}
		return body, nil
	}
}

// answered is the error that an answer other than 200 says.
func answered(code int, body []byte) error {
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" {
		return apierrors.FromObject(&status)
	}
	return fmt.Errorf("the API answered %d", code)
}
