package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// probed is a pod of the test's web server with probes.
func probed(name, probes string) string {
	return manifest(name, `
  terminationGracePeriodSeconds: 1
  containers:
  - name: c
    image: docker.io/knarr/e2e-web:v1
    ports: [{containerPort: 8080, name: http}]
`+strings.Trim(probes, "\n"))
}

func TestProbes(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, probed("live", `
    livenessProbe: {httpGet: {path: /healthz, port: http}, periodSeconds: 1, failureThreshold: 2}
`)+probed("tcp", `
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
`)+probed("notcp", `
    readinessProbe: {tcpSocket: {port: 8099}, periodSeconds: 1}
`)+probed("grpc", `
    readinessProbe: {grpc: {port: 9090}, periodSeconds: 1, failureThreshold: 1}
`)+probed("start", `
    startupProbe: {httpGet: {path: /nosuch, port: http}, periodSeconds: 1, failureThreshold: 3}
    livenessProbe: {httpGet: {path: /nosuch, port: http}, periodSeconds: 1, failureThreshold: 1}
`)+manifest("file", `
  containers:
  - name: c
    image: busybox:1
    command: [sh, -c, "`+obedient+`"]
    readinessProbe: {exec: {command: [cat, /tmp/ok]}, periodSeconds: 1, failureThreshold: 1}
`))
	kubectl(t, "-n", ns, "expose", "pod", "file", "--port=80")
	t.Run("a liveness probe restarts", func(t *testing.T) {
		p := awaitPod(t, ns, "live", 60*time.Second, "Ready", ready)
		tell(t, p, "/fail")
		awaitPod(t, ns, "live", 20*time.Second, "restarted", restarted(1))
		for reason, want := range map[string]string{
			"Unhealthy": "Liveness probe failed: HTTP probe failed with statuscode: 503",
			"Killing":   "Container c failed liveness probe, will be restarted",
		} {
			awaitEvent(t, ns, "live", reason, want)
		}
		awaitPod(t, ns, "live", 20*time.Second, "Ready again", ready)
	})
	t.Run("gRPC and TCP", func(t *testing.T) {
		awaitPod(t, ns, "tcp", 60*time.Second, "Ready", ready)
		p := awaitPod(t, ns, "grpc", 60*time.Second, "Ready", ready)
		tell(t, p, "/fail?for=4s")
		kubectl(t, "-n", ns, "wait", "--for=condition=Ready=false", "pod/grpc", "--timeout=20s")
		awaitEvent(t, ns, "grpc", "Unhealthy", "Readiness probe failed: ")
		kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/grpc", "--timeout=20s")
		awaitEvent(t, ns, "notcp", "Unhealthy", "connect: connection refused")
	})
	t.Run("exec", func(t *testing.T) {
		awaitPod(t, ns, "file", 60*time.Second, "running", restarted(0))
		awaitEvent(t, ns, "file", "Unhealthy", "Readiness probe failed: cat: can't open '/tmp/ok': No such file or directory")
		awaitEndpointReady(t, ns, "file", "false")
		kubectl(t, "-n", ns, "exec", "file", "--", "touch", "/tmp/ok")
		kubectl(t, "-n", ns, "wait", "--for=condition=Ready", "pod/file", "--timeout=20s")
		awaitEndpointReady(t, ns, "file", "true")
		kubectl(t, "-n", ns, "exec", "file", "--", "rm", "/tmp/ok")
		awaitEndpointReady(t, ns, "file", "false")
		session(t, ns, []step{
			{"", "get pod file", "0/1 Running 0"},
			{"", "get pod file -o jsonpath='{.status.conditions[?(@.type==\"Ready\")].message}'", "containers with unready status: [c]"},
		})
	})
	t.Run("startup holds liveness off", func(t *testing.T) {
		awaitPod(t, ns, "start", 60*time.Second, "restarted", func(p *corev1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 })
		awaitEvent(t, ns, "start", "Killing", "Container c failed startup probe, will be restarted")
		if out := kubectl(t, "-n", ns, "get", "events", "--field-selector", "involvedObject.name=start"); strings.Contains(out, "Liveness") {
			t.Errorf("a liveness probe ran before the startup probe had succeeded:\n%s", out)
		}
	})
}

// tell sends a request to the test's web server in a pod, as soon as it listens.
func tell(t testing.TB, p *corev1.Pod, path string) {
	t.Helper()
	eventually(t, 10*time.Second, "pod "+p.Name+" answers "+path, func() error {
		_, err := fetch("http://" + p.Status.PodIP + ":8080" + path)
		return err
	})
}

func awaitEvent(t testing.TB, namespace, pod, reason, want string) {
	t.Helper()
	eventually(t, 20*time.Second, fmt.Sprintf("event %s of pod %s: %s", reason, pod, want), func() error {
		out := kubectl(t, "-n", namespace, "get", "events", "--field-selector", "involvedObject.name="+pod+",reason="+reason)
		if !shows(out, want) {
			return fmt.Errorf("the events are:\n%s", out)
		}
		return nil
	})
}

// awaitEndpointReady waits until the Service's only endpoint is as ready as want says.
func awaitEndpointReady(t testing.TB, namespace, service, want string) {
	t.Helper()
	eventually(t, 20*time.Second, "endpoint of "+service+" ready: "+want, func() error {
		got := kubectl(t, "-n", namespace, "get", "endpointslices", "-l", "kubernetes.io/service-name="+service, "-o", "jsonpath={.items[*].endpoints[*].conditions.ready}")
		if got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}
