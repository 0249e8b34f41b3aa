package containerd

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// BenchmarkPod measures what each CRI call of a pod's life costs on real containers, on the host's network, and what the
// runtime and a pod's shim weigh. The figures in docs/adr/0003 are its output:
//
//	KNARR_E2E=1 go test ./internal/node/containerd -run NONE -bench Pod -benchtime 20x
func BenchmarkPod(b *testing.B) {
	s, _ := supervise(b, e2eOptions(b))
	importTestImage(b, s)
	c := dial(b, s)
	ctx := context.Background()
	took := map[string][]time.Duration{}
	call := func(name string, f func() error) {
		began := time.Now()
		if err := f(); err != nil {
			b.Fatalf("%s: %v", name, err)
		}
		took[name] = append(took[name], time.Since(began))
	}
	child := onlyChild(b, &s.options)
	idle := memory(b, child, "Rss")
	var sandboxes []string
	n := 0
	for b.Loop() {
		n++
		pod := &cri.PodSandboxConfig{
			Metadata:     &cri.PodSandboxMetadata{Name: fmt.Sprint("pod-", n), Namespace: "bench", Uid: fmt.Sprint(n)},
			LogDirectory: b.TempDir(),
			Linux: &cri.LinuxPodSandboxConfig{CgroupParent: cgroupOf(s.options.DataDir), SecurityContext: &cri.LinuxSandboxSecurityContext{
				NamespaceOptions: &cri.NamespaceOption{Network: cri.NamespaceMode_NODE}}},
		}
		var sandbox, id string
		var err error
		call("run-sandbox", func() error { sandbox, err = c.RunPodSandbox(ctx, pod, ""); return err })
		call("create", func() error {
			id, err = c.CreateContainer(ctx, sandbox, &cri.ContainerConfig{
				Metadata: &cri.ContainerMetadata{Name: "main"}, Image: &cri.ImageSpec{Image: testImage},
				Command: []string{"/bin/sleep", "1000000"}, LogPath: "main.log",
			}, pod)
			return err
		})
		call("start", func() error { return c.StartContainer(ctx, id) })
		call("exec", func() error { _, err := c.ExecSync(ctx, id, []string{"/bin/true"}, 0); return err })
		call("container-status", func() error { _, err := c.ContainerStatus(ctx, id); return err })
		call("stop", func() error { return c.StopContainer(ctx, id, 0) })
		sandboxes = append(sandboxes, sandbox)
	}
	call("list-containers", func() error { _, err := c.ListContainers(ctx, nil); return err })
	b.ReportMetric(idle, "runtime-MB-idle")
	b.ReportMetric(memory(b, child, "Rss"), "runtime-MB-at-end")
	b.ReportMetric(shimMemory(b, s.options.DataDir, "Rss"), "shim-MB")
	b.ReportMetric(shimMemory(b, s.options.DataDir, "Pss"), "shim-MB-proportional")
	for _, id := range sandboxes {
		call("stop-sandbox", func() error { return c.StopPodSandbox(ctx, id) })
		call("remove-sandbox", func() error { return c.RemovePodSandbox(ctx, id) })
	}
	for name, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name+"-ms")
	}
}

// memory returns a process' memory in MB: Rss, or Pss, which counts pages that several processes share in proportion.
func memory(tb testing.TB, pid int, field string) float64 {
	tb.Helper()
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		tb.Fatal(err)
	}
	for line := range strings.Lines(string(rollup)) {
		if kb, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kb), "kB")))
			if err != nil {
				tb.Fatal(err)
			}
			return float64(n) / 1000
		}
	}
	tb.Fatalf("no %s of process %d", field, pid)
	return 0
}

// shimMemory returns the mean memory of a data directory's shims, in MB.
func shimMemory(tb testing.TB, dataDir, field string) float64 {
	tb.Helper()
	var sum float64
	n := 0
	if err := eachProcess(func(pid int, argv []string) {
		if strings.HasSuffix(argv[0], "containerd-shim-runc-v2") && strings.Contains(strings.Join(argv, " "), dataDir) {
			sum += memory(tb, pid, field)
			n++
		}
	}); err != nil || n == 0 {
		tb.Fatalf("%d shims, error %v", n, err)
	}
	return sum / float64(n)
}
