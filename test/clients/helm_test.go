package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// helm is Helm's own command.
type helm struct {
	c    *cluster
	path string
	home string
}

// buildHelm builds the command from the module that go.mod names; the build cache keeps it.
func buildHelm(c *cluster) *helm {
	c.t.Helper()
	h := &helm{c: c, home: c.t.TempDir()}
	h.path = filepath.Join(h.home, "helm")
	cmd := exec.Command("go", "build", "-o", h.path, "helm.sh/helm/v4/cmd/helm")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("building Helm: %v\n%s", err, out)
	}
	return h
}

func (h *helm) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(h.c.t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.path, args...)
	cmd.Dir, cmd.Env = h.home, []string{"HOME=" + h.home, "KUBECONFIG=" + h.c.kubeconfig}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (h *helm) must(args ...string) string {
	h.c.t.Helper()
	out, err := h.run(args...)
	if err != nil {
		h.c.t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// write makes a file of a chart.
func (h *helm) write(path, content string) {
	h.c.t.Helper()
	path = filepath.Join(h.home, path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.c.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.c.t.Fatal(err)
	}
}

// TestHelmLife: the chart that helm create makes is installed, upgraded, rolled back and removed, and each step waits for what Knarr does.
func TestHelmLife(t *testing.T) {
	c := start(t)
	h := buildHelm(c)
	api := kubernetes.NewForConfigOrDie(c.rest)
	h.must("create", "web")
	h.must("install", "web", "./web", "--namespace", "shop", "--create-namespace", "--wait", "--timeout", "90s", "--set", "image.tag=1")
	replicas := func(want int32, image string) {
		t.Helper()
		d, err := api.AppsV1().Deployments("shop").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Spec.Template.Spec.Containers[0].Image; d.Status.ReadyReplicas != want || d.Status.UpdatedReplicas != want || got != image {
			t.Errorf("%d of %d replicas are ready with %s, want %d with %s", d.Status.ReadyReplicas, d.Status.UpdatedReplicas, got, want, image)
		}
	}
	replicas(1, "nginx:1")
	h.must("upgrade", "web", "./web", "--namespace", "shop", "--wait", "--timeout", "90s", "--set", "image.tag=2,replicaCount=3")
	replicas(3, "nginx:2")
	if out, err := h.run("upgrade", "web", "./web", "--namespace", "shop", "--set", "replicaCount=-1"); err == nil || !strings.Contains(out, "must be greater than or equal to 0") {
		t.Errorf("an upgrade that the API refuses: %v\n%s", err, out)
	}
	h.must("rollback", "web", "1", "--namespace", "shop", "--wait", "--timeout", "90s")
	replicas(1, "nginx:1")
	var history []struct {
		Revision int
		Status   string
	}
	if err := json.Unmarshal([]byte(h.must("history", "web", "--namespace", "shop", "--output", "json")), &history); err != nil {
		t.Fatal(err)
	}
	var states []string
	for _, r := range history {
		states = append(states, fmt.Sprintf("%d %s", r.Revision, r.Status))
	}
	if got, want := strings.Join(states, ", "), "1 superseded, 2 superseded, 3 failed, 4 deployed"; got != want {
		t.Errorf("history: %s; want %s", got, want)
	}
	h.must("uninstall", "web", "--namespace", "shop", "--wait", "--timeout", "90s")
	for _, get := range []func() error{
		func() error {
			_, err := api.AppsV1().Deployments("shop").Get(t.Context(), "web", metav1.GetOptions{})
			return err
		},
		func() error {
			_, err := api.CoreV1().Services("shop").Get(t.Context(), "web", metav1.GetOptions{})
			return err
		},
	} {
		if err := get(); !apierrors.IsNotFound(err) {
			t.Errorf("after it was uninstalled: %v", err)
		}
	}
}

// TestHelmChartWithDefinitions: definitions come first, custom resources are checked by them, hooks run in their order, and --wait knows when
// the other workloads are up.
func TestHelmChartWithDefinitions(t *testing.T) {
	c := start(t)
	h := buildHelm(c)
	h.write("shop/Chart.yaml", "{apiVersion: v2, name: shop, version: 0.1.0}")
	h.write("shop/values.yaml", "size: 2\n")
	h.write("shop/crds/shelves.yaml", `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: shelves.shop.example.com}
spec:
  group: shop.example.com
  scope: Namespaced
  names: {plural: shelves, singular: shelf, kind: Shelf}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec: {type: object, properties: {size: {type: integer, minimum: 1}, colour: {type: string, default: white}}}
`)
	h.write("shop/templates/shelf.yaml", `
apiVersion: shop.example.com/v1
kind: Shelf
metadata: {name: first}
spec: {size: {{ .Values.size }}}
`)
	h.write("shop/templates/workloads.yaml", `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template: {metadata: {labels: {app: db}}, spec: {containers: [{name: db, image: db}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: logs}
spec:
  selector: {matchLabels: {app: logs}}
  template: {metadata: {labels: {app: logs}}, spec: {containers: [{name: logs, image: logs}]}}
`)
	h.write("shop/templates/hook.yaml", `
apiVersion: v1
kind: ConfigMap
metadata: {name: before, annotations: {helm.sh/hook: pre-install, helm.sh/hook-weight: "-1"}}
data: {a: b}
`)
	if out, err := h.run("install", "bad", "./shop", "--set", "size=0"); err == nil || !strings.Contains(out, "spec.size") {
		t.Errorf("a resource that its definition forbids: %v\n%s", err, out)
	}
	h.must("uninstall", "bad", "--ignore-not-found", "--wait")
	h.must("install", "good", "./shop", "--wait", "--timeout", "90s")
	api := kubernetes.NewForConfigOrDie(c.rest)
	set, err := api.AppsV1().StatefulSets("default").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil || set.Status.ReadyReplicas != 2 {
		t.Errorf("helm waited and the StatefulSet has %d ready replicas (%v)", set.Status.ReadyReplicas, err)
	}
	var logs *appsv1.DaemonSet
	if logs, err = api.AppsV1().DaemonSets("default").Get(t.Context(), "logs", metav1.GetOptions{}); err != nil || logs.Status.NumberReady != 2 {
		t.Errorf("helm waited and the DaemonSet has %d ready pods (%v)", logs.Status.NumberReady, err)
	}
	if out := h.must("get", "manifest", "good"); !strings.Contains(out, "kind: Shelf") {
		t.Errorf("the manifest of the release: %s", out)
	}
	raw, err := api.RESTClient().Get().AbsPath("/apis/shop.example.com/v1/namespaces/default/shelves/first").DoRaw(t.Context())
	if err != nil || !strings.Contains(string(raw), `"colour":"white"`) {
		t.Errorf("the resource has no default: %s (%v)", raw, err)
	}
	h.must("upgrade", "good", "./shop", "--set", "size=5", "--wait", "--timeout", "90s")
	h.must("uninstall", "good", "--wait", "--timeout", "90s")
}
