package e2e

import (
	"context"
	"fmt"
	"sort"
	"testing"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestStartLatency prints how long a pod takes from creation in the API to Ready, beside the bare CRI calls for the same pod. The agent may
// add half of what the runtime takes.
func TestStartLatency(t *testing.T) {
	w := newWorld(t)
	const rounds = 10
	var agent, bare []time.Duration
	for i := range rounds {
		bare = append(bare, bareStart(w, i))
		name := fmt.Sprint("lat", i)
		began := time.Now()
		w.create(pod(name, "sleep 1000"))
		w.until(name, "running", running)
		agent = append(agent, time.Since(began))
		w.delete(name)
	}
	a, b := median(agent), median(bare)
	t.Logf("pod start: median %s through the agent, %s bare CRI calls, ratio %.2f (slowest %s, %s)", a, b, float64(a)/float64(b), agent[rounds-1], bare[rounds-1])
	if a > 2*b {
		t.Errorf("the agent doubles the time of the runtime: %s against %s", a, b)
	}
}

// median sorts and returns the middle.
func median(d []time.Duration) time.Duration {
	sort.Slice(d, func(i, j int) bool { return d[i] < d[j] })
	return d[len(d)/2]
}

// bareStart runs the calls that start such a pod and returns how long they took.
func bareStart(w *world, i int) time.Duration {
	w.t.Helper()
	ctx := context.Background()
	ns := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}
	sb := &cri.PodSandboxConfig{Metadata: &cri.PodSandboxMetadata{Name: fmt.Sprint("bare", i), Namespace: "x", Uid: fmt.Sprint("bare-", i)}, LogDirectory: w.t.TempDir(),
		Linux: &cri.LinuxPodSandboxConfig{CgroupParent: testCgroup + "/bare", SecurityContext: &cri.LinuxSandboxSecurityContext{NamespaceOptions: ns}}}
	began := time.Now()
	id, err := w.rt.RunPodSandbox(ctx, sb, "")
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := w.rt.CreateContainer(ctx, id, &cri.ContainerConfig{Metadata: &cri.ContainerMetadata{Name: "c"}, Image: &cri.ImageSpec{Image: testImage},
		Command: []string{"/bin/sleep", "1000"}, LogPath: "c.log", Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{NamespaceOptions: ns}}}, sb)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := w.rt.StartContainer(ctx, c); err != nil {
		w.t.Fatal(err)
	}
	took := time.Since(began)
	if err := w.rt.StopPodSandbox(ctx, id); err != nil {
		w.t.Error(err)
	}
	if err := w.rt.RemovePodSandbox(ctx, id); err != nil {
		w.t.Error(err)
	}
	return took
}
