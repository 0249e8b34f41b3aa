package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestLimitsAreEnforced(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, probed("p", `
    resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}
`)+probed("hungry", `
    resources: {limits: {memory: 48Mi}}
`))
	t.Run("CPU", func(t *testing.T) {
		p := awaitPod(t, ns, "p", 60*time.Second, "Ready", ready)
		for _, tc := range []struct{ v1, v2, want string }{
			{"cpu/cpu.cfs_quota_us", "cpu.max", "20000"},
			{"memory/memory.limit_in_bytes", "memory.max", fmt.Sprint(64 << 20)},
			{"cpu/cpu.shares", "cpu.weight", "102"},
		} {
			container, pod := cgroupFile(t, p, tc.v1, tc.v2)
			if file := strings.SplitN(tc.v1, "/", 2)[1]; !v2() && (strings.TrimSpace(container) != tc.want || strings.TrimSpace(pod) != tc.want) {
				t.Errorf("%s is %s for the container, %s for the pod, want %s", file, container, pod, tc.want)
			} else if v2() && tc.v2 != "cpu.weight" && !strings.HasPrefix(container, tc.want) {
				t.Errorf("%s is %s for the container, want %s", tc.v2, container, tc.want)
			}
		}
		// On a machine that is busy with other things it may take some time until the container gets more than its share at all.
		eventually(t, 60*time.Second, "a busy container is throttled", func() error {
			tell(t, p, "/spin?for=2s")
			stat, _ := cgroupFile(t, p, "cpu/cpu.stat", "cpu.stat")
			if m := regexp.MustCompile(`nr_throttled (\d+)`).FindStringSubmatch(stat); m == nil || m[1] == "0" {
				return fmt.Errorf("after two busy seconds its statistics are %s", stat)
			}
			return nil
		})
		session(t, ns, []step{
			{"", "get pod p -o jsonpath='{.status.qosClass} {.status.containerStatuses[0].resources.limits.cpu}'", "Burstable 200m"},
		})
	})
	t.Run("memory", func(t *testing.T) {
		p := awaitPod(t, ns, "hungry", 60*time.Second, "Ready", ready)
		tell(t, p, "/")
		if body, err := fetch("http://" + p.Status.PodIP + ":8080/allocate?mb=100"); err == nil {
			t.Errorf("100 MiB could be allocated under a limit of 48 MiB: %s", body)
		}
		p = awaitPod(t, ns, "hungry", 20*time.Second, "restarted", restarted(1))
		if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil || last.Reason != "OOMKilled" || last.ExitCode != 137 {
			t.Errorf("the end is told as %+v, want OOMKilled, exit code 137", last)
		}
		session(t, ns, []step{{"", "describe pod hungry", "Last State: Terminated Reason: OOMKilled Exit Code: 137"}})
	})
}

func v2() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// cgroupFile reads a file of the control groups of a pod's only container and of the pod: v1 is CONTROLLER/FILE, v2 the file of the
// unified tree.
func cgroupFile(t testing.TB, p *corev1.Pod, v1, v2File string) (container, pod string) {
	t.Helper()
	root, file := "/sys/fs/cgroup", v2File
	if !v2() {
		controller, name, _ := strings.Cut(v1, "/")
		root, file = filepath.Join(root, controller), name
	}
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	var found string
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && strings.Contains(d.Name(), id) {
			found = path
		}
		return nil
	})
	if err != nil || found == "" {
		t.Fatalf("no control group of container %s below %s: %v", id, root, err)
	}
	read := func(dir string) string {
		b, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	return read(found), read(filepath.Dir(found))
}

func TestSecurityContexts(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, manifest("strict", `
  restartPolicy: Never
  securityContext: {runAsUser: 1234, runAsGroup: 2345, supplementalGroups: [777], runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers:
  - name: c
    image: busybox:1
    securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
    command: [sh, -c, "id; touch /x 2>&1; grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status"]
`)+manifest("some", `
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:1
    securityContext: {capabilities: {drop: [ALL], add: [NET_ADMIN]}}
    command: [grep, CapEff, /proc/self/status]
`)+manifest("mighty", `
  restartPolicy: Never
  containers:
  - name: c
    image: busybox:1
    securityContext: {privileged: true}
    command: [sh, -c, "mount -t tmpfs x /tmp && echo mounted; ls /dev/kmsg"]
`)+manifest("root", `
  containers: [{name: c, image: "busybox:1", securityContext: {runAsNonRoot: true}}]
`))
	for _, name := range []string{"strict", "some", "mighty"} {
		awaitPod(t, ns, name, 60*time.Second, "ended", ended)
	}
	session(t, ns, []step{
		{"", "logs strict", "uid=1234 gid=2345 groups=777"},
		{"", "logs strict", "touch: /x: Read-only file system CapEff: 0000000000000000 CapBnd: 0000000000000000 NoNewPrivs: 1 Seccomp: 2"},
		{"", "logs some", "CapEff: 0000000000001000"},
		{"", "logs mighty", "mounted /dev/kmsg"},
	})
	awaitPod(t, ns, "root", 60*time.Second, "refused", waitingFor("CreateContainerConfigError", "container has runAsNonRoot and image will run as root"))
}

func TestLogsAreRotated(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	apply(t, ns, manifest("p", `
  containers: [{name: c, image: "busybox:1", command: [sh, -c, "yes 0123456789012345678901234567890123456789 | head -c 12000000; echo the end; `+obedient+`"]}]
`))
	p := awaitPod(t, ns, "p", 60*time.Second, "Ready", ready)
	dir := filepath.Join(cluster.dataDir, "pods-logs", fmt.Sprintf("%s_p_%s", ns, p.UID), "c")
	eventually(t, 40*time.Second, "a log that was moved aside in "+dir, func() error {
		files, err := filepath.Glob(filepath.Join(dir, "0.log.*"))
		if err == nil && len(files) == 0 {
			err = fmt.Errorf("there is none")
		}
		return err
	})
	if st, err := os.Stat(filepath.Join(dir, "0.log")); err != nil || st.Size() > 10<<20 {
		t.Errorf("the log that is written to is %+v, %v", st, err)
	}
}
