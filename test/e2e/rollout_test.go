package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// A rolling update and its undoing, while requests come in through the ClusterIP and the NodePort, on connections that are
// kept and on new ones. The program has no preStop hook and stops listening when it is told to end.
func TestRollingUpdateFailsNoRequest(t *testing.T) {
	ns := namespace(t)
	apply(t, ns, strings.Replace(web, "replicas: 2", "replicas: 6", 1))
	kubectl(t, "-n", ns, "expose", "deploy/web", "--port=80", "--target-port=http", "--type=NodePort")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	urls := serviceURLs(t, ns, "web")
	for _, url := range urls {
		eventually(t, 10*time.Second, url+" answers", func() error { _, err := fetch(url); return err })
	}
	counts := start(t, "-n", ns, "get", "deploy", "web", "-w", "--no-headers", "-o", "custom-columns=A:.status.availableReplicas,R:.status.replicas")
	l := load(t, urls)

	kubectl(t, "-n", ns, "set", "image", "deploy/web", "web=docker.io/knarr/e2e-web:v2")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	l.onlyFrom(t, "v2")
	kubectl(t, "-n", ns, "rollout", "undo", "deploy/web")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=90s")
	l.onlyFrom(t, "v1")

	l.stop(t)
	if image := kubectl(t, "-n", ns, "get", "deploy", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); image != "docker.io/knarr/e2e-web:v1" {
		t.Errorf("after undo the image is %s", image)
	}
	var sets appsv1.ReplicaSetList
	get(t, &sets, "-n", ns, "get", "rs")
	if len(sets.Items) != 2 {
		t.Errorf("after undo there are %d ReplicaSets; the first one should have been taken up again", len(sets.Items))
	}
	// 25 % of six: one may be missing (rounded down), two may be extra (rounded up).
	for _, line := range strings.Split(strings.TrimSpace(counts.String()), "\n") {
		f := strings.Fields(line)
		available, err1 := strconv.Atoi(f[0])
		replicas, err2 := strconv.Atoi(f[1])
		if err1 != nil || err2 != nil || available < 5 || replicas > 8 {
			t.Errorf("during the rollout the Deployment had %s available of %s pods, want at least 5 and at most 8", f[0], f[1])
		}
	}
}

func TestRecreateEndsTheOldPodsFirst(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, strings.Replace(web, "spec:\n", "spec:\n  strategy: {type: Recreate}\n", 1))
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	pods := start(t, "-n", ns, "get", "pods", "-w", "--output-watch-events", "--no-headers", "-o",
		"custom-columns=T:.type,I:.object.spec.containers[0].image,N:.object.metadata.name,P:.object.status.phase")
	pods.waitFor(t, 10*time.Second, "ADDED docker.io/knarr/e2e-web:v1 … ADDED docker.io/knarr/e2e-web:v1")
	kubectl(t, "-n", ns, "set", "image", "deploy/web", "web=docker.io/knarr/e2e-web:v2")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	pods.waitFor(t, 10*time.Second, "ADDED docker.io/knarr/e2e-web:v2")
	// A pod that is deleted or whose containers have all ended does not count as an old one (it may stay until it is removed).
	old := map[string]bool{}
	for _, line := range strings.Split(pods.String(), "\n") {
		f := strings.Fields(line)
		if strings.HasSuffix(f[1], ":v2") {
			break
		}
		old[f[2]] = f[0] != "DELETED" && f[3] != "Succeeded" && f[3] != "Failed"
	}
	for name, runs := range old {
		if runs || len(old) != 2 {
			t.Errorf("old pod %s (of %d) had not ended when the first new one came:\n%s", name, len(old), pods)
		}
	}
}

func TestARolloutThatIsStuckSaysSo(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, strings.Replace(web, "spec:\n", "spec:\n  progressDeadlineSeconds: 4\n", 1))
	session(t, ns, []step{
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "set image deploy/web web=docker.io/knarr/nosuch:v9", "image updated"},
		{"", "!rollout status deploy/web --timeout=60s", `deployment "web" exceeded its progress deadline`},
		{"", "get deploy web -o jsonpath='{.status.conditions[?(@.type==\"Progressing\")]}'", `has timed out progressing.…"reason":"ProgressDeadlineExceeded","status":"False"`},
		{"", "get deploy web", "web 2/2 1 2"}, // what runs goes on running
		{"", "rollout undo deploy/web", "rolled back"},
		{"", "rollout status deploy/web --timeout=60s", "successfully rolled out"},
		{"", "get pods", "1/1 Running 0"},
	})
}

// serviceURLs are the ways to a Service from this machine: its ClusterIP, and its NodePort at the node's address.
func serviceURLs(t testing.TB, namespace, name string) []string {
	t.Helper()
	var svc corev1.Service
	get(t, &svc, "-n", namespace, "get", "service", name)
	port := svc.Spec.Ports[0]
	node := kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].status.addresses[?(@.type=='InternalIP')].address}")
	return []string{
		fmt.Sprintf("http://%s:%d/", svc.Spec.ClusterIP, port.Port),
		fmt.Sprintf("http://%s:%d/", node, port.NodePort),
	}
}

// loader sends requests without a pause and remembers who answered.
type loader struct {
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	answers  map[string]int // by version, since the last look
	total    int
	failures []string
}

// load sends requests to each URL, over kept connections and over new ones, until stop.
func load(t testing.TB, urls []string) *loader {
	return loadBy(t, (&net.Dialer{}).DialContext, urls)
}

// loadBy is load over connections that dial makes.
func loadBy(t testing.TB, dial func(ctx context.Context, network, addr string) (net.Conn, error), urls []string) *loader {
	ctx, cancel := context.WithCancel(context.Background())
	l := &loader{dial: dial, cancel: cancel, answers: map[string]int{}}
	for _, url := range urls {
		for _, keep := range []bool{true, false} {
			for range 2 {
				l.done.Add(1)
				go l.run(ctx, url, keep)
			}
		}
	}
	t.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

func (l *loader) run(ctx context.Context, url string, keep bool) {
	defer l.done.Done()
	tr := &http.Transport{DisableKeepAlives: !keep, DialContext: l.dial}
	defer tr.CloseIdleConnections()
	c := &http.Client{Transport: tr, Timeout: 10 * time.Second}
	pace := time.NewTicker(4 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		began := time.Now()
		version, err := ask(c, url)
		l.mu.Lock()
		l.total++
		if err != nil {
			l.failures = append(l.failures, fmt.Sprintf("%s %s (kept connection: %v, after %v): %v", began.Format("15:04:05.000"), url, keep, time.Since(began), err))
		} else {
			l.answers[version]++
		}
		l.mu.Unlock()
		<-pace.C
	}
}

func ask(c *http.Client, url string) (version string, err error) {
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK || len(body) == 0 {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	return strings.Fields(string(body))[0], nil
}

// onlyFrom waits until all answers come from version.
func (l *loader) onlyFrom(t testing.TB, version string) {
	t.Helper()
	l.onlyFromWithin(t, 10*time.Second, version)
}

func (l *loader) onlyFromWithin(t testing.TB, timeout time.Duration, version string) {
	t.Helper()
	take := func() map[string]int {
		l.mu.Lock()
		defer l.mu.Unlock()
		was := l.answers
		l.answers = map[string]int{}
		return was
	}
	take()
	eventually(t, timeout, "answers from "+version+" alone", func() error {
		l.mu.Lock()
		enough := l.answers[version] >= 50
		l.mu.Unlock()
		if !enough {
			return fmt.Errorf("too few of them")
		}
		if got := take(); len(got) != 1 {
			return fmt.Errorf("they were %v", got)
		}
		return nil
	})
}

// stop ends the load; no request may have failed.
func (l *loader) stop(t testing.TB) {
	t.Helper()
	l.cancel()
	l.done.Wait()
	t.Logf("%d requests, %d failed", l.total, len(l.failures))
	if len(l.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first ones:\n  %s", len(l.failures), l.total, strings.Join(l.failures[:min(10, len(l.failures))], "\n  "))
	}
}
