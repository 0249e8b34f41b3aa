package node

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
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
			"/metrics/probes":   "",
			"/runningpods":      `"image": "img:1"`,
			"/runningpods/":     `"name": "p"`,
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

// The kubelet's series of probes have its labels, and go with the pod.
func TestProbesAreCounted(t *testing.T) {
	var code atomic.Int32
	answer := func(*cri.ContainerStatus, []string) (*runtime.ExecResult, error) {
		return &runtime.ExecResult{ExitCode: code.Load()}, nil
	}
	inBubble(t, runtime.FakeOptions{Exec: answer}, func(w *world) {
		w.agent.host.Prober = execProber{w.rt}
		w.create(testPod("p", func(p *corev1.Pod) {
			p.Spec.Containers[0].ReadinessProbe = &corev1.Probe{PeriodSeconds: 5, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"x"}}}}
		}))
		w.wait(11 * time.Second)
		code.Store(1)
		w.wait(5 * time.Second)
		uid := string(w.pod("p").UID)
		_, body := w.ask("/metrics/probes")
		for _, want := range []string{
			`prober_probe_total{container="c",namespace="default",pod="p",pod_uid="` + uid + `",probe_type="Readiness",result="successful"} 3`,
			`prober_probe_total{container="c",namespace="default",pod="p",pod_uid="` + uid + `",probe_type="Readiness",result="failed"} 1`,
			`prober_probe_duration_seconds_count{container="c",namespace="default",pod="p",probe_type="Readiness"} 4`,
		} {
			if !strings.Contains(body, want+"\n") {
				t.Errorf("without %s:\n%s", want, body)
			}
		}
		w.delete("p")
		w.wait(time.Minute)
		if _, body := w.ask("/metrics/probes"); strings.Contains(body, uid) || strings.Contains(body, `pod="p"`) {
			t.Errorf("the pod is gone and still counted:\n%s", body)
		}
	})
}
