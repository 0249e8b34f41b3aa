package node

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/node/runtime"
)

// ask sends a request to what the node tells about itself.
func (w *world) ask(path string) (int, string) {
	rec := httptest.NewRecorder()
	w.agent.ServeNode(rec, httptest.NewRequestWithContext(context.Background(), http.MethodGet, path, nil))
	return rec.Code, rec.Body.String()
}

func TestEndpoints(t *testing.T) {
	busy := runtime.FakeOptions{Behave: func(*cri.PodSandboxConfig, *cri.ContainerConfig) runtime.Behaviour {
		return runtime.Behaviour{MilliCPU: 200, MemoryBytes: 3 << 20}
	}}
	inBubble(t, busy, func(w *world) {
		w.create(testPod("p"))
		w.wait(10 * time.Second)
		code, body := w.ask("/stats/summary")
		var s kubelet.Summary
		if err := json.Unmarshal([]byte(body), &s); err != nil || code != 200 || len(s.Pods) != 1 || len(s.Pods[0].Containers) != 1 {
			t.Fatal(code, body, err)
		}
		c := s.Pods[0].Containers[0]
		if c.Name != "c" || c.CPU == nil || c.CPU.UsageNanoCores == nil || *c.CPU.UsageNanoCores/1e6 != 200 || *c.Memory.WorkingSetBytes != 3<<20 {
			t.Errorf("container: %s", body)
		}
		for path, want := range map[string]string{
			"/healthz":          "ok",
			"/metrics":          "kubelet_running_pods 1\n",
			"/metrics/resource": `container_memory_working_set_bytes{container="c",namespace="default",pod="p"} 3145728`,
			"/metrics/cadvisor": "machine_cpu_cores 4\n",
			"/pods":             `"phase": "Running"`,
			"/configz":          `"maxPods": 250`,
			"/usage/pods":       `"memory": "3Mi"`,
			"/stats/summary?only_cpu_and_memory=true": `"usageNanoCores"`,
		} {
			if code, body := w.ask(path); code != 200 || !strings.Contains(body, want) {
				t.Errorf("GET %s: %d without %q: %s", path, code, want, body)
			}
		}
		if code, body := w.ask("/exec/default/p/c"); code != 404 {
			t.Errorf("a path that nobody has: %d %s", code, body)
		}
		if code, body := w.ask("/containerLogs/default/p/c?tailLines=x"); code != 400 {
			t.Errorf("tailLines=x: %d %s", code, body)
		}
		if code, body := w.ask("/usage/node"); code != 503 {
			t.Errorf("a hollow node has no machine to measure: %d %s", code, body)
		}
	})
}
