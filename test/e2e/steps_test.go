package e2e

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// inSteps is the web Deployment with six replicas and an annotation that says how it is rolled out.
func inSteps(how string) string {
	text := strings.Replace(web, "replicas: 2", "replicas: 6\n  progressDeadlineSeconds: 15", 1)
	return strings.Replace(text, "labels: {app: web}}", "labels: {app: web}, annotations: {knarr.io/rollout: '"+how+"', knarr.io/roll-on-config-change: 'true'}}", 1)
}

// rolloutCommand runs knarr rollout, which finds the cluster by its data directory.
func rolloutCommand(t testing.TB, ns, what string, args ...string) string {
	t.Helper()
	args = append([]string{"rollout", what, "--data-dir", cluster.dataDir, "-n", ns, "web"}, args...)
	out, err := exec.Command(cluster.bin, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("knarr %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// imagesHave waits until the ReplicaSets have pods, by image, as in "v1=4 v2=2".
func imagesHave(t testing.TB, ns, want string) {
	t.Helper()
	eventually(t, 60*time.Second, want, func() error {
		out := kubectl(t, "-n", ns, "get", "rs", "--sort-by=.metadata.creationTimestamp", "-o",
			`jsonpath={range .items[*]}{.spec.template.spec.containers[0].image}{"="}{.status.availableReplicas}{"/"}{.spec.replicas}{" "}{end}`)
		got := strings.TrimSpace(strings.ReplaceAll(out, "docker.io/knarr/e2e-web:", ""))
		if got != want {
			return fmt.Errorf("ReplicaSets %s", got)
		}
		return nil
	})
}

// A canary that people promote, one that rolls itself back, and pods that roll with their ConfigMap, while requests come in.
func TestCanaryFailsNoRequest(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, inSteps(`{strategy: canary, steps: [{weight: 34}, {pause: 2s}, {weight: 67}, {pause: untilPromoted}], checks: [{source: restarts, max: 0}, {source: memory, max: 1Gi}]}`))
	kubectl(t, "-n", ns, "expose", "deploy/web", "--port=80", "--target-port=http", "--type=NodePort")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	urls := serviceURLs(t, ns, "web")
	for _, url := range urls {
		eventually(t, 10*time.Second, url+" answers", func() error { _, err := fetch(url); return err })
	}
	l := load(t, urls)

	kubectl(t, "-n", ns, "set", "image", "deploy/web", "web=docker.io/knarr/e2e-web:v2")
	imagesHave(t, ns, "v1=2/2 v2=4/4")
	eventually(t, 20*time.Second, "a pause", func() error {
		out := rolloutCommand(t, ns, "status")
		if !strings.Contains(out, "› 4. pause: untilPromoted") || !strings.Contains(out, "Progressing: Unknown (DeploymentPaused)") {
			return fmt.Errorf("knarr rollout status:\n%s", out)
		}
		return nil
	})
	rolloutCommand(t, ns, "promote")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	l.onlyFrom(t, "v2")

	kubectl(t, "-n", ns, "set", "image", "deploy/web", "web=docker.io/knarr/nosuch:v9")
	session(t, ns, []step{
		{"", "!rollout status deploy/web --timeout=90s", "exceeded its progress deadline"},
		{"", "get deploy web -o jsonpath='{.status.conditions[?(@.type==\"knarr.io/Rollout\")]}'", `new pods are available, for longer than progressDeadlineSeconds…"reason":"RolledBack"`},
		{"", "rollout undo deploy/web", "rolled back"},
		{"", "rollout status deploy/web --timeout=90s", "successfully rolled out"},
	})
	l.onlyFrom(t, "v2")

	pods := func() string {
		return kubectl(t, "-n", ns, "get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "--sort-by=.metadata.name", "-o", "jsonpath={.items[*].metadata.uid}")
	}
	kubectl(t, "-n", ns, "create", "configmap", "settings", "--from-literal=k=1")
	kubectl(t, "-n", ns, "set", "env", "deploy/web", "--from=configmap/settings")
	rolloutCommand(t, ns, "promote", "--full")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	before, generation := pods(), kubectl(t, "-n", ns, "get", "deploy", "web", "-o", "jsonpath={.metadata.generation}")
	kubectl(t, "-n", ns, "patch", "configmap", "settings", "--type=merge", "-p", `{"data":{"k":"2"}}`)
	eventually(t, 60*time.Second, "a pause of the canary that the ConfigMap began", func() error {
		if out := rolloutCommand(t, ns, "status"); !strings.Contains(out, "› 4. pause: untilPromoted") {
			return fmt.Errorf("knarr rollout status:\n%s", out)
		}
		return nil
	})
	if after := kubectl(t, "-n", ns, "get", "deploy", "web", "-o", "jsonpath={.metadata.generation}"); after != generation {
		t.Errorf("the ConfigMap made generation %s of the Deployment from %s", after, generation)
	}
	kubectl(t, "-n", ns, "annotate", "deploy/web", "knarr.io/rollout-action=promote")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	for _, uid := range strings.Fields(before) {
		if strings.Contains(pods(), uid) {
			t.Errorf("pod %s has the old settings", uid)
		}
	}
	l.stop(t)
}

// Services go over from blue to green at once, and back.
func TestBlueGreenFailsNoRequest(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, inSteps(`{strategy: blueGreen, steps: [{pause: untilPromoted}], keepOld: 1m}`))
	kubectl(t, "-n", ns, "expose", "deploy/web", "--port=80", "--target-port=http", "--type=NodePort")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	urls := serviceURLs(t, ns, "web")
	for _, url := range urls {
		eventually(t, 10*time.Second, url+" answers", func() error { _, err := fetch(url); return err })
	}
	l := load(t, urls)
	kubectl(t, "-n", ns, "set", "image", "deploy/web", "web=docker.io/knarr/e2e-web:v2")
	imagesHave(t, ns, "v1=6/6 v2=6/6")
	leadTo(t, urls, "v1")
	rolloutCommand(t, ns, "promote")
	leadTo(t, urls, "v2")
	rolloutCommand(t, ns, "abort")
	leadTo(t, urls, "v1")
	l.onlyFrom(t, "v1") // the connections that were kept, too
	l.stop(t)
}

// leadTo waits until all new connections lead to pods of a version. Those that were kept stay where they are as long as these pods run.
func leadTo(t testing.TB, urls []string, version string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	eventually(t, 20*time.Second, "new connections to "+version+" alone", func() error {
		for range 20 {
			for _, url := range urls {
				if got, err := ask(c, url); err != nil || got != version {
					return fmt.Errorf("%s: %s, %v", url, got, err)
				}
			}
		}
		return nil
	})
}
