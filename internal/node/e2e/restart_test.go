package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// TestContainerdIsKilled kills the runtime under running pods: they go on, and the agent goes on with them.
func TestContainerdIsKilled(t *testing.T) {
	w := newWorld(t)
	w.create(pod("keep", "while [ ! -e /die ]; do sleep 0.1; done"))
	before := w.until("keep", "running", running)
	killed := w.killContainerd()
	w.create(pod("after", "sleep 1000"))
	w.until("after", "running", running)
	after := w.until("keep", "running", running)
	a, b := after.Status.ContainerStatuses[0], before.Status.ContainerStatuses[0]
	if a.ContainerID != b.ContainerID || a.RestartCount != 0 {
		t.Errorf("before %+v\nafter %+v", b, a)
	}
	t.Logf("a new pod ran %s after the runtime was killed", time.Since(killed).Round(time.Millisecond))
	// The agent still sees what happens to the old pod.
	w.exec(after, "/bin/touch", "/die")
	w.until("keep", "seen to end", func(p *corev1.Pod) bool { return ended(p) })
	w.delete("keep")
	w.delete("after")
}

// killContainerd kills the containerd child of this world, found by its data directory, as by accident.
func (w *world) killContainerd() time.Time {
	w.t.Helper()
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, d := range dirs {
		cmd, _ := os.ReadFile(filepath.Join(d, "cmdline"))
		args := strings.Split(string(cmd), "\x00")
		if len(args) < 2 || args[1] != "containerd" || !strings.Contains(string(cmd), w.dir) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(d))
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			w.t.Fatal(err)
		}
		return time.Now()
	}
	w.t.Fatal("no containerd child found")
	return time.Time{}
}
