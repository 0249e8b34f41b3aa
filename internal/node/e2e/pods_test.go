package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

func ptr[T any](v T) *T { return &v }

// TestPods runs pods of many kinds on one runtime.
func TestPods(t *testing.T) {
	w := newWorld(t)
	t.Run("life", w.in(testLife))
	t.Run("volumes", w.in(testVolumes))
	t.Run("updates", w.in(testUpdates))
	t.Run("security", w.in(testSecurity))
	t.Run("memory", w.in(testMemory))
	t.Run("probes", w.in(testProbes))
	t.Run("restart of all", w.in(testRestartOfAll))
	t.Run("env files", w.in(testEnvFiles))
	t.Run("stop", w.in(testStop))
	t.Run("takeover", w.in(testTakeover))
	t.Run("logs", w.in(testLogs))
	t.Run("nothing left", w.in(testNothingLeft))
}

func (w *world) in(f func(*world)) func(*testing.T) {
	return func(t *testing.T) {
		old := w.t
		w.t = t
		defer func() { w.t = old }()
		f(w)
	}
}

func (w *world) is(got, want string) {
	w.t.Helper()
	if strings.TrimSpace(got) != strings.TrimSpace(want) {
		w.t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func testLife(w *world) {
	out, p := w.script(pod("life", "echo hello; echo bye > /dev/termination-log; exit 3"))
	w.is(out, "hello")
	end := p.Status.ContainerStatuses[0].State.Terminated
	if p.Status.Phase != corev1.PodFailed || end == nil || end.ExitCode != 3 || end.Reason != "Error" || strings.TrimSpace(end.Message) != "bye" {
		w.t.Errorf("%s %+v", p.Status.Phase, end)
	}
	if e := w.events("life"); !strings.Contains(e, "already present on machine") || !strings.Contains(e, "Started container c") {
		w.t.Errorf("events:\n%s", e)
	}
	w.delete("life")
}

func testVolumes(w *world) {
	w.create(
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cm", Namespace: "default"}, Data: map[string]string{"a": "1", "b": "2"}},
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "s", Namespace: "default"}, Data: map[string][]byte{"pw": []byte("secret")}})
	script := `cat /cm/a /cm/dir/b; echo; cat /s/pw; echo; stat -c %a /s/..data/pw; echo $FROM-$PW-$ALL_a-$NAME-$(CPU)
		cat /d/labels; echo; cat /t/token; echo; cat /one; echo; echo x > /e/f && cat /sub/g; stat -f -c %T /m; cat /etc/hosts | head -1`
	out, _ := w.script(pod("vol", script, func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = "default"
		p.Spec.Volumes = []corev1.Volume{
			{Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"},
				Items: []corev1.KeyToPath{{Key: "a", Path: "a"}, {Key: "b", Path: "dir/b"}}}}},
			{Name: "s", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s", DefaultMode: ptr(int32(0o400))}}},
			{Name: "d", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
				{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}}},
			{Name: "t", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr(int64(600))}}}}}},
			{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "m", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr(resource.MustParse("1Mi"))}}},
		}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []corev1.VolumeMount{{Name: "cm", MountPath: "/cm"}, {Name: "s", MountPath: "/s"}, {Name: "d", MountPath: "/d"}, {Name: "t", MountPath: "/t"},
			{Name: "cm", MountPath: "/one", SubPath: "a"}, {Name: "e", MountPath: "/e", SubPathExpr: "$(NAME)"}, {Name: "e", MountPath: "/sub"}, {Name: "m", MountPath: "/m"}}
		c.Env = []corev1.EnvVar{{Name: "NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			{Name: "FROM", Value: "$(NAME)!"},
			{Name: "PW", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "s"}, Key: "pw"}}},
			{Name: "CPU", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.cpu", Divisor: resource.MustParse("1m")}}}}
		c.EnvFrom = []corev1.EnvFromSource{{Prefix: "ALL_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "cm"}}}}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("200m")}
		c.Command[2] = strings.Replace(c.Command[2], "/sub/g", "/sub/vol/f", 1)
	}))
	w.is(out, "12\nsecret\n400\nvol!-secret-1-vol-200\napp=\"vol\"\ntoken-1 of default/default\n1\nx\ntmpfs\n# Kubernetes-managed hosts file (host network).")
	w.delete("vol")
}

func testUpdates(w *world) {
	w.create(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "live", Namespace: "default"}, Data: map[string]string{"v": "1"}})
	w.create(pod("upd", "while [ \"$(cat /cm/v)\" = 1 ]; do sleep 0.05; done; echo changed to $(cat /cm/v)", func(p *corev1.Pod) {
		p.Spec.Volumes = []corev1.Volume{{Name: "cm", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "live"}}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "cm", MountPath: "/cm"}}
	}))
	w.until("upd", "running", running)
	if _, err := client.Mutate(w.t.Context(), w.c, api.Key{Namespace: "default", Name: "live"}, "", func(c *corev1.ConfigMap) bool {
		c.Data["v"] = "2"
		return true
	}); err != nil {
		w.t.Fatal(err)
	}
	w.until("upd", "ended", ended)
	w.is(w.logs("upd"), "changed to 2")
	w.delete("upd")
}

func testSecurity(w *world) {
	out, _ := w.script(pod("sec", "id -u; id -g; id -G; stat -c '%g %a' /e; touch /x 2>/dev/null || echo readonly; cat /proc/self/status | while read k v; do case $k in NoNewPrivs:|Seccomp:|CapEff:) echo $k $v;; esac; done",
		func(p *corev1.Pod) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000)), RunAsGroup: ptr(int64(2000)), FSGroup: ptr(int64(3000)), RunAsNonRoot: ptr(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}}
			p.Spec.Volumes = []corev1.Volume{{Name: "e", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
			c := &p.Spec.Containers[0]
			c.VolumeMounts = []corev1.VolumeMount{{Name: "e", MountPath: "/e"}}
			c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr(false), ReadOnlyRootFilesystem: ptr(true), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}}
		}))
	w.is(out, "1000\n2000\n2000 3000\n3000 2777\nreadonly\nCapEff: 0000000000000000\nNoNewPrivs: 1\nSeccomp: 2")
	w.delete("sec")
	w.create(pod("root", "true", func(p *corev1.Pod) { p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsNonRoot: ptr(true)} }))
	p := w.until("root", "refused", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) == 1 && p.Status.ContainerStatuses[0].State.Waiting != nil && p.Status.ContainerStatuses[0].State.Waiting.Reason == "CreateContainerConfigError"
	})
	if m := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(m, "image will run as root") {
		w.t.Errorf("message %q", m)
	}
	w.delete("root")
}

func testMemory(w *world) {
	_, p := w.script(pod("oom", "x=$(dd if=/dev/zero bs=1M count=100 2>/dev/null | busybox tr '\\0' x); echo survived", func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("20Mi")}
	}))
	end := p.Status.ContainerStatuses[0].State.Terminated
	if end == nil || end.Reason != "OOMKilled" || end.ExitCode != 137 {
		w.t.Errorf("%+v", end)
	}
	w.delete("oom")
}

func testProbes(w *world) {
	w.create(pod("probe", "mkdir /www; touch /www/ok; httpd -p 127.0.0.1:18931 -h /www; sleep 1000", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyAlways
		c := &p.Spec.Containers[0]
		c.StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 30, ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: portOf(18931)}}}
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/ok", Port: portOf(18931)}}}
		c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, TerminationGracePeriodSeconds: ptr(int64(1)),
			ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "! stat /www/die"}}}}
	}))
	p := w.until("probe", "ready", running)
	w.exec(p, "/bin/busybox", "rm", "/www/ok")
	w.until("probe", "unready", func(p *corev1.Pod) bool { return p != nil && !ready(p) })
	w.exec(p, "/bin/touch", "/www/die")
	w.until("probe", "restarted and ready", func(p *corev1.Pod) bool {
		return running(p) && p.Status.ContainerStatuses[0].RestartCount == 1
	})
	if e := w.events("probe"); !strings.Contains(e, "Readiness probe failed: HTTP probe failed with statuscode: 404") || !strings.Contains(e, "failed liveness probe, will be restarted") {
		w.t.Errorf("events:\n%s", e)
	}
	w.delete("probe")
}

// exec runs a command in the pod's only container.
func (w *world) exec(p *corev1.Pod, cmd ...string) {
	w.t.Helper()
	id := strings.TrimPrefix(p.Status.ContainerStatuses[0].ContainerID, "containerd://")
	r, err := w.rt.ExecSync(w.t.Context(), id, cmd, 10*time.Second)
	if err != nil || r.ExitCode != 0 {
		w.t.Fatalf("%v: %+v %v", cmd, r, err)
	}
}

func testStop(w *world) {
	dir := w.t.TempDir()
	w.create(pod("stop", "trap 'echo term >> /h/log; exit 0' TERM; while true; do sleep 0.1; done", func(p *corev1.Pod) {
		p.Spec.RestartPolicy = corev1.RestartPolicyAlways
		p.Spec.Volumes = []corev1.Volume{{Name: "h", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}}}}
		c := &p.Spec.Containers[0]
		c.VolumeMounts = []corev1.VolumeMount{{Name: "h", MountPath: "/h"}}
		c.Lifecycle = &corev1.Lifecycle{
			PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "echo post >> /h/log"}}},
			PreStop:   &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"/bin/sh", "-c", "echo pre >> /h/log"}}}}
	}))
	w.until("stop", "running", running)
	w.delete("stop")
	b, _ := os.ReadFile(filepath.Join(dir, "log"))
	w.is(string(b), "post\npre\nterm")
}

func testTakeover(w *world) {
	w.create(pod("keep", "sleep 1000"), pod("crash", "sleep 0.2; exit 1", func(p *corev1.Pod) { p.Spec.RestartPolicy = corev1.RestartPolicyAlways }))
	before := w.until("keep", "running", running)
	w.until("crash", "restarted", func(p *corev1.Pod) bool {
		return p != nil && len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].RestartCount >= 1
	})
	w.stop()
	w.start()
	w.create(pod("after", "sleep 1000"))
	w.until("after", "running", running) // the new agent works
	after := w.until("keep", "running", running)
	if a, b := after.Status.ContainerStatuses[0], before.Status.ContainerStatuses[0]; a.ContainerID != b.ContainerID || a.RestartCount != 0 {
		w.t.Errorf("before %+v\nafter %+v", b, a)
	}
	w.until("crash", "restarted again, counting on", func(p *corev1.Pod) bool { return p != nil && p.Status.ContainerStatuses[0].RestartCount >= 2 })
	for _, n := range []string{"keep", "crash", "after"} {
		w.delete(n)
	}
}

func testLogs(w *world) {
	w.create(pod("logs", "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three; sleep 1; echo four; exit 0"))
	w.until("logs", "started", func(p *corev1.Pod) bool { return p != nil && (running(p) || ended(p)) })
	w.is(w.logs("logs", func(o *corev1.PodLogOptions) { o.Follow = true }), "one\ntwo\nthree\nfour")
	w.is(w.logs("logs", func(o *corev1.PodLogOptions) { o.TailLines = ptr(int64(2)) }), "three\nfour")
	if line := w.logs("logs", func(o *corev1.PodLogOptions) { o.TailLines, o.Timestamps = ptr(int64(1)), true }); !strings.HasSuffix(line, "Z four\n") {
		w.t.Errorf("with time: %q", line)
	}
	w.delete("logs")
}

func testNothingLeft(w *world) {
	if list, err := w.rt.ListPodSandbox(w.t.Context(), nil); err != nil || len(list) > 0 {
		w.t.Errorf("sandboxes %v %v", list, err)
	}
	for _, dir := range []string{"pods", "pods-logs"} {
		if left, _ := os.ReadDir(filepath.Join(w.dir, dir)); len(left) > 0 {
			w.t.Errorf("%s: %v", dir, left)
		}
	}
	out, _ := exec.Command("sh", "-c", "find /sys/fs/cgroup -path '*"+testCgroup+"/*' -name 'pod*'").Output()
	if len(out) > 0 {
		w.t.Errorf("control groups left:\n%s", out)
	}
	// The tmpfs for what is secret, DATA/pods-memory, is the node's and stays.
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); strings.Contains(string(mounts), w.dir+"/pods/") {
		w.t.Errorf("mounts left:\n%s", mounts)
	}
}
