package e2e

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

// autoscaler has between one and six pods, each of which is to use 20 thousandths of a processor.
const autoscaler = `
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  minReplicas: 1
  maxReplicas: 6
  metrics:
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
  behavior:
    scaleUp: {policies: [{type: Pods, value: 10, periodSeconds: 1}]}
    scaleDown: {stabilizationWindowSeconds: 4, policies: [{type: Percent, value: 100, periodSeconds: 1}]}
`

// Load on a Deployment makes six pods of one, and its end one of six, while requests come in over new connections: none fails. The work is twice
// what six pods are to do, so that a busy machine, on which they get less done, has six as well.
func TestReplicasFollowTheLoad(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, strings.NewReplacer("replicas: 2", "replicas: 1", "cpu: 10m", "cpu: 40m").Replace(web))
	kubectl(t, "-n", ns, "expose", "deploy/web", "--port=80", "--target-port=http", "--type=NodePort")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	urls := serviceURLs(t, ns, "web")
	for _, url := range urls {
		eventually(t, 10*time.Second, url+" answers", func() error { _, err := fetch(url); return err })
	}
	apply(t, ns, autoscaler)
	w := workFor(t, urls)
	eventually(t, 30*time.Second, "what the pod uses is known", func() error {
		var hpa autoscalingv2.HorizontalPodAutoscaler
		get(t, &hpa, "-n", ns, "get", "hpa.v2.autoscaling", "web")
		for _, c := range hpa.Status.Conditions {
			if c.Type == autoscalingv2.ScalingActive && c.Status == "True" {
				return nil
			}
		}
		return fmt.Errorf("status %+v", hpa.Status)
	})
	await := func(what string, enough func(n string) bool) time.Duration {
		t.Helper()
		began := time.Now()
		eventually(t, 45*time.Second, what, func() error {
			if n := kubectl(t, "-n", ns, "get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"); !enough(n) {
				return fmt.Errorf("%s replicas\n%s", n, kubectl(t, "-n", ns, "describe", "hpa", "web"))
			}
			return nil
		})
		return time.Since(began)
	}
	await("one replica without load", func(n string) bool { return n == "1" }) // what the start of the pod took may have made it two
	w.each("work?for=12ms")
	first := await("more than one replica", func(n string) bool { return n != "1" })
	full := await("six replicas", func(n string) bool { return n == "6" })
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	w.each("")
	down := await("one replica", func(n string) bool { return n == "1" })
	t.Logf("from the load to the first decision %v, six replicas after %v more, one %v after its end",
		first.Round(100*time.Millisecond), full.Round(100*time.Millisecond), down.Round(100*time.Millisecond))
	eventually(t, 30*time.Second, "one pod", func() error {
		if n := len(strings.Fields(kubectl(t, "-n", ns, "get", "pods", "-o", "name"))); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	w.stop(t)
}

// workers send twenty requests a second, each over a connection of its own.
type workers struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu       sync.Mutex
	path     string
	sent     int
	failures []string
}

// workFor sends requests to urls in turn until stop.
func workFor(t testing.TB, urls []string) *workers {
	ctx, cancel := context.WithCancel(context.Background())
	w := &workers{cancel: cancel}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	w.done.Go(func() {
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			w.done.Go(func() { w.request(c, urls[i%len(urls)]) })
			<-pace.C
		}
	})
	t.Cleanup(func() { cancel(); w.done.Wait() })
	return w
}

// each makes path what is asked for from now on.
func (w *workers) each(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.path = path
}

func (w *workers) request(c *http.Client, url string) {
	w.mu.Lock()
	url += w.path
	w.sent++
	w.mu.Unlock()
	began := time.Now()
	resp, err := c.Get(url)
	if err == nil {
		defer resp.Body.Close()
		if _, err = io.ReadAll(resp.Body); err == nil && resp.StatusCode != http.StatusOK {
			err = fmt.Errorf("it answered %s", resp.Status)
		}
	}
	if err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.failures = append(w.failures, fmt.Sprintf("%s %s after %v: %v", began.Format("15:04:05.000"), url, time.Since(began), err))
	}
}

// stop ends the requests; none may have failed.
func (w *workers) stop(t testing.TB) {
	t.Helper()
	w.cancel()
	w.done.Wait()
	t.Logf("%d requests, %d failed", w.sent, len(w.failures))
	if len(w.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first ones:\n  %s", len(w.failures), w.sent, strings.Join(w.failures[:min(10, len(w.failures))], "\n  "))
	}
}
