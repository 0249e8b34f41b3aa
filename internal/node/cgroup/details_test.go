package cgroup

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDetails(t *testing.T) {
	const group = "k/kubepods/burstable/podu/c/"
	for name, files := range map[string]map[string]string{
		"version 1": {
			"memory/cgroup.procs": "", "cpu/cgroup.procs": "", "cpuacct/cgroup.procs": "",
			"cpuacct/" + group + "cpuacct.stat":                             "user 100\nsystem 50\n",
			"cpu/" + group + "cpu.stat":                                     "nr_periods 10\nnr_throttled 4\nthrottled_time 7000000\n",
			"cpu/" + group + "cpu.shares":                                   "1024\n",
			"cpu/" + group + "cpu.cfs_quota_us":                             "20000\n",
			"cpu/" + group + "cpu.cfs_period_us":                            "100000\n",
			"memory/" + group + "memory.stat":                               "cache 1\ntotal_cache 300\ntotal_swap 5\n",
			"memory/" + group + "memory.limit_in_bytes":                     "4000\n",
			"memory/" + group + "memory.soft_limit_in_bytes":                "9223372036854771712\n",
			"memory/" + group + "memory.memsw.limit_in_bytes":               "5000\n",
			"blkio/" + group + "blkio.throttle.io_serviced_recursive":       "8:0 Read 3\n8:0 Write 2\n8:0 Total 5\nTotal 5\n",
			"blkio/" + group + "blkio.throttle.io_service_bytes_recursive":  "8:0 Read 3000\n8:0 Write 2000\nTotal 5000\n",
			"memory/k/kubepods/burstable/podu/memory.stat":                  "total_cache 301\n",
			"cpu/k/kubepods/burstable/podu/cpu.cfs_quota_us":                "-1\n",
			"blkio/k/kubepods/burstable/podu/blkio.throttle.io_serviced_re": "of no matter\n",
		},
		"version 2": {
			"cgroup.controllers":                       "cpu memory",
			group + "cpu.stat":                         "usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 7000\n",
			group + "cpu.weight":                       "39\n",
			group + "cpu.max":                          "20000 100000\n",
			group + "memory.stat":                      "anon 1\nfile 300\n",
			group + "memory.swap.current":              "5\n",
			group + "memory.max":                       "4000\n",
			group + "memory.low":                       "0\n",
			group + "memory.swap.max":                  "5000\n",
			group + "io.stat":                          "8:0 rbytes=3000 wbytes=2000 rios=3 wios=2 dbytes=0 dios=0\n",
			"k/kubepods/burstable/podu/memory.stat":    "file 301\n",
			"k/kubepods/burstable/podu/cpu.max":        "max 100000\n",
			"k/kubepods/burstable/podu/memory.max":     "max\n",
			"k/kubepods/burstable/podu/memory.current": "1\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			lay(t, dir, files)
			m, err := New(dir, "/k")
			if err != nil {
				t.Fatal(err)
			}
			got, err := m.Details("u", "c")
			want := Details{
				Path: "/k/kubepods/burstable/podu/c", User: 1e9, System: 5e8, Cache: 300, Swap: 5, Shares: 1024, Quota: 20000, Period: 100000,
				Periods: 10, Throttled: 4, ThrottledTime: 7000000, MemoryLimit: 4000, SwapLimit: 5000,
				Disks: []Disk{{Device: "8:0", Reads: 3, Writes: 2, ReadBytes: 3000, WrittenBytes: 2000}},
			}
			if name == "version 2" {
				want.Shares = 998 // the mapping loses a little
			}
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%v (-want +got)\n%s", err, diff)
			}
			if pod, err := m.Details("u", ""); err != nil || pod.Cache != 301 || pod.Quota != 0 || pod.MemoryLimit != 0 {
				t.Errorf("the pod's own: %+v, %v", pod, err)
			}
			if _, err := m.Details("other", ""); err == nil {
				t.Error("a pod without a group has details")
			}
		})
	}
}
