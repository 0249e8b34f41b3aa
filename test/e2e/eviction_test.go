package e2e

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Pods that fill the disk beyond what they may are ended; others beside them are not.
func TestPodsThatFillTheDiskAreEvicted(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	pod := func(name, spec, command string) string {
		return manifest(name, `
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: "docker.io/library/busybox:1", command: [sh, -c, "`+command+`; sleep 3600"], `+spec)
	}
	fill := func(file, mb string) string { return "dd if=/dev/zero of=" + file + " bs=1M count=" + mb }
	const volume = "volumeMounts: [{name: v, mountPath: /v}]}\n  volumes: [{name: v, emptyDir: {sizeLimit: 4Mi}}]"
	const limit = "resources: {limits: {ephemeral-storage: 4Mi}}}"
	apply(t, ns, pod("volume", volume, fill("/v/file", "8"))+pod("layer", limit, fill("/file", "8"))+pod("modest", volume, fill("/v/file", "1")))
	for name, want := range map[string]string{
		"volume": `Usage of EmptyDir volume "v" exceeds the limit "4Mi"`,
		"layer":  "ephemeral",
	} {
		p := awaitPod(t, ns, name, 120*time.Second, "evicted", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodFailed })
		if p.Status.Reason != "Evicted" || !strings.Contains(p.Status.Message, want) {
			t.Errorf("%s ended with %s %q, want Evicted with %q", name, p.Status.Reason, p.Status.Message, want)
		}
	}
	awaitPod(t, ns, "modest", 60*time.Second, "Ready", ready)
}
