package webhook_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/request"
)

type said struct{ texts []string }

func (s *said) AddWarning(_, text string) { s.texts = append(s.texts, text) }

// TestAnswers: what a webhook says of a write reaches its writer as kube-apiserver words it.
func TestAnswers(t *testing.T) {
	deny := func(st *metav1.Status) answer {
		return func(_ *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) {
			out.Allowed, out.Result = false, st
		}
	}
	for _, tc := range []struct {
		name   string
		answer answer
		code   int32 // 0: allowed
		want   string
	}{
		{"allowed", func(_ *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) {
			out.Warnings = []string{"mind the gap"}
		}, 0, ""},
		{"denied", deny(&metav1.Status{Message: "no cats"}), 400, `admission webhook "a.example.com" denied the request: no cats`},
		{"denied with a code", deny(&metav1.Status{Message: "no", Code: 403, Reason: metav1.StatusReasonForbidden}), 403, `admission webhook "a.example.com" denied the request: no`},
		{"denied with a reason", deny(&metav1.Status{Reason: "Cats"}), 400, `admission webhook "a.example.com" denied the request: Cats`},
		{"denied without a word", deny(nil), 400, `admission webhook "a.example.com" denied the request without explanation`},
		{"denied as if allowed", deny(&metav1.Status{Status: metav1.StatusSuccess, Code: 200}), 400, `denied the request without explanation`},
		{"of another request", func(_ *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) { out.UID = "other" }, 500,
			`Internal error occurred: failed calling webhook "a.example.com": received invalid webhook response: expected response.uid=`},
		{"with a patch", patch(`[]`), 500, "validating webhook may not return response.patch"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := begin(t)
			b := serve(t, map[string]answer{"/": tc.answer})
			c.validating(t, "a", b.config("/"))
			heard := &said{}
			_, err := c.create(warning.WithWarningRecorder(as("jane"), heard), "x")
			if tc.code == 0 {
				if err != nil || strings.Join(heard.texts, "") != "mind the gap" {
					t.Errorf("%v, warned %v", err, heard.texts)
				}
				return
			}
			st, ok := err.(apierrors.APIStatus)
			if !ok || st.Status().Code != tc.code || !strings.Contains(err.Error(), tc.want) || st.Status().Status != metav1.StatusFailure {
				t.Errorf("%v (%+v)", err, st)
			}
			if list, err := c.registry.List(t.Context(), api.ConfigMaps, registry.ListOptions{}); err != nil || len(list.Items) > 0 {
				t.Errorf("it is there nevertheless: %v", err)
			}
		})
	}
}

// TestFailures: a webhook that cannot be asked refuses the write or is passed over, as its failure policy says, within its time.
func TestFailures(t *testing.T) {
	_, stranger := serve(t, nil), serve(t, nil).ca
	second := int32(1)
	for _, tc := range []struct {
		path, want string
		change     func(*admissionregistrationv1.ValidatingWebhook)
		code       string
	}{
		{"/ill", `failed calling webhook "a.example.com": failed to call webhook: an error on the server ("out of order\n") has prevented the request from succeeding`, nil, "500"},
		{"/nonsense", `failed calling webhook "a.example.com": failed to call webhook: reading the answer`, nil, "503"},
		{"/silent", "received invalid webhook response: webhook response was absent", nil, "503"},
		{"/kindless", "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind=", nil, "503"},
		{"/hang", "context deadline exceeded", func(w *admissionregistrationv1.ValidatingWebhook) { w.TimeoutSeconds = &second }, "503"},
		{"/", "certificate signed by unknown authority", func(w *admissionregistrationv1.ValidatingWebhook) { w.ClientConfig.CABundle = stranger }, "503"},
		{"/", `service "nobody" not found`, func(w *admissionregistrationv1.ValidatingWebhook) {
			w.ClientConfig = admissionregistrationv1.WebhookClientConfig{Service: &admissionregistrationv1.ServiceReference{Namespace: "default", Name: "nobody"}}
		}, "503"},
	} {
		t.Run(tc.path+" "+tc.want[:20], func(t *testing.T) {
			for _, policy := range []*admissionregistrationv1.FailurePolicyType{&fail, &ignore} {
				c := begin(t)
				b := serve(t, nil)
				c.validating(t, "a", b.config(tc.path), func(w *admissionregistrationv1.ValidatingWebhook) {
					if w.FailurePolicy = policy; tc.change != nil {
						tc.change(w)
					}
				})
				began := time.Now()
				_, err := c.create(as("jane"), "x")
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("took %s", took)
				}
				if policy == &ignore && err != nil {
					t.Errorf("not passed over: %v", err)
				}
				if policy == &fail && (!apierrors.IsInternalError(err) || !strings.Contains(err.Error(), tc.want)) {
					t.Errorf("got %v", err)
				}
				open, rejected := "0", "1"
				if policy == &ignore {
					open, rejected = "1", "0"
				}
				for name, want := range map[string]string{"fail_open_count": open, "rejection_count": rejected} {
					if got := c.count(t, "apiserver_admission_webhook_"+name); got != want {
						t.Errorf("%s: %s is %s", *policy, name, got)
					}
				}
			}
		})
	}
}

// count sums up a metric.
func (c *cluster) count(t testing.TB, name string) string {
	t.Helper()
	families, err := c.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return fmt.Sprint(sum)
}

// TestMetrics: the names and labels are those that dashboards for kube-apiserver look for.
func TestMetrics(t *testing.T) {
	c := begin(t)
	b := serve(t, map[string]answer{"/no": func(_ *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) {
		out.Allowed, out.Result = false, &metav1.Status{Code: 418}
	}})
	c.mutating(t, "m", b.config("/yes"))
	c.validating(t, "v", b.config("/no"))
	if _, err := c.create(as("jane"), "x"); err == nil {
		t.Fatal("not refused")
	}
	var got []string
	families, err := c.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			line := f.GetName()
			for _, l := range m.GetLabel() {
				line += " " + l.GetName() + "=" + l.GetValue()
			}
			got = append(got, line)
		}
	}
	want := []string{
		"apiserver_admission_webhook_admission_duration_seconds name=m.example.com operation=CREATE rejected=false type=admit",
		"apiserver_admission_webhook_admission_duration_seconds name=v.example.com operation=CREATE rejected=true type=validating",
		"apiserver_admission_webhook_rejection_count error_type=no_error name=v.example.com operation=CREATE rejection_code=418 type=validating",
		"apiserver_admission_webhook_request_total code=200 name=m.example.com operation=CREATE rejected=false type=admit",
		"apiserver_admission_webhook_request_total code=418 name=v.example.com operation=CREATE rejected=true type=validating",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestReview: what a webhook is told of a write, of a deletion, of a scale, in the version that its rule names.
func TestReview(t *testing.T) {
	c := begin(t)
	b := serve(t, nil)
	c.validating(t, "a", b.config("/"), func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules = of("configmaps", "deployments/scale") })
	c.validating(t, "hpa", b.config("/hpa"), func(w *admissionregistrationv1.ValidatingWebhook) {
		w.Rules = of("horizontalpodautoscalers")
		w.Rules[0].APIVersions = []string{"v1"}
	})
	jane := request.With(t.Context(), &request.Info{User: &user.DefaultInfo{Name: "jane", UID: "7", Groups: []string{"g"}, Extra: map[string][]string{"k": {"v"}}}})
	cm, err := c.create(jane, "x", metav1.DryRunAll)
	if err != nil {
		t.Fatal(err)
	}
	asked, _ := b.requests()
	r := asked[0]
	if r.Operation != "CREATE" || r.Namespace != "default" || r.Name != "x" || !*r.DryRun || r.UserInfo.Username != "jane" || r.UserInfo.UID != "7" ||
		r.UserInfo.Extra["k"][0] != "v" || *r.RequestKind != r.Kind || r.Kind.Kind != "ConfigMap" || r.Resource.Resource != "configmaps" {
		t.Errorf("%+v", r)
	}
	for _, want := range []string{`"kind":"ConfigMap"`, `"apiVersion":"v1"`, `"uid":"` + string(cm.UID) + `"`} {
		if !strings.Contains(string(r.Object.Raw), want) {
			t.Errorf("the object %s has no %s", r.Object.Raw, want)
		}
	}
	if options := string(r.Options.Raw); options != `{"kind":"CreateOptions","apiVersion":"meta.k8s.io/v1","dryRun":["All"]}` {
		t.Errorf("options %s", options)
	}
	if cm, err = c.create(jane, "x"); err != nil {
		t.Fatal(err)
	}
	b.requests()
	if _, err := c.registry.DeleteCollection(jane, api.ConfigMaps, registry.Selection{Namespace: "default"}, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	asked, _ = b.requests()
	if r := asked[0]; r.Operation != "DELETE" || r.Name != "x" || len(r.Object.Raw) > 0 || !strings.Contains(string(r.OldObject.Raw), string(cm.UID)) {
		t.Errorf("a deletion: %+v", r)
	}
	replicas := int32(2)
	hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "h"}, Spec: autoscalingv2.HorizontalPodAutoscalerSpec{
		MinReplicas: &replicas, MaxReplicas: 3, ScaleTargetRef: autoscalingv2.CrossVersionObjectReference{Kind: "Deployment", Name: "d", APIVersion: "apps/v1"},
	}}
	if _, err := c.Create(jane, hpa); err != nil {
		t.Fatal(err)
	}
	asked, _ = b.requests()
	if r := asked[0]; r.Kind.Version != "v1" || r.Resource.Version != "v1" || r.RequestKind.Version != "v2" || !strings.Contains(string(r.Object.Raw), `"apiVersion":"autoscaling/v1"`) {
		t.Errorf("an equivalent version: %v of %v: %s", r.Kind, r.RequestKind, r.Object.Raw)
	}
}

// TestConnections: a webhook sees what a connection asks for, and a mutating one may change it.
func TestConnections(t *testing.T) {
	c := begin(t)
	b := serve(t, map[string]answer{"/tty": patch(`[{"op":"add","path":"/tty","value":true}]`)})
	c.mutating(t, "m", b.config("/tty"), func(w *admissionregistrationv1.MutatingWebhook) { w.Rules = of("pods/exec") })
	c.validating(t, "v", b.config("/look"), func(w *admissionregistrationv1.ValidatingWebhook) { w.Rules = of("pods/*") })
	opts := &corev1.PodExecOptions{Container: "c", Command: []string{"sh"}}
	a := &admission.Attributes{Operation: admission.Connect, Resource: api.Pods, Subresource: "exec", Key: api.Key{Namespace: "default", Name: "p"}, Connection: opts}
	if err := c.registry.Admit(as("jane"), a); err != nil || !opts.TTY {
		t.Errorf("%+v, %v", opts, err)
	}
	asked, _ := b.requests()
	if r := asked[1]; r.Operation != "CONNECT" || r.SubResource != "exec" || r.Kind.Kind != "PodExecOptions" || !strings.Contains(string(r.Object.Raw), `"tty":true`) || len(r.Options.Raw) > 0 {
		t.Errorf("%+v %s", r, r.Object.Raw)
	}
}

// TestChosen: conditions, selectors and dry runs decide whether a webhook is asked; what configures admission is never asked about.
func TestChosen(t *testing.T) {
	c := begin(t)
	b := serve(t, nil)
	c.validating(t, "a", b.config("/a"), func(w *admissionregistrationv1.ValidatingWebhook) {
		w.Rules = of("*")
		w.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "k", Expression: "object.metadata.name.startsWith('y')"}}
	})
	c.validating(t, "b", b.config("/b"), func(w *admissionregistrationv1.ValidatingWebhook) {
		w.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"hook": "on"}}
	})
	c.validating(t, "c", b.config("/c"), func(w *admissionregistrationv1.ValidatingWebhook) {
		w.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "broken", Expression: "object.data.missing == 'x'"}}
		w.FailurePolicy = &ignore
	})
	asks := func(ctx context.Context, name, want string) {
		t.Helper()
		if _, err := c.create(ctx, name); err != nil {
			t.Error(err)
		}
		if _, paths := b.requests(); strings.Join(paths, " ") != want {
			t.Errorf("asked %v about %s, want %s", paths, name, want)
		}
	}
	asks(as("jane"), "x", "")
	asks(as("jane"), "y", "/a")
	ns, _ := c.Get(t.Context(), api.Namespaces, api.Key{Name: "default"})
	labelled := ns.DeepCopyObject().(*corev1.Namespace)
	labelled.Labels = map[string]string{"hook": "on"}
	if _, err := c.Update(as("jane"), labelled, ""); err != nil {
		t.Fatal(err)
	}
	b.requests()
	asks(as("jane"), "z", "/b")
	c.forget(t, api.ValidatingWebhookConfigurations, "b")
	asks(as("jane"), "w", "")
}

// TestStrictConditions: a condition that cannot be evaluated refuses the write where failures do.
func TestStrictConditions(t *testing.T) {
	c := begin(t)
	b := serve(t, nil)
	c.validating(t, "a", b.config("/a"), func(w *admissionregistrationv1.ValidatingWebhook) {
		w.MatchConditions = []admissionregistrationv1.MatchCondition{{Name: "broken", Expression: "object.data.missing == 'x'"}}
	})
	if _, err := c.create(as("jane"), "x"); !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "no such key: missing") {
		t.Errorf("got %v", err)
	}
}

// TestOlderReviews: a webhook that understands v1beta1 alone is asked in it.
func TestOlderReviews(t *testing.T) {
	c := begin(t)
	b := serve(t, map[string]answer{"/": func(_ *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) {
		out.UID, out.Patch = "", []byte(`[{"op":"add","path":"/data/old","value":"1"}]`)
	}})
	c.mutating(t, "a", b.config("/"), func(w *admissionregistrationv1.MutatingWebhook) {
		w.AdmissionReviewVersions = []string{"v9", "v1beta1"}
	})
	if cm, err := c.create(as("jane"), "x"); err != nil || cm.Data["old"] != "1" {
		t.Errorf("%+v, %v", cm, err)
	}
}

// TestNothingConfigured: without configurations a write costs the webhooks no allocation.
func TestNothingConfigured(t *testing.T) {
	c := begin(t)
	a := &admission.Attributes{Operation: admission.Create, Resource: api.ConfigMaps, Object: configMap("x"), Key: api.Key{Namespace: "default", Name: "x"}}
	m, v := c.webhooks.Mutating(), c.webhooks.Validating()
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() { _, _ = m.Admit(ctx, a), v.Validate(ctx, a) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	if (admission.Chain{m, v}).Remote() {
		t.Error("batches are parted although nobody is asked")
	}
	b := serve(t, nil)
	c.validating(t, "a", b.config("/"))
	if !(admission.Chain{m, v}).Remote() {
		t.Error("batches are not parted")
	}
	objs := make([]api.Object, 40)
	for i := range objs {
		objs[i] = configMap(fmt.Sprintf("n%d", i))
	}
	for _, r := range c.CreateMany(ctx, objs) {
		if r.Err != nil {
			t.Error(r.Err)
		}
	}
	if asked, _ := b.requests(); len(asked) != len(objs) {
		t.Errorf("asked %d times about %d objects", len(asked), len(objs))
	}
}

// BenchmarkNothingConfigured is what webhooks cost a write where there are none.
func BenchmarkNothingConfigured(b *testing.B) {
	c := begin(b)
	a := &admission.Attributes{Operation: admission.Create, Resource: api.ConfigMaps, Object: configMap("x"), Key: api.Key{Namespace: "default", Name: "x"}}
	chain := admission.Chain{c.webhooks.Mutating(), c.webhooks.Validating()}
	ctx := b.Context()
	for b.Loop() {
		_ = chain.Admit(ctx, a)
		_ = chain.Validate(ctx, a)
	}
}
