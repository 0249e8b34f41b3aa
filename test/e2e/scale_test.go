package e2e

import (
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// footprint counts what the cluster has on the machine for its pods.
func footprint() (map[string]int, error) {
	now, err := observeMachine()
	if err != nil {
		return nil, err
	}
	marks := now.marks()
	count := map[string]int{}
	for line := range now {
		if kind, _, _ := strings.Cut(line, " "); kind != "sysctl" && ours(line, marks) {
			count[kind]++
		}
	}
	for what, pattern := range map[string]string{
		"allocated addresses":   "network/ipam/*",
		"directories of pods":   "pods/*",
		"logs of pods":          "pods-logs/*",
		"sandboxes":             "containerd/state/io.containerd.runtime.v2.task/k8s.io/*",
		"runc states":           "containerd/runc/k8s.io/*",
		"sandbox records":       "containerd/root/io.containerd.grpc.v1.cri/sandboxes/*",
		"container records":     "containerd/root/io.containerd.grpc.v1.cri/containers/*",
		"snapshots":             "containerd/root/io.containerd.snapshotter.v1.overlayfs/snapshots/*",
		"namespaces of network": "containerd/state/io.containerd.grpc.v1.cri/netns/*",
	} {
		found, err := filepath.Glob(filepath.Join(cluster.dataDir, pattern))
		if err != nil {
			return nil, err
		}
		count[what] = len(found)
	}
	out, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("nft: %w\n%s", err, out)
	}
	count["endpoints in nftables"] = len(regexp.MustCompile(`: 10\.244\.\d+\.\d+ \. 8080`).FindAll(out, -1))
	count["hairpins in nftables"] = len(regexp.MustCompile(`10\.244\.\d+\.\d+ \. 10\.244`).FindAll(out, -1))
	count["chains in nftables"] = strings.Count(string(out), "chain ")
	return count, nil
}

func TestFiftyPodsComeAndGoWithoutATrace(t *testing.T) {
	if !ownCluster(t) {
		return
	}
	ns := setUp(t, nil, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 1
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: docker.io/library/busybox:1
        command: [sh, -c, "trap exit TERM; httpd -p 8080 -h / ; while true; do sleep 1; done"]
        resources: {requests: {cpu: 5m, memory: 4Mi}}
        volumeMounts: [{name: memory, mountPath: /memory}]
      volumes:
      - {name: memory, emptyDir: {medium: Memory}}
---
apiVersion: v1
kind: Service
metadata: {name: many}
spec:
  selector: {app: many}
  ports: [{port: 80, targetPort: 8080}]
`)
	kubectl(t, "-n", ns, "rollout", "status", "deploy/many", "--timeout=60s")
	before := settled(t, map[string]int{"allocated addresses": 1, "endpoints in nftables": 1})

	began := time.Now()
	kubectl(t, "-n", ns, "scale", "deploy/many", "--replicas=50")
	kubectl(t, "-n", ns, "rollout", "status", "deploy/many", "--timeout=120s")
	up := time.Since(began)
	full := settled(t, map[string]int{"allocated addresses": 50, "endpoints in nftables": 50})

	began = time.Now()
	kubectl(t, "-n", ns, "scale", "deploy/many", "--replicas=1")
	eventually(t, 120*time.Second, "one pod", func() error {
		if n := len(strings.Fields(kubectl(t, "-n", ns, "get", "pods", "-o", "name"))); n != 1 {
			return fmt.Errorf("there are %d", n)
		}
		return nil
	})
	down := time.Since(began)
	t.Logf("1 -> 50 pods Ready in %v, 50 -> 1 gone in %v", up.Round(10*time.Millisecond), down.Round(10*time.Millisecond))

	eventually(t, time.Minute, "as before", func() error {
		after, err := footprint()
		if err != nil {
			return err
		}
		var wrong []string
		for _, what := range slices.Sorted(maps.Keys(before)) {
			if after[what] != before[what] {
				wrong = append(wrong, fmt.Sprintf("%s: %d before, %d with 50 pods, %d after", what, before[what], full[what], after[what]))
			}
		}
		if len(wrong) > 0 {
			return fmt.Errorf("\n  %s", strings.Join(wrong, "\n  "))
		}
		return nil
	})
	for _, what := range slices.Sorted(maps.Keys(before)) {
		// A count that 50 pods do not move would prove nothing.
		if moves := what != "address" && what != "rule" && what != "nftables" && what != "file" && what != "chains in nftables"; moves && full[what] < before[what]+49 {
			t.Errorf("%s: %d with one pod, %d with 50: this is not counted right", what, before[what], full[what])
		}
	}
}

// settled returns the footprint once it has the counts of want.
func settled(t testing.TB, want map[string]int) (f map[string]int) {
	t.Helper()
	eventually(t, 30*time.Second, "the footprint of the pods", func() (err error) {
		if f, err = footprint(); err != nil {
			return err
		}
		for what, n := range want {
			if f[what] != n {
				return fmt.Errorf("%s: %d, want %d", what, f[what], n)
			}
		}
		return nil
	})
	return f
}
