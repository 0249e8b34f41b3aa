package cgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/knarr-io/knarr/internal/node/podspec"
)

// lay writes files below dir.
func lay(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUsage(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"version 1": {
			"cpuacct/k/kubepods/burstable/podu/cpuacct.usage":         "5000000\n",
			"memory/k/kubepods/burstable/podu/memory.usage_in_bytes":  "1000\n",
			"memory/k/kubepods/burstable/podu/memory.stat":            "rss 1\ntotal_inactive_file 300\ntotal_rss 200\ntotal_pgfault 7\ntotal_pgmajfault 2\n",
			"memory/k/kubepods/burstable/podu/memory.limit_in_bytes":  "4000\n",
			"memory/k/kubepods/burstable/podu/container/cgroup.procs": "12\n13\n",
			"memory/cgroup.procs": "", "cpu/cgroup.procs": "", "cpuacct/cgroup.procs": "",
		},
		"version 2": {
			"k/kubepods/burstable/podu/cpu.stat":               "usage_usec 5000\nuser_usec 1\n",
			"k/kubepods/burstable/podu/memory.current":         "1000\n",
			"k/kubepods/burstable/podu/memory.stat":            "anon 200\ninactive_file 300\npgfault 7\npgmajfault 2\n",
			"k/kubepods/burstable/podu/memory.max":             "4000\n",
			"k/kubepods/burstable/podu/container/cgroup.procs": "12\n13\n",
			"cgroup.controllers":                               "cpu memory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lay(t, dir, files)
			m, err := New(dir, "/k")
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.PodUsage("u")
			want := Usage{CPU: 5000000, Memory: 1000, WorkingSet: 700, RSS: 200, PageFaults: 7, MajorPageFaults: 2, MemoryLimit: 4000}
			if err != nil || got != want {
				t.Errorf("got %+v, %v; want %+v", got, err, want)
			}
			if pids, err := m.Processes("u", "container"); err != nil || len(pids) != 2 || pids[0] != 12 {
				t.Errorf("processes %v, %v", pids, err)
			}
			if _, err := m.PodUsage("other"); err == nil {
				t.Error("a pod without a group was measured")
			}
		})
	}
}

// The root of version 2 has no memory.current: what is not free counts, as the kernel says in /proc/meminfo.
func TestMachineUsageV2(t *testing.T) {
	dir := t.TempDir()
	lay(t, dir, map[string]string{"cgroup.controllers": "cpu memory", "cpu.stat": "usage_usec 5000\n", "memory.stat": "anon 200\n"})
	m, err := New(dir, "/k")
	if err != nil {
		t.Fatal(err)
	}
	u, err := m.MachineUsage()
	if err != nil || u.CPU != 5000000 || u.Memory == 0 {
		t.Errorf("%+v, %v", u, err)
	}
}

func TestRaise(t *testing.T) {
	type limits struct{ memory, quota string }
	for _, test := range []struct {
		name       string
		v2         bool
		have, want limits
		r          podspec.PodResources
	}{
		{"grows", false, limits{"1000", "10000"}, limits{"2000", "20000"}, podspec.PodResources{MemoryLimit: 2000, Quota: 20000}},
		{"does not shrink", false, limits{"1000", "10000"}, limits{"1000", "10000"}, podspec.PodResources{MemoryLimit: 500, Quota: 5000}},
		{"no limit any more", false, limits{"1000", "10000"}, limits{"-1", "-1"}, podspec.PodResources{}},
		{"none is more than any", false, limits{"9223372036854771712", "-1"}, limits{"9223372036854771712", "-1"}, podspec.PodResources{MemoryLimit: 5, Quota: 5000}},
		{"version 2 grows", true, limits{"1000", "10000 100000"}, limits{"2000", "20000 100000"}, podspec.PodResources{MemoryLimit: 2000, Quota: 20000}},
		{"version 2 has none", true, limits{"max", "max 100000"}, limits{"max", "max 100000"}, podspec.PodResources{MemoryLimit: 2000, Quota: 20000}},
		{"version 2, no limit any more", true, limits{"1000", "10000 100000"}, limits{"max", "max 100000"}, podspec.PodResources{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			memory, quota := "memory/k/kubepods/podu/memory.limit_in_bytes", "cpu/k/kubepods/podu/cpu.cfs_quota_us"
			files := map[string]string{"memory/cgroup.procs": "", "cpu/cgroup.procs": ""}
			if test.v2 {
				memory, quota = "k/kubepods/podu/memory.max", "k/kubepods/podu/cpu.max"
				files = map[string]string{"cgroup.controllers": "cpu memory"}
			}
			files[memory], files[quota] = test.have.memory+"\n", test.have.quota+"\n"
			lay(t, dir, files)
			m, err := New(dir, "/k")
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Raise("u", test.r); err != nil {
				t.Fatal(err)
			}
			got := limits{strings.TrimSpace(read(t, filepath.Join(dir, memory))), strings.TrimSpace(read(t, filepath.Join(dir, quota)))}
			if got != test.want {
				t.Errorf("%+v, want %+v", got, test.want)
			}
		})
	}
}
