package clients

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log/zap"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/webhook"
	"sigs.k8s.io/controller-runtime/pkg/webhook/admission"
)

// keeper is the operator: each guestbook has a ConfigMap with its entries.
type keeper struct{ client.Client }

func (k *keeper) Reconcile(ctx context.Context, r ctrl.Request) (ctrl.Result, error) {
	var g guestbook
	if err := k.Get(ctx, r.NamespacedName, &g); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	const held = "guests.example.com/held"
	if !g.DeletionTimestamp.IsZero() {
		if controllerutil.RemoveFinalizer(&g, held) {
			return ctrl.Result{}, k.Update(ctx, &g)
		}
		return ctrl.Result{}, nil
	}
	if controllerutil.AddFinalizer(&g, held) {
		return ctrl.Result{}, k.Update(ctx, &g)
	}
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: g.Namespace, Name: g.Name}}
	if _, err := controllerutil.CreateOrUpdate(ctx, k.Client, cm, func() error {
		cm.Data = map[string]string{"entries": strings.Join(g.Spec.Entries, ",")}
		return controllerutil.SetControllerReference(&g, cm, k.Scheme())
	}); err != nil {
		return ctrl.Result{}, err
	}
	if g.Status.Entries == len(g.Spec.Entries) && g.Status.Phase == "Kept" {
		return ctrl.Result{}, nil
	}
	g.Status = guestbookStatus{Entries: len(g.Spec.Entries), Phase: "Kept"}
	return ctrl.Result{}, k.Status().Update(ctx, &g)
}

// polite is the operator's webhooks.
type polite struct{}

func (polite) Default(_ context.Context, g *guestbook) error {
	if g.Spec.Title == "" {
		g.Spec.Title = "Guests of " + g.Name
	}
	return nil
}

func (polite) check(g *guestbook) (admission.Warnings, error) {
	for _, e := range g.Spec.Entries {
		if strings.Contains(e, "rude") {
			return nil, fmt.Errorf("the entry %q is rude", e)
		}
	}
	if len(g.Spec.Entries) == 0 {
		return admission.Warnings{"nobody has signed"}, nil
	}
	return nil, nil
}

func (p polite) ValidateCreate(_ context.Context, g *guestbook) (admission.Warnings, error) {
	return p.check(g)
}

func (p polite) ValidateUpdate(_ context.Context, _, g *guestbook) (admission.Warnings, error) {
	return p.check(g)
}

func (polite) ValidateDelete(_ context.Context, g *guestbook) (admission.Warnings, error) {
	if g.Annotations["keep"] == "yes" {
		return nil, errors.New("this book is kept")
	}
	return nil, nil
}

// serving makes a certificate for 127.0.0.1 that vouches for itself.
func serving(t *testing.T) (ca []byte, pair tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, leaf, leaf, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// warned collects the warnings that the API answers with.
type warned struct{ messages chan string }

func (w warned) HandleWarningHeaderWithContext(_ context.Context, _ int, _, text string) {
	select {
	case w.messages <- text:
	default:
	}
}

// operate installs and runs the operator.
func operate(c *cluster) (client.Client, warned) {
	c.t.Helper()
	ctrl.SetLogger(zap.New(zap.WriteTo(c.t.Output())))
	scheme := guestbookScheme()
	for _, add := range []func(*runtime.Scheme) error{clientgoscheme.AddToScheme, apiextensionsv1.AddToScheme} {
		if err := add(scheme); err != nil {
			c.t.Fatal(err)
		}
	}
	ca, pair := serving(c.t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		c.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	l.Close()
	number, _ := strconv.Atoi(port)
	config := *c.rest
	warnings := warned{make(chan string, 100)}
	config.WarningHandlerWithContext = warnings
	api, err := client.New(&config, client.Options{Scheme: scheme})
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.t.Cleanup(cancel)
	must := func(err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	must(api.Create(ctx, guestbookDefinition(ca, "https://127.0.0.1:"+port+"/convert")))
	c.until("the definition is established", func() bool {
		var d apiextensionsv1.CustomResourceDefinition
		must(api.Get(ctx, types.NamespacedName{Name: "guestbooks.guests.example.com"}, &d))
		for _, cond := range d.Status.Conditions {
			if cond.Type == apiextensionsv1.Established && cond.Status == apiextensionsv1.ConditionTrue {
				return true
			}
		}
		return false
	})
	m, err := ctrl.NewManager(&config, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"}, LeaderElection: true, LeaderElectionID: "keeper", LeaderElectionNamespace: "default", LeaderElectionReleaseOnCancel: true,
		WebhookServer: webhook.NewServer(webhook.Options{Host: "127.0.0.1", Port: number, TLSOpts: []func(*tls.Config){func(t *tls.Config) {
			t.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &pair, nil }
		}}}),
	})
	must(err)
	must(ctrl.NewWebhookManagedBy(m, &guestbook{}).WithDefaulter(polite{}).WithValidator(polite{}).Complete())
	must(ctrl.NewControllerManagedBy(m).For(&guestbook{}).Owns(&corev1.ConfigMap{}).Named(strings.ToLower(c.t.Name())).Complete(&keeper{m.GetClient()}))
	ended := make(chan error, 1)
	go func() { ended <- m.Start(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Errorf("the operator ended: %v", err)
		}
	})
	c.until("the webhooks listen", func() bool { return m.GetWebhookServer().StartedChecker()(nil) == nil })
	fail, none, equivalent := admissionregistrationv1.Fail, admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.Equivalent
	rules := []admissionregistrationv1.RuleWithOperations{{
		Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.Create, admissionregistrationv1.Update, admissionregistrationv1.Delete},
		Rule:       admissionregistrationv1.Rule{APIGroups: []string{guestbookV2.Group}, APIVersions: []string{"v2"}, Resources: []string{"guestbooks"}},
	}}
	at := func(path string) admissionregistrationv1.WebhookClientConfig {
		url := "https://127.0.0.1:" + port + path
		return admissionregistrationv1.WebhookClientConfig{URL: &url, CABundle: ca}
	}
	must(api.Create(ctx, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "polite"}, Webhooks: []admissionregistrationv1.MutatingWebhook{{
		Name: "default.guests.example.com", ClientConfig: at("/mutate-guests-example-com-v2-guestbook"), Rules: rules, FailurePolicy: &fail, SideEffects: &none, MatchPolicy: &equivalent, AdmissionReviewVersions: []string{"v1"},
	}}}))
	must(api.Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "polite"}, Webhooks: []admissionregistrationv1.ValidatingWebhook{{
		Name: "check.guests.example.com", ClientConfig: at("/validate-guests-example-com-v2-guestbook"), Rules: rules, FailurePolicy: &fail, SideEffects: &none, MatchPolicy: &equivalent, AdmissionReviewVersions: []string{"v1"},
	}}}))
	return api, warnings
}

// guestbookDefinition is what controller-gen makes of the types.
func guestbookDefinition(ca []byte, convert string) *apiextensionsv1.CustomResourceDefinition {
	object := func(properties map[string]apiextensionsv1.JSONSchemaProps) apiextensionsv1.JSONSchemaProps {
		return apiextensionsv1.JSONSchemaProps{Type: "object", Properties: properties}
	}
	text, list := apiextensionsv1.JSONSchemaProps{Type: "string"}, apiextensionsv1.JSONSchemaProps{Type: "array", Items: &apiextensionsv1.JSONSchemaPropsOrArray{Schema: &apiextensionsv1.JSONSchemaProps{Type: "string", MaxLength: new(int64(40))}}}
	status := object(map[string]apiextensionsv1.JSONSchemaProps{"entries": {Type: "integer"}, "phase": text})
	version := func(name string, storage bool, spec apiextensionsv1.JSONSchemaProps) apiextensionsv1.CustomResourceDefinitionVersion {
		schema := object(map[string]apiextensionsv1.JSONSchemaProps{"spec": spec, "status": status})
		return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: true, Storage: storage, Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &schema},
			Subresources: &apiextensionsv1.CustomResourceSubresources{Status: &apiextensionsv1.CustomResourceSubresourceStatus{}}}
	}
	return &apiextensionsv1.CustomResourceDefinition{ObjectMeta: metav1.ObjectMeta{Name: "guestbooks.guests.example.com"}, Spec: apiextensionsv1.CustomResourceDefinitionSpec{
		Group: guestbookV2.Group, Scope: apiextensionsv1.NamespaceScoped, Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: "guestbooks", Singular: "guestbook", Kind: "Guestbook", ListKind: "GuestbookList"},
		Versions: []apiextensionsv1.CustomResourceDefinitionVersion{
			version("v1", false, object(map[string]apiextensionsv1.JSONSchemaProps{"text": text})),
			version("v2", true, object(map[string]apiextensionsv1.JSONSchemaProps{"entries": list, "title": text})),
		},
		Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
			ConversionReviewVersions: []string{"v1"}, ClientConfig: &apiextensionsv1.WebhookClientConfig{URL: &convert, CABundle: ca}}},
	}}
}

// TestOperator: an operator as kubebuilder lays one out reconciles, converts, defaults, warns, refuses and cleans up.
func TestOperator(t *testing.T) {
	c := start(t)
	api, warnings := operate(c)
	ctx := within(t, 3*time.Minute)
	key := types.NamespacedName{Namespace: "default", Name: "inn"}

	old := &oldGuestbook{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name}}
	old.Spec.Text = "Ada\nGrace"
	if err := api.Create(ctx, old); err != nil {
		t.Fatal(err)
	}
	var g guestbook
	c.until("the operator has kept the book", func() bool {
		if err := api.Get(ctx, key, &g); err != nil {
			t.Fatal(err)
		}
		return g.Status.Phase == "Kept"
	})
	if strings.Join(g.Spec.Entries, " ") != "Ada Grace" || g.Spec.Title != "Guests of inn" || g.Status.Entries != 2 {
		t.Errorf("the book that was made in v1 is %+v in v2", g)
	}
	var cm corev1.ConfigMap
	c.until("its ConfigMap", func() bool { return api.Get(ctx, key, &cm) == nil })
	if cm.Data["entries"] != "Ada,Grace" || !metav1.IsControlledBy(&cm, &g) {
		t.Errorf("the ConfigMap is %v of %v", cm.Data, cm.OwnerReferences)
	}

	g.Spec.Entries = append(g.Spec.Entries, "somebody rude")
	if err := api.Update(ctx, &g); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), `admission webhook "check.guests.example.com" denied the request: the entry "somebody rude" is rude`) {
		t.Errorf("a rude entry: %v", err)
	}
	if err := api.Get(ctx, types.NamespacedName{Namespace: key.Namespace, Name: key.Name}, old); err != nil {
		t.Fatal(err)
	}
	old.Spec.Text += "\na rude one"
	if err := api.Update(ctx, old); !apierrors.IsForbidden(err) {
		t.Errorf("a rude entry in v1, of which the webhook hears in v2: %v", err)
	}
	long := &guestbook{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "long"}}
	long.Spec.Entries = []string{strings.Repeat("x", 41)}
	if err := api.Create(ctx, long); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.entries[0]: Too long: may not be more than 40 bytes") {
		t.Errorf("an entry that is too long: %v", err)
	}
	empty := &guestbook{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "empty", Annotations: map[string]string{"keep": "yes"}}}
	if err := api.Create(ctx, empty, client.DryRunAll); err != nil {
		t.Errorf("a dry run: %v", err)
	}
	if err := api.Create(ctx, empty.DeepCopyObject().(*guestbook)); err != nil {
		t.Fatal(err)
	}
	select {
	case w := <-warnings.messages:
		if w != "nobody has signed" {
			t.Errorf("warned of %q", w)
		}
	case <-time.After(time.Second):
		t.Error("no warning")
	}
	if err := api.Delete(ctx, empty); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "this book is kept") {
		t.Errorf("deleting a book that is kept: %v", err)
	}

	patch := client.RawPatch(types.ApplyPatchType, []byte(`{"apiVersion":"guests.example.com/v2","kind":"Guestbook","metadata":{"name":"inn"},"spec":{"entries":["Ada","Grace","Barbara"]}}`))
	applied := &guestbook{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "inn"}}
	if err := api.Patch(ctx, applied, patch, client.FieldOwner("host"), client.ForceOwnership); err != nil {
		t.Fatal(err)
	}
	c.until("the ConfigMap follows", func() bool { return api.Get(ctx, key, &cm) == nil && cm.Data["entries"] == "Ada,Grace,Barbara" })

	// Unstructured clients, such as the garbage collector's, come in either version.
	list := &unstructured.UnstructuredList{}
	list.SetGroupVersionKind(guestbookV1.WithKind("GuestbookList"))
	if err := api.List(ctx, list, client.InNamespace("default")); err != nil || len(list.Items) != 2 {
		t.Fatalf("%d books in v1 (%v)", len(list.Items), err)
	}
	for _, item := range list.Items {
		if text, _, _ := unstructured.NestedString(item.Object, "spec", "text"); item.GetName() == "inn" && text != "Ada\nGrace\nBarbara" {
			t.Errorf("in v1 the book has %q", text)
		}
	}

	if err := api.Delete(ctx, &g); err != nil {
		t.Fatal(err)
	}
	c.until("the book is gone", func() bool { return apierrors.IsNotFound(api.Get(ctx, key, &guestbook{})) })
	c.until("what it owned is gone", func() bool { return apierrors.IsNotFound(api.Get(ctx, key, &corev1.ConfigMap{})) })
}
