package webhook_test

import (
	"context"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/warning"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// TestMutation: webhooks change an object one after the other, in the order of their configurations' names; what they leave out gets its
// defaults; the identity of the object stays.
func TestMutation(t *testing.T) {
	c := begin(t)
	b := serve(t, map[string]answer{
		"/first":  patch(`[{"op":"add","path":"/data/first","value":"1"}]`),
		"/second": patch(`[{"op":"copy","from":"/data/first","path":"/data/second"},{"op":"add","path":"/metadata/uid","value":"forged"}]`),
		"/none":   patch(`[]`),
		"/pod":    patch(`[{"op":"add","path":"/spec/containers/-","value":{"name":"side","image":"i","ports":[{"containerPort":1}]}}]`),
	})
	c.mutating(t, "b", b.config("/second"))
	c.mutating(t, "a", b.config("/first"))
	c.mutating(t, "c", b.config("/none"))
	c.mutating(t, "pods", b.config("/pod"), func(w *admissionregistrationv1.MutatingWebhook) { w.Rules = of("pods") })
	cm, err := c.create(as("jane"), "x")
	if err != nil || cm.Data["first"] != "1" || cm.Data["second"] != "1" || cm.UID == "forged" || cm.UID == "" || cm.Kind != "ConfigMap" {
		t.Errorf("%+v, %v", cm, err)
	}
	if _, paths := b.requests(); strings.Join(paths, " ") != "/first /second /none" {
		t.Errorf("asked %v", paths)
	}
	pod, err := c.Create(as("jane"), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "p-"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := pod.(*corev1.Pod); len(got.Spec.Containers) != 2 || got.Spec.Containers[1].Ports[0].Protocol != corev1.ProtocolTCP || got.Name == "" {
		t.Errorf("%s: %+v", got.Name, got.Spec.Containers)
	}
	if asked, _ := b.requests(); len(asked) != 1 || asked[0].Name != "" {
		t.Error("a name that is to be generated is there before webhooks are asked")
	}
}

// sealer is a plugin that writes down how many data an object has when it sees it.
type sealer struct{}

func (sealer) Name() string { return "sealer" }
func (sealer) Admit(_ context.Context, a *admission.Attributes) error {
	if cm, ok := a.Object.(*corev1.ConfigMap); ok {
		cm.Annotations = map[string]string{"seen": strings.Repeat("x", len(cm.Data))}
	}
	return nil
}
func (sealer) Validate(context.Context, *admission.Attributes) error { return nil }

// TestReinvocationPolicy: a webhook that wants to is asked once more when something changed after it, and only once; one that does not
// want to is not; the plugins of the server see the object again.
func TestReinvocationPolicy(t *testing.T) {
	c := begin(t, sealer{})
	count := func(r *admissionv1.AdmissionRequest, out *admissionv1.AdmissionResponse) {
		patch(`[{"op":"add","path":"/data/count`+string(r.UID)+`","value":""}]`)(r, out)
	}
	b := serve(t, map[string]answer{"/early": nil, "/late": count, "/last": count})
	needed := admissionregistrationv1.IfNeededReinvocationPolicy
	c.mutating(t, "a", b.config("/once"))
	c.mutating(t, "b", b.config("/early"), func(w *admissionregistrationv1.MutatingWebhook) { w.ReinvocationPolicy = &needed })
	c.mutating(t, "c", b.config("/late"), func(w *admissionregistrationv1.MutatingWebhook) { w.ReinvocationPolicy = &needed })
	c.mutating(t, "d", b.config("/last"), func(w *admissionregistrationv1.MutatingWebhook) {})
	cm, err := c.create(as("jane"), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, paths := b.requests(); strings.Join(paths, " ") != "/once /early /late /last /early /late" {
		t.Errorf("asked %v", paths)
	}
	if len(cm.Data) != 4 || len(cm.Annotations["seen"]) != 3 {
		t.Errorf("%d data, of which the server's own plugin saw %d", len(cm.Data), len(cm.Annotations["seen"]))
	}
	// Nothing changes any longer: nobody is asked twice.
	c.forget(t, api.MutatingWebhookConfigurations, "c")
	c.forget(t, api.MutatingWebhookConfigurations, "d")
	if _, err := c.create(as("jane"), "y"); err != nil {
		t.Fatal(err)
	}
	if _, paths := b.requests(); strings.Join(paths, " ") != "/once /early" {
		t.Errorf("asked %v", paths)
	}
}

// TestBadPatches: what cannot be carried out refuses the write, and changes nothing; a patch that is none is a failure of the webhook.
func TestBadPatches(t *testing.T) {
	huge := `[` + strings.Repeat(`{"op":"test","path":"/kind","value":"ConfigMap"},`, 10000) + `{"op":"remove","path":"/data"}]`
	for _, tc := range []struct {
		name, patch, want string
		passedOver        bool
	}{
		{"not applicable", `[{"op":"remove","path":"/nothing"}]`, "doc is missing path: /nothing", false},
		{"no JSON", `{`, `failed calling webhook "a.example.com": received undecodable patch in webhook response`, true},
		{"no list", `{"op":"remove"}`, "received undecodable patch", true},
		{"too many operations", huge, "maximum operations", false},
		{"another kind", `[{"op":"replace","path":"/kind","value":"Secret"}]`, "Secret", false},
		{"another namespace", `[{"op":"replace","path":"/metadata/namespace","value":"kube-system"}]`, "does not match the namespace", false},
		{"no object", `[{"op":"replace","path":"/data","value":7}]`, "cannot unmarshal", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, policy := range []*admissionregistrationv1.FailurePolicyType{&fail, &ignore} {
				c := begin(t)
				b := serve(t, map[string]answer{"/": patch(tc.patch)})
				c.mutating(t, "a", b.config("/"), func(w *admissionregistrationv1.MutatingWebhook) { w.FailurePolicy = policy })
				cm, err := c.create(as("jane"), "x")
				switch passes := tc.passedOver && policy == &ignore; {
				case passes && (err != nil || cm.Data["k"] != "v"):
					t.Errorf("%v", err)
				case !passes && (err == nil || !strings.Contains(err.Error(), tc.want)):
					t.Errorf("%s: %v", *policy, err)
				}
			}
		})
	}
	c := begin(t)
	cm, err := c.create(as("jane"), "x")
	if err != nil {
		t.Fatal(err)
	}
	b := serve(t, map[string]answer{"/": patch(`[{"op":"remove","path":"/data"}]`)})
	c.mutating(t, "a", b.config("/"))
	if err := c.Delete(as("jane"), api.ConfigMaps, api.KeyOf(cm), metav1.DeleteOptions{}); err == nil || !strings.Contains(err.Error(), "attempted to modify the object") {
		t.Errorf("a patch of what is deleted: %v", err)
	}
}

// TestBrokenManagers: a webhook cannot make the record of who manages what unreadable; whoever writes is warned of it.
func TestBrokenManagers(t *testing.T) {
	c := begin(t)
	b := serve(t, map[string]answer{"/": patch(`[{"op":"add","path":"/metadata/managedFields","value":[{"manager":"m","operation":"Nothing","fieldsType":"FieldsV1"}]}]`)})
	c.mutating(t, "a", b.config("/"))
	heard := &said{}
	cm, err := c.create(warning.WithWarningRecorder(as("jane"), heard), "x")
	if err != nil || len(cm.ManagedFields) > 0 || len(heard.texts) != 1 || !strings.Contains(heard.texts[0], "invalid state after admission") {
		t.Errorf("%+v, %v, warned %v", cm, err, heard.texts)
	}
}
