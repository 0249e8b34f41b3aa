package server_test

import (
	"net/http"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server"
)

// TestNodesSeeOfOtherPodsOnlyWhoReachesWhom: labels, addresses and named ports, and no event in which nothing of that changed. Of its own
// pods a node sees all, as everybody else does of all.
func TestNodesSeeOfOtherPodsOnlyWhoReachesWhom(t *testing.T) {
	f := start(t, func(c *server.Config) { c.Authorizer, c.Authenticator = everyone{}, nodesToo{} })
	pod := clienttest.Create(t, f.client, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", Labels: map[string]string{"app": "till"}, Annotations: map[string]string{"a": "secret-1"}},
		Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "secret-2", Env: []corev1.EnvVar{{Name: "A", Value: "secret-3"}},
			Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}, {ContainerPort: 9}}}}}})
	change := func(f2 func(p *corev1.Pod)) {
		t.Helper()
		if _, err := client.Mutate(t.Context(), f.client, api.KeyOf(pod), "status", func(p *corev1.Pod) bool { f2(p); return true }); err != nil {
			t.Fatal(err)
		}
	}
	const pods = "/api/v1/pods"
	for _, path := range []string{pods, pods + "?fieldSelector=spec.nodeName%3Dn1", "/api/v1/namespaces/default/pods"} {
		body := f.must("GET", path, "", "X-User", "system:node:n2").Body
		if strings.Contains(body, "secret") || !strings.Contains(body, `"till"`) || !strings.Contains(body, `"web"`) || !strings.Contains(body, `"n1"`) {
			t.Errorf("%s by another node: %s", path, body)
		}
	}
	for path, who := range map[string]string{pods + "?fieldSelector=spec.nodeName%3Dn1": "system:node:n1", pods: "eve"} {
		if body := f.must("GET", path, "", "X-User", who).Body; strings.Count(body, "secret") != 3 {
			t.Errorf("%s by %s: %s", path, who, body)
		}
	}
	change(func(p *corev1.Pod) { p.Status.PodIP, p.Status.PodIPs = "10.1.1.1", []corev1.PodIP{{IP: "10.1.1.1"}} })
	change(func(p *corev1.Pod) { p.Status.Message = "secret-4" })
	change(func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
	watch := pods + "?watch=1&timeoutSeconds=1&resourceVersion=" + pod.ResourceVersion
	a := f.do("GET", watch, "", "X-User", "system:node:n2")
	if a.Code != http.StatusOK || strings.Count(a.Body, "MODIFIED") != 2 || strings.Contains(a.Body, "secret") || !strings.Contains(a.Body, "10.1.1.1") {
		t.Errorf("watched by another node: %d %s", a.Code, a.Body)
	}
	if a := f.do("GET", watch, "", "X-User", "eve"); strings.Count(a.Body, "MODIFIED") != 3 || !strings.Contains(a.Body, "secret-4") {
		t.Errorf("watched by somebody else: %d %s", a.Code, a.Body)
	}
}
