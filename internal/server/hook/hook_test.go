package hook_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/hook"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

type message struct{ Said string }

// serve is a webhook with a certificate for name, and that certificate in PEM.
func serve(t *testing.T, name string, h http.HandlerFunc) (*httptest.Server, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestAnswers: what a webhook answers is read, within its time; what is no answer is an error that says what was.
func TestAnswers(t *testing.T) {
	s, ca := serve(t, "example", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/echo":
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		case "/ill":
			http.Error(w, "out of order", http.StatusInternalServerError)
		case "/elsewhere":
			http.Redirect(w, r, "/echo", http.StatusTemporaryRedirect)
		case "/nonsense":
			_, _ = io.WriteString(w, "<html>")
		case "/late":
			_, _ = io.Copy(io.Discard, r.Body) // only then does net/http look whether the client is there
			<-r.Context().Done()
		}
	})
	_, stranger := serve(t, "example", nil)
	for _, test := range []struct {
		path, wrong string
		ca          []byte
	}{
		{"/echo", "", ca},
		{"/ill", "500 Internal Server Error: out of order", ca},
		{"/elsewhere", "307 Temporary Redirect", ca},
		{"/nonsense", "reading the answer", ca},
		{"/late", "deadline exceeded", ca},
		{"/echo", "certificate signed by unknown authority", stranger},
	} {
		c, err := hook.New(hook.Target{URL: s.URL + test.path, CA: test.ca}, nil)
		if err != nil {
			t.Fatal(err)
		}
		var got message
		began := time.Now()
		err = c.Post(t.Context(), 500*time.Millisecond, message{"hello"}, &got)
		if test.wrong == "" && (err != nil || got.Said != "hello") || test.wrong != "" && (err == nil || !strings.Contains(err.Error(), test.wrong)) {
			t.Errorf("%s: %q, %v; want %q", test.path, got.Said, err, test.wrong)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %s", test.path, took)
		}
	}
	if _, err := hook.New(hook.Target{URL: s.URL, CA: []byte("no certificate")}, nil); err == nil {
		t.Error("a bundle without certificates was taken")
	}
}

// TestServices: a Service without an endpoint that is ready is not reached, and what is reached has the Service's name.
func TestServices(t *testing.T) {
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	s, ca := serve(t, "outside.default.svc", echo)
	_, p, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.ParseInt(p, 10, 32)
	if err != nil {
		t.Fatal(err)
	}
	objects := clienttest.RunStore(t, store.NewMem())
	c := client.NewLocal(registry.New(registry.Config{Store: objects, ServiceCIDR: netip.MustParsePrefix("10.96.0.0/16"), Log: slog.New(slog.DiscardHandler)}))
	clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	post := func(service, with string) {
		t.Helper()
		h, err := hook.New(hook.Target{Namespace: "default", Service: service, Port: int32(port), CA: ca}, objects)
		if err != nil {
			t.Fatal(err)
		}
		var got message
		err = h.Post(t.Context(), 5*time.Second, message{"hello"}, &got)
		if with == "" && (err != nil || got.Said != "hello") || with != "" && (err == nil || !strings.Contains(err.Error(), with)) {
			t.Errorf("%s: %q, %v; want %q", service, got.Said, err, with)
		}
	}
	post("hook", `service "hook" not found`)
	clienttest.Create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "hook"}, Spec: corev1.ServiceSpec{
		Ports: []corev1.ServicePort{{Name: "https", Port: int32(port)}},
	}})
	post("hook", `no endpoints available for service "hook"`)
	ready, name, at := false, "https", int32(port)
	clienttest.Create(t, c, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "hook-1", Labels: map[string]string{discoveryv1.LabelServiceName: "hook"}},
		AddressType: discoveryv1.AddressTypeIPv4, Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &at}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	})
	post("hook", `no endpoints available for service "hook"`)
	for service, with := range map[string]string{"outside": "", "misnamed": "certificate is valid for outside.default.svc, not misnamed.default.svc"} {
		clienttest.Create(t, c, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service}, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeExternalName, ExternalName: "localhost",
		}})
		post(service, with)
	}
}
