package e2e

import (
	"strings"
	"testing"
)

// sets are a StatefulSet and a DaemonSet whose programs are ready at once.
const sets = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 5
      containers: [{name: web, image: "docker.io/knarr/e2e-web:v1"}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec:
      terminationGracePeriodSeconds: 5
      containers: [{name: web, image: "docker.io/knarr/e2e-web:v1"}]
`

// What kubectl rollout and kubectl scale read and write is as in Kubernetes: revisions are patches that undo sends as they are.
func TestKubectlRollsSetsOutAndBack(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	k := func(args ...string) string {
		t.Helper()
		return kubectl(t, append([]string{"-n", ns}, args...)...)
	}
	apply(t, ns, sets)
	for _, set := range []string{"sts/db", "ds/agent"} {
		image := func() string { return k("get", set, "-o", "jsonpath={.spec.template.spec.containers[0].image}") }
		k("rollout", "status", set, "--timeout=90s")
		k("set", "image", set, "web=docker.io/knarr/e2e-web:v2")
		k("rollout", "status", set, "--timeout=90s")
		if history := k("rollout", "history", set); !strings.Contains(history, "\n1 ") || !strings.Contains(history, "\n2 ") {
			t.Errorf("%s: the history is\n%s", set, history)
		}
		if one := k("rollout", "history", set, "--revision=1"); !strings.Contains(one, "e2e-web:v1") {
			t.Errorf("%s: the first revision is\n%s", set, one)
		}
		k("rollout", "undo", set)
		k("rollout", "status", set, "--timeout=90s")
		if got := image(); got != "docker.io/knarr/e2e-web:v1" {
			t.Errorf("%s: after undo the image is %s", set, got)
		}
		k("rollout", "restart", set)
		k("rollout", "status", set, "--timeout=90s")
		if history := k("rollout", "history", set); strings.Contains(history, "\n1 ") || !strings.Contains(history, "\n3 ") || !strings.Contains(history, "\n4 ") {
			t.Errorf("%s: after undo, which gives the first revision number 3, and restart the history is\n%s", set, history)
		}
	}
	k("scale", "sts/db", "--replicas=3")
	k("rollout", "status", "sts/db", "--timeout=90s")
	if names := k("get", "pods", "-l", "app=db", "-o", "jsonpath={.items[*].metadata.name}"); names != "db-0 db-1 db-2" {
		t.Errorf("the pods of a set of 3 are %s", names)
	}
	if text := k("describe", "sts/db"); !strings.Contains(text, "Create Pod db-2 in StatefulSet db successful") {
		t.Errorf("kubectl describe says\n%s", text)
	}
}
