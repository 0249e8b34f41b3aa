package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// knarr dev itself: growing, doing it again, what a crash of everything leaves, and coming back.
func TestDevClusterGrowsAndComesBack(t *testing.T) {
	t.Parallel()
	d := devCluster(t, 2, 1)
	if d == nil {
		return
	}
	ns := rollOut(t, web)

	if out := d.up(t, "--nodes", "3"); !strings.Contains(out, "node-2 is running already") || !strings.Contains(out, "node-3 is Ready") {
		t.Errorf("growing says:\n%s", out)
	}
	d.nodes = 3
	for _, bad := range []struct{ args, want string }{
		{"--nodes 2", "there are 3 already"},
		{"--servers 2", "nodes keep their roles, so that takes --nodes 4"},
		{"--nodes 4 --servers 5", "there are only --nodes 4"},
		{"--nodes 1000", "want 1 to 100"},
		{"--subnet 10.1.2.0/24", "machines keep their addresses"},
		{"-- --listen 0.0.0.0:1", "chooses --listen for each node by itself"},
		{"four", `"four" is no flag of knarr dev up`},
	} {
		out, err := knarr(append([]string{"dev", "up", "--data-dir", cluster.dataDir}, strings.Fields(bad.args)...)...)
		if err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("knarr dev up %s: %v %s; want %q", bad.args, err, out, bad.want)
		}
	}
	out := d.knarr(t, "dev", "ps")
	for _, want := range []string{"node-1 server … connected Ready", "node-2 agent … connected Ready", "node-3 agent … connected Ready"} {
		if !shows(out, want) {
			t.Errorf("knarr dev ps does not show %q:\n%s", want, out)
		}
	}
	if _, err := knarr("dev", "cut", "node-9"); err == nil || !strings.Contains(err.Error(), `there is no node "node-9"`) {
		t.Errorf("cutting off a node that is not there: %v", err)
	}

	// Everything dies; up starts it again, with the same nodes and what they ran.
	for i := range d.nodes {
		d.node(i + 1).kill(t)
	}
	if out := d.knarr(t, "dev", "ps"); strings.Count(out, "unknown: no API answers") != 3 {
		t.Errorf("knarr dev ps, with all dead:\n%s", out)
	}
	d.up(t)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")

	// Down leaves the data, and nothing else.
	began := time.Now()
	d.knarr(t, "dev", "down")
	t.Logf("knarr dev down took %v", time.Since(began).Round(10*time.Millisecond))
	now, err := observeMachine()
	if err != nil {
		t.Fatal(err)
	}
	if left := cluster.base.differences(now, d.marks(nil)); len(left) > 0 {
		t.Errorf("left after knarr dev down:\n  %s", strings.Join(left, "\n  "))
	}
	d.up(t)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/web", "--timeout=60s")
	eventually(t, 20*time.Second, "a pod of the host's way to the world", func() error {
		// The pod's packets leave by the node, then by the machine.
		out, err := run("", "-n", ns, "exec", "client", "--", "ping", "-c", "1", "-W", "2", outsideAddr)
		if err != nil {
			return fmt.Errorf("%w %s", err, out)
		}
		return nil
	})
	if info, err := os.Stat(cluster.dataDir + "/kubeconfig"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the kubeconfig: %v %v", info, err)
	}
}
