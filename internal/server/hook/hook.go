// Package hook calls the webhooks that the API server asks: over TLS, at a URL or at a Service of the cluster.
//
// What flows through it: a [Client] posts JSON and returns the answer's body. What must stay true: an answer is bounded in size and
// a call in time; a Service is resolved anew for each request, to an endpoint that is ready, and its certificate is that of
// NAME.NAMESPACE.svc. Tests: TestAnswers, TestServices.
package hook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// answerLimit is the size of the largest answer that is read.
const answerLimit = 128 << 20

// Target is where a webhook is: at a URL or, where that is empty, at a Service.
type Target struct {
	URL                      string
	Namespace, Service, Path string
	Port                     int32
	// CA are the certificates, in PEM, by which the webhook is trusted; those of the system where it is empty.
	CA []byte
}

// Client posts to one webhook.
type Client struct {
	url    string
	http   *http.Client
	target Target
	store  *store.Store
}

// StatusError is an answer whose status says that it is none.
type StatusError struct {
	Code         int
	Status, Body string
}

// Error implements error.
func (e *StatusError) Error() string { return "the webhook answered " + e.Status + ": " + e.Body }

// Unreachable returns why nobody is there who could be asked, as far as the copy says: a Service without a ready endpoint, or none at all. nil for
// URLs.
func (c *Client) Unreachable() error {
	if c.target.URL != "" {
		return nil
	}
	_, err := Resolve(c.store, c.target)
	return err
}

// New returns a Client of a webhook. Services are found in s.
func New(t Target, s *store.Store) (*Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca := bytes.TrimSpace(t.CA); len(ca) > 0 {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("unable to load root certificates: there are none in caBundle")
		}
	}
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	// HTTP/1.1: a request that hangs takes no other's connection along.
	transport := &http.Transport{TLSClientConfig: config, DialContext: dialer.DialContext, IdleConnTimeout: 90 * time.Second, MaxIdleConnsPerHost: 8}
	var through http.RoundTripper = transport
	at := t.URL
	if at == "" {
		host := t.Service + "." + t.Namespace + ".svc"
		config.ServerName = host
		at = (&url.URL{Scheme: "https", Host: net.JoinHostPort(host, strconv.Itoa(int(t.Port))), Path: t.Path}).String()
		through = balanced{transport, s, t}
	}
	return &Client{url: at, target: t, store: s, http: &http.Client{Transport: through, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Post sends a value as JSON and decodes the answer into another one. It waits no longer than limit.
func (c *Client) Post(ctx context.Context, limit time.Duration, send, into any) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	body, err := json.Marshal(send)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"?timeout="+limit.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, */*")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, answerLimit+1))
	switch {
	case err != nil:
		return err
	case len(answer) > answerLimit:
		return fmt.Errorf("the answer is larger than %d bytes", answerLimit)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return &StatusError{resp.StatusCode, resp.Status, fmt.Sprintf("%.200s", answer)}
	}
	if err := json.Unmarshal(answer, into); err != nil {
		if late := ctx.Err(); late != nil { // the server gave up when its time was over, and only then
			return fmt.Errorf("reading the answer: %w", late)
		}
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// balanced sends each request to a ready endpoint of a Service: connections are kept per endpoint.
type balanced struct {
	next   http.RoundTripper
	store  *store.Store
	target Target
}

// RoundTrip implements http.RoundTripper.
func (b balanced) RoundTrip(r *http.Request) (*http.Response, error) {
	address, err := Resolve(b.store, b.target)
	if err != nil {
		if r.Body != nil {
			_ = r.Body.Close()
		}
		return nil, err
	}
	to := r.Clone(r.Context())
	to.Host, to.URL.Host = r.URL.Host, address
	return b.next.RoundTrip(to)
}

// Resolve returns the address of a ready endpoint of the Service that t names.
func Resolve(s *store.Store, t Target) (string, error) {
	rev, ok := s.Table(api.Services.Table()).Get(api.Services.Key(api.Key{Namespace: t.Namespace, Name: t.Service}))
	if !ok {
		return "", fmt.Errorf("service %q not found", t.Service)
	}
	svc := rev.Object.(*corev1.Service)
	if svc.Spec.Type == corev1.ServiceTypeExternalName {
		return net.JoinHostPort(svc.Spec.ExternalName, strconv.Itoa(int(t.Port))), nil
	}
	name, found := "", false
	for _, p := range svc.Spec.Ports {
		if p.Port == t.Port && p.Protocol != corev1.ProtocolUDP {
			name, found = p.Name, true
		}
	}
	if !found {
		return "", fmt.Errorf("no service port %d found for service %q", t.Port, t.Service)
	}
	var addresses []string
	for _, rev := range s.Table(api.EndpointSlices.Table()).Lookup(api.IndexService, t.Namespace+"/"+t.Service) {
		addresses = append(addresses, ready(rev.Object.(*discoveryv1.EndpointSlice), name)...)
	}
	if len(addresses) == 0 {
		return "", fmt.Errorf("no endpoints available for service %q", t.Service)
	}
	return addresses[rand.N(len(addresses))], nil
}

// ready returns the addresses of a slice's ready endpoints at a named port.
func ready(slice *discoveryv1.EndpointSlice, name string) (out []string) {
	for _, p := range slice.Ports {
		if p.Port == nil || p.Name != nil && *p.Name != name {
			continue
		}
		for _, e := range slice.Endpoints {
			if (e.Conditions.Ready == nil || *e.Conditions.Ready) && len(e.Addresses) > 0 {
				out = append(out, net.JoinHostPort(e.Addresses[0], strconv.Itoa(int(*p.Port))))
			}
		}
	}
	return out
}
