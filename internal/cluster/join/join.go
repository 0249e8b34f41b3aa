package join

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// Config says which cluster to join, as which node.
type Config struct {
	Dir      string   // of the identity
	Server   string   // to ask, https://HOST:PORT
	Others   []string // further servers, to be remembered
	Token    Token
	NodeName string
	Log      *slog.Logger
}

// Join gets this machine a certificate as node cfg.NodeName and keeps it in cfg.Dir. It asks once: a server that cannot be reached
// is an error.
func Join(ctx context.Context, cfg Config) (*Identity, error) {
	ca, err := fetchAuthority(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("joining the cluster at %s: %w", cfg.Server, err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	transport := newTransport(&tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots})
	defer transport.CloseIdleConnections()
	key, keyPEM, err := newKey()
	if err != nil {
		return nil, err
	}
	cert, err := request(ctx, cfg.Server, bearer{transport, cfg.Token.Bearer()}, cfg.NodeName, key, cfg.Log)
	if err != nil {
		return nil, fmt.Errorf("joining the cluster at %s: %w", cfg.Server, err)
	}
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})
	given := []string{cfg.Server}
	for _, other := range cfg.Others {
		if other != cfg.Server {
			given = append(given, other)
		}
	}
	if err := save(cfg.Dir, files{servers: given, ca: caPEM, cert: cert, key: keyPEM}); err != nil {
		return nil, err
	}
	return Load(cfg.Dir, cfg.Log)
}

// fetchAuthority returns the authority's certificate, which the server sends along and the pin vouches for. Nothing is sent.
func fetchAuthority(ctx context.Context, cfg Config) (*x509.Certificate, error) {
	u, err := url.Parse(cfg.Server)
	if err != nil || u.Scheme != "https" || u.Port() == "" {
		return nil, fmt.Errorf("the server's URL %q: want https://HOST:PORT", cfg.Server)
	}
	var ca *x509.Certificate
	conf := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // VerifyConnection does it, by the pin
		VerifyConnection: func(s tls.ConnectionState) (err error) {
			ca, err = cfg.Token.verify(s.PeerCertificates, u.Hostname(), time.Now())
			return err
		},
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", u.Host)
	if err != nil {
		return nil, err
	}
	return ca, conn.Close()
}

// bearer adds a token to requests.
type bearer struct {
	next  http.RoundTripper
	token string
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

// request asks for a certificate for key as a node (Kubernetes' TLS bootstrapping) and waits for it.
func request(ctx context.Context, server string, transport http.RoundTripper, node string, key *ecdsa.PrivateKey, log *slog.Logger) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}}, key)
	if err != nil {
		return nil, err
	}
	c, err := client.NewRemote(client.RemoteConfig{Server: server, Transport: transport, UserAgent: "knarr-agent", Log: log})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	made, err := c.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "node-csr-"},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth, certificatesv1.UsageDigitalSignature},
		},
	})
	if err != nil {
		return nil, fmt.Errorf("asking for a certificate: %w", err)
	}
	request, err := client.Await(ctx, c, api.KeyOf(made), func(r *certificatesv1.CertificateSigningRequest) (bool, error) {
		return answered(r, made.GetName())
	})
	if ctx.Err() != nil {
		return nil, fmt.Errorf("waiting for the certificate: %w (request %s may wait for kubectl certificate approve)", ctx.Err(), made.GetName())
	}
	if err != nil {
		return nil, fmt.Errorf("waiting for the certificate: %w", err)
	}
	return request.Status.Certificate, nil
}

// answered reports whether r, the request called name, has got its certificate; that it never will is an error.
func answered(r *certificatesv1.CertificateSigningRequest, name string) (bool, error) {
	if r == nil {
		return false, fmt.Errorf("certificate request %s was deleted", name)
	}
	for _, c := range r.Status.Conditions {
		if c.Type == certificatesv1.CertificateDenied || c.Type == certificatesv1.CertificateFailed {
			return false, fmt.Errorf("certificate request %s was refused: %s: %s", name, c.Reason, c.Message)
		}
	}
	return len(r.Status.Certificate) > 0, nil
}

func newKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// newTransport returns an HTTP/2 transport that notices within seconds when the server has gone away without a word.
func newTransport(conf *tls.Config) *http.Transport {
	return &http.Transport{
		TLSClientConfig: conf, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: 90 * time.Second,
		DialContext:        agentlink.Dialer().DialContext,
		HTTP2:              &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 5 * time.Second},
		DisableCompression: true,
	}
}
