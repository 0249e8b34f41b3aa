package webhook_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/manifests"
	"github.com/knarr-io/knarr/internal/server/admission/webhook"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/cel"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/request"
)

// cluster is a front door whose writes pass webhooks.
type cluster struct {
	*client.Local
	registry *registry.Registry
	webhooks *webhook.Webhooks
	metrics  *prometheus.Registry
	owners   owners
}

// owners may delete webhook configurations.
type owners map[string]bool

func (o owners) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if o[a.User.GetName()] && a.Verb == "delete" && a.Group == "admissionregistration.k8s.io" {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

// begin starts a cluster. before are plugins that go first.
func begin(t testing.TB, before ...admission.Plugin) *cluster {
	t.Helper()
	return beginWith(t, nil, before...)
}

// beginWith has configurations from files, too.
func beginWith(t testing.TB, files *manifests.Files, before ...admission.Plugin) *cluster {
	t.Helper()
	c := &cluster{metrics: prometheus.NewRegistry(), owners: owners{}}
	c.Local, c.registry = clienttest.NewRegistry(t, func(cfg *registry.Config) {
		cfg.Admission = func(front *registry.Registry) admission.Chain {
			c.webhooks = webhook.New(webhook.Config{
				Store: cfg.Store, Reader: registry.NewReader(cfg.Store), Served: front.Served(), Authorizer: c.owners, Programs: &cel.Programs{},
				Files: files, Metrics: c.metrics, Log: slog.New(slog.DiscardHandler),
			})
			return append(admission.Chain(before), c.webhooks.Mutating(), c.webhooks.Validating())
		}
	})
	c.webhooks.Serve()
	return c
}

// as is the context of a request of a user.
func as(name string, groups ...string) context.Context {
	return request.With(context.Background(), &request.Info{User: &user.DefaultInfo{Name: name, Groups: groups}})
}

// backend is a webhook server with a certificate, which keeps what it was asked.
type backend struct {
	*httptest.Server
	ca []byte

	mu    sync.Mutex
	asked []*admissionv1.AdmissionRequest
	paths []string
}

// answer fills in a response.
type answer func(r *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse)

// serve runs a backend whose answers, by path, are what answers says; all others are allowed.
func serve(t testing.TB, answers map[string]answer) *backend {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"hook.hooks.svc"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
	b.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		review := &admissionv1.AdmissionReview{}
		if err == nil {
			err = json.Unmarshal(body, review)
		}
		if err != nil || review.Request == nil || review.Kind != "AdmissionReview" {
			t.Errorf("asked with %.200s: %v", body, err)
			return
		}
		b.mu.Lock()
		b.asked, b.paths = append(b.asked, review.Request), append(b.paths, r.URL.Path)
		b.mu.Unlock()
		switch r.URL.Path {
		case "/hang":
			<-r.Context().Done()
			return
		case "/ill":
			http.Error(w, "out of order", http.StatusInternalServerError)
			return
		case "/nonsense":
			_, _ = io.WriteString(w, "<html>")
			return
		}
		out := &admissionv1.AdmissionReview{TypeMeta: review.TypeMeta, Response: &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}}
		if f := answers[r.URL.Path]; f != nil {
			f(review.Request, out.Response)
		}
		switch r.URL.Path {
		case "/kindless":
			out.TypeMeta = metav1.TypeMeta{}
		case "/silent":
			out.Response = nil
		}
		_ = json.NewEncoder(w).Encode(out)
	}))
	b.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	b.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	b.StartTLS()
	t.Cleanup(b.Close)
	return b
}

// requests returns what the backend was asked since the last call, and at which paths.
func (b *backend) requests() ([]*admissionv1.AdmissionRequest, []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	asked, paths := b.asked, b.paths
	b.asked, b.paths = nil, nil
	return asked, paths
}

func (b *backend) config(path string) admissionregistrationv1.WebhookClientConfig {
	url := b.URL + path
	return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: b.ca}
}

func of(resources ...string) []admissionregistrationv1.RuleWithOperations {
	return []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.OperationAll},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{"*"}, APIVersions: []string{"*"}, Resources: resources},
	}}
}

var (
	none   = admissionregistrationv1.SideEffectClassNone
	fail   = admissionregistrationv1.Fail
	ignore = admissionregistrationv1.Ignore
)

// validating makes a configuration of one validating webhook.
func (c *cluster) validating(t testing.TB, name string, at admissionregistrationv1.WebhookClientConfig, change ...func(*admissionregistrationv1.ValidatingWebhook)) *admissionregistrationv1.ValidatingWebhookConfiguration {
	t.Helper()
	w := admissionregistrationv1.ValidatingWebhook{
		Name: name + ".example.com", ClientConfig: at, Rules: of("configmaps"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
	}
	for _, f := range change {
		f(&w)
	}
	out, err := c.Create(t.Context(), &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []admissionregistrationv1.ValidatingWebhook{w},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.(*admissionregistrationv1.ValidatingWebhookConfiguration)
}

// mutating makes a configuration of one mutating webhook.
func (c *cluster) mutating(t testing.TB, name string, at admissionregistrationv1.WebhookClientConfig, change ...func(*admissionregistrationv1.MutatingWebhook)) {
	t.Helper()
	w := admissionregistrationv1.MutatingWebhook{
		Name: name + ".example.com", ClientConfig: at, Rules: of("configmaps"), SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
	}
	for _, f := range change {
		f(&w)
	}
	_, err := c.Create(t.Context(), &admissionregistrationv1.MutatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Webhooks: []admissionregistrationv1.MutatingWebhook{w},
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) forget(t testing.TB, res *api.Resource, name string) {
	t.Helper()
	if err := c.Delete(t.Context(), res, api.Key{Name: name}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
}

// create writes a ConfigMap as a user.
func (c *cluster) create(ctx context.Context, name string, dry ...string) (*corev1.ConfigMap, error) {
	obj, err := c.registry.Create(ctx, api.ConfigMaps, configMap(name), metav1.CreateOptions{DryRun: dry})
	if err != nil {
		return nil, err
	}
	return obj.(*corev1.ConfigMap), nil
}

func configMap(name string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: map[string]string{"k": "v"}}
}

// patch is an answer that changes the object by a JSON patch.
func patch(text string) answer {
	return func(_ *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) {
		kind := admissionv1.PatchTypeJSONPatch
		out.Patch, out.PatchType = []byte(text), &kind
	}
}

// refuse is an answer that refuses everything.
func refuse(_ *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) { out.Allowed = false }
