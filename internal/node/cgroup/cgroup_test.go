package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/podspec"
)

// tree makes a directory that looks like /sys/fs/cgroup: with files, because the kernel makes them with each group.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, f := range files {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte("cpu memory pids"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestV1(t *testing.T) {
	mount := tree(t, "cpu/cgroup.procs", "memory/cgroup.procs", "pids/cgroup.procs", "unified/cgroup.other")
	m, err := New(mount, "knarr")
	if err != nil || m.V2() {
		t.Fatal(m, err)
	}
	group, err := m.Setup("u1", podspec.PodResources{QOS: corev1.PodQOSBurstable, Shares: 102, Quota: 20000, MemoryLimit: 1 << 20})
	if err != nil || group != "/knarr/kubepods/burstable/podu1" {
		t.Fatal(group, err)
	}
	for f, want := range map[string]string{"cpu/cpu.shares": "102", "cpu/cpu.cfs_quota_us": "20000", "memory/memory.limit_in_bytes": "1048576"} {
		c, name := filepath.Split(f)
		if got := read(t, filepath.Join(mount, c, group, name)); got != want {
			t.Errorf("%s = %s, want %s", f, got, want)
		}
	}
	if g, err := m.Setup("u2", podspec.PodResources{QOS: corev1.PodQOSGuaranteed, Shares: 1024}); err != nil || g != "/knarr/kubepods/podu2" {
		t.Error(g, err)
	}
	pods := m.Pods()
	slices.Sort(pods)
	if !slices.Equal(pods, []string{"u1", "u2"}) {
		t.Errorf("pods %v", pods)
	}
}

func TestV2(t *testing.T) {
	mount := tree(t, "cgroup.controllers")
	m, err := New(mount, "/knarr")
	if err != nil || !m.V2() {
		t.Fatal(m, err)
	}
	group, err := m.Setup("u1", podspec.PodResources{QOS: corev1.PodQOSBestEffort, Shares: 2})
	if err != nil {
		t.Fatal(err)
	}
	if w := read(t, filepath.Join(mount, group, "cpu.weight")); w != "1" {
		t.Errorf("weight %s", w)
	}
	if q := read(t, filepath.Join(mount, group, "cpu.max")); q != "max 100000" {
		t.Errorf("max %s", q)
	}
}

func TestRemoveOnRealGroups(t *testing.T) {
	const mount = "/sys/fs/cgroup"
	if os.Getuid() != 0 {
		t.Skip("making control groups needs root")
	}
	m, err := New(mount, "/knarr-cgroup-test")
	if err != nil {
		t.Skipf("no control groups can be made here: %v", err)
	}
	defer func() {
		for _, b := range m.bases() {
			if err := removeTree(filepath.Join(b, "knarr-cgroup-test")); err != nil {
				t.Error(err)
			}
		}
	}()
	group, err := m.Setup("u", podspec.PodResources{QOS: corev1.PodQOSBurstable, Shares: 512, Quota: 50000, MemoryLimit: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	child := filepath.Join(m.bases()[0], group, "container")
	if err := os.MkdirAll(child, 0o755); err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(m.Pods(), "u") {
		t.Errorf("pods %v", m.Pods())
	}
	for range 2 {
		if err := m.Remove("u"); err != nil {
			t.Fatal(err)
		}
	}
	if slices.Contains(m.Pods(), "u") {
		t.Error("the group is still there")
	}
}

func TestRootMustNotBeTheMachines(t *testing.T) {
	for _, root := range []string{"", "/", "."} {
		if _, err := New(t.TempDir(), root); err == nil {
			t.Errorf("root %q was taken", root)
		}
	}
}
