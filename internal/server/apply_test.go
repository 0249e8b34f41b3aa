package server_test

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

const applyYAML = "application/apply-patch+yaml"

// owned returns what manager owns of a pod, as the JSON of its record ("" where it owns nothing).
func owned(t *testing.T, f *fixture, path, manager string) string {
	t.Helper()
	var pod corev1.Pod
	if err := json.Unmarshal([]byte(f.must("GET", path, "").Body), &pod); err != nil {
		t.Fatal(err)
	}
	for _, m := range pod.ManagedFields {
		if m.Manager == manager {
			return m.FieldsV1.GetRawString()
		}
	}
	return ""
}

// Through /resize one can set resources and resize policies, and come to own or conflict about nothing else (KEP-1287).
func TestApplyThroughResizeOwnsResourcesOnly(t *testing.T) {
	f := start(t)
	const q = "/api/v1/namespaces/default/pods/q"
	config := func(image, cpu string) string {
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"q"},"spec":{"containers":[{"name":"c","image":"` + image +
			`","resources":{"requests":{"cpu":"` + cpu + `"},"limits":{"cpu":"2","memory":"1Gi"}}}]}}`
	}
	f.must("PATCH", q+"?fieldManager=a", config("v1", "100m"), "Content-Type", applyYAML)
	a := f.do("PATCH", q+"/resize?fieldManager=b", config("v2", "200m"), "Content-Type", applyYAML)
	_, message := a.status(t)
	if a.Code != 409 || !strings.Contains(message, ".spec.containers[name=\"c\"].resources.requests.cpu") || strings.Contains(message, "image") {
		t.Errorf("%d %s", a.Code, message)
	}
	contains(t, f.must("PATCH", q+"/resize?fieldManager=b&force=true", config("v2", "200m"), "Content-Type", applyYAML).Body, `"image":"v1"`)
	if got := owned(t, f, q, "b"); !strings.Contains(got, "f:cpu") || strings.Contains(got, "f:image") {
		t.Errorf("b owns %s", got)
	}
}

// A label that comes with a status is stored, so it has an owner; owner references are not stored, so nobody owns them.
func TestApplyThroughStatusOwnsWhatItSets(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	const a = "/api/v1/namespaces/default/pods/a"
	config := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"from":"status"},"ownerReferences":[{"apiVersion":"v1","kind":"Node","name":"n","uid":"u"}]},
"spec":{"containers":[{"name":"c","image":"other"}]},"status":{"message":"hello"}}`
	got := f.must("PATCH", a+"/status?fieldManager=s", config, "Content-Type", applyYAML).Body
	contains(t, got, `"from":"status"`)
	contains(t, got, `"message":"hello"`)
	mine := owned(t, f, a, "s")
	if !strings.Contains(mine, "f:from") || !strings.Contains(mine, "f:message") {
		t.Errorf("s does not own what it set: %s", mine)
	}
	if strings.Contains(mine, "f:spec") || strings.Contains(mine, "f:ownerReferences") || strings.Contains(got, "ownerReferences") {
		t.Errorf("s owns what it cannot set: %s", mine)
	}
}
