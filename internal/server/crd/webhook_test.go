package crd

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

var v2 = schema.GroupVersion{Group: "example.com", Version: "v2"}

// webhookAt returns the Converter of a webhook that answers as handler does.
func webhookAt(t *testing.T, versions []string, handler http.HandlerFunc) Converter {
	t.Helper()
	srv := httptest.NewTLSServer(handler)
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	def := definitionOf(t, sails)
	def.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
		ConversionReviewVersions: versions,
		ClientConfig: &apiextensionsv1.WebhookClientConfig{
			URL: &srv.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}),
		},
	}}
	return Webhooks(nil)(def)
}

// saying is a webhook that answers a review with a text in which UID stands for the review's.
func saying(t *testing.T, text string) http.HandlerFunc {
	b, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		var asked apiextensionsv1.ConversionReview
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Request == nil {
			http.Error(w, "no review", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, strings.ReplaceAll(string(b), "UID", string(asked.Request.UID)))
	}
}

// A webhook may change what it likes but for metadata, of which it may change labels and annotations.
func TestWhatAWebhookIsBelieved(t *testing.T) {
	given := `apiVersion: example.com/v1, kind: Sail, metadata: {name: a, namespace: ns, uid: u, generation: 4, labels: {x: one}, ownerReferences: [{name: o}]}`
	review := func(object string) string {
		return "{apiVersion: apiextensions.k8s.io/v1, kind: ConversionReview, response: {uid: UID, result: {status: Success}, convertedObjects: [" + object + "]}}"
	}
	const meta = "name: a, namespace: ns, uid: u"
	for _, c := range []struct{ name, answer, want, err string }{
		{"labels and annotations",
			review("{apiVersion: example.com/v2, kind: Sail, metadata: {" + meta + ", labels: {x: two}, annotations: {y: three}}, new: 1}"),
			"{apiVersion: example.com/v2, kind: Sail, metadata: {name: a, namespace: ns, uid: u, generation: 4, labels: {x: two}, annotations: {y: three}, ownerReferences: [{name: o}]}, new: 1}", ""},
		{"other metadata",
			review("{apiVersion: example.com/v2, kind: Sail, metadata: {" + meta + ", generation: 9, finalizers: [z], creationTimestamp: '2020-01-01T00:00:00Z'}}"),
			"{apiVersion: example.com/v2, kind: Sail, metadata: {name: a, namespace: ns, uid: u, generation: 4, ownerReferences: [{name: o}]}}", ""},
		{"another name", review("{apiVersion: example.com/v2, kind: Sail, metadata: {name: b, namespace: ns, uid: u}}"), "", "index 0: must have the same name: a != b"},
		{"another namespace", review("{apiVersion: example.com/v2, kind: Sail, metadata: {name: a, namespace: m, uid: u}}"), "", "index 0: must have the same namespace: ns != m"},
		{"another UID", review("{apiVersion: example.com/v2, kind: Sail, metadata: {name: a, namespace: ns, uid: w}}"), "", "index 0: must have the same UID: u != w"},
		{"another kind", review("{apiVersion: example.com/v2, kind: Rope, metadata: {" + meta + "}}"), "", "index 0: invalid kind (expected Sail, received Rope)"},
		{"another version", review("{apiVersion: example.com/v1, kind: Sail, metadata: {" + meta + "}}"), "", "index 0: invalid groupVersion (expected example.com/v2, received example.com/v1)"},
		{"no metadata", review("{apiVersion: example.com/v2, kind: Sail}"), "", "index 0: must have the same name: a != "},
		{"invalid labels", review("{apiVersion: example.com/v2, kind: Sail, metadata: {" + meta + ", labels: {'a b': c}}}"), "", "index 0: metadata.labels: Invalid value"},
		{"labels that are none", review("{apiVersion: example.com/v2, kind: Sail, metadata: {" + meta + ", labels: [7]}}"), "", "index 0: "},
		{"two for one", review("{apiVersion: example.com/v2, kind: Sail}, {apiVersion: example.com/v2, kind: Sail}"), "", "returned 2 objects, expected 1"},
		{"none for one", review(""), "", "returned 0 objects, expected 1"},
		{"a list", review("[]"), "", "index 0"},
		{"a failure", "{apiVersion: apiextensions.k8s.io/v1, kind: ConversionReview, response: {uid: UID, result: {status: Failure, message: not today}}}", "", "failed: not today"},
		{"no result", "{apiVersion: apiextensions.k8s.io/v1, kind: ConversionReview, response: {uid: UID}}", "", "response.result.status was '', not 'Success'"},
		{"no response", "{apiVersion: apiextensions.k8s.io/v1, kind: ConversionReview}", "", "no response provided"},
		{"another review", "{apiVersion: apiextensions.k8s.io/v1, kind: ConversionReview, response: {uid: other}}", "", `got "other"`},
		{"another kind of answer", "{apiVersion: v1, kind: Pod}", "", "expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, got /v1, Kind=Pod"},
		{"nonsense", "[1, 2]", "", "reading the answer"},
	} {
		w := webhookAt(t, []string{"v9", "v1"}, saying(t, c.answer))
		from := object(t, "{"+given+"}")
		before := from.DeepCopy()
		out, err := w.Convert(t.Context(), []*unstructured.Unstructured{from}, v2)
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) || !strings.HasPrefix(err.Error(), "conversion webhook for example.com/v1, Kind=Sail ") {
				t.Errorf("%s: %v, want %q", c.name, err, c.err)
			}
		case err != nil || len(out) != 1 || !reflect.DeepEqual(out[0], object(t, c.want)):
			t.Errorf("%s: %v %v\nwant %s", c.name, out, err, c.want)
		}
		if !reflect.DeepEqual(from, before) {
			t.Errorf("%s: the object that was given has changed", c.name)
		}
	}
}

func TestWebhooksThatDoNotAnswer(t *testing.T) {
	objs := []*unstructured.Unstructured{object(t, "{apiVersion: example.com/v1, kind: Sail, metadata: {name: a}}")}
	fails := func(name string, w Converter, want string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := w.Convert(ctx, objs, v2); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	fails("an error", webhookAt(t, []string{"v1"}, func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "boom", http.StatusTeapot) }), "418 I'm a teapot: boom")
	fails("a redirection", webhookAt(t, []string{"v1"}, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }), "302")
	fails("no version in common", webhookAt(t, []string{"v2"}, nil), "no supported conversion review versions")
	fails("a hanging one", webhookAt(t, []string{"v1"}, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	}), "context deadline exceeded")
	def := definitionOf(t, sails)
	if Webhooks(nil)(def) != nil {
		t.Error("a definition without a webhook has one")
	}
	def.Spec.Conversion = &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter, Webhook: &apiextensionsv1.WebhookConversion{
		ConversionReviewVersions: []string{"v1"}, ClientConfig: &apiextensionsv1.WebhookClientConfig{URL: new(string), CABundle: []byte("none")},
	}}
	fails("no certificate", Webhooks(nil)(def), "unable to load root certificates")
}

// v1beta1 reviews need neither a kind nor a UID in the answer.
func TestOldReviews(t *testing.T) {
	w := webhookAt(t, []string{"v1beta1"}, saying(t, "{response: {result: {status: Success}, convertedObjects: [{apiVersion: example.com/v2, kind: Sail, metadata: {name: a}}]}}"))
	out, err := w.Convert(t.Context(), []*unstructured.Unstructured{object(t, "{apiVersion: example.com/v1, kind: Sail, metadata: {name: a}}")}, v2)
	if err != nil || out[0].GetAPIVersion() != "example.com/v2" {
		t.Errorf("%v %v", out, err)
	}
}
