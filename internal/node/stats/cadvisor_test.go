package stats

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/node/cgroup"
)

// The series, labels and values that dashboards and alerts for Kubernetes ask for.
func TestCadvisor(t *testing.T) {
	s := at(0, 100.5, 10, noon.Add(-time.Hour)).Summary
	s.Node.Fs = &stats.FsStats{Time: metav1.NewTime(noon), CapacityBytes: ptr(uint64(900)), UsedBytes: ptr(uint64(9))}
	p := &s.Pods[0]
	p.Network = &stats.NetworkStats{Time: metav1.NewTime(noon), Interfaces: []stats.InterfaceStats{{Name: "eth0", RxBytes: ptr(uint64(7))}}}
	p.Containers[0].Memory.MajorPageFaults = ptr(uint64(3))
	groups := Groups{
		Pod:     Group{Details: cgroup.Details{Path: "/k/podu", Shares: 2}},
		Sandbox: Group{Details: cgroup.Details{Path: "/k/podu/s"}, Name: "s", Image: "pause:1"},
		Containers: map[string]Group{"c": {Name: "id", Image: "img:1", Details: cgroup.Details{
			Path: "/k/podu/id", User: 15e8, Cache: 11, Quota: 20000, Period: 100000, Periods: 10, Throttled: 4, ThrottledTime: 25e7, MemoryLimit: 4000,
			Disks: []cgroup.Disk{{Device: "/dev/sda", Reads: 3, ReadBytes: 3000, WrittenBytes: 2000}},
		}}},
		Interfaces: ReadInterfaces(strings.NewReader(`Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0     0       0          0
  eth0:       7      12    0    5    0     0          0         0        9      13    0    6    0     0       0          0
`)),
	}
	var out strings.Builder
	if err := Cadvisor(&out, &s, map[string]Groups{"u": groups}, Machine{Cores: 4, Memory: 1024, Disk: "/dev/sda1"}); err != nil {
		t.Fatal(err)
	}
	const (
		ms      = " 1772625600000\n"
		root    = `container="",id="/",image="",name="",namespace="",pod=""`
		c       = `container="c",id="/k/podu/id",image="img:1",name="id",namespace="d",pod="p"`
		pod     = `container="",id="/k/podu",image="",name="",namespace="d",pod="p"`
		sandbox = `container="",id="/k/podu/s",image="pause:1",interface="eth0",name="s",namespace="d",pod="p"`
	)
	for _, want := range []string{
		"machine_cpu_cores 4\n", "machine_memory_bytes 1024\n",
		`container_cpu_usage_seconds_total{container="",cpu="total",id="/",image="",name="",namespace="",pod=""} 100.5` + ms,
		`container_cpu_usage_seconds_total{container="c",cpu="total",id="/k/podu/id",image="img:1",name="id",namespace="d",pod="p"} 10` + ms,
		"container_memory_usage_bytes{" + pod + "} 6291456" + ms,
		"container_memory_cache{" + c + "} 11" + ms,
		`container_memory_failures_total{container="c",failure_type="pgmajfault",id="/k/podu/id",image="img:1",name="id",namespace="d",pod="p",scope="container"} 3` + ms,
		"container_cpu_user_seconds_total{" + c + "} 1.5" + ms,
		"container_cpu_cfs_periods_total{" + c + "} 10" + ms,
		"container_cpu_cfs_throttled_periods_total{" + c + "} 4" + ms,
		"container_cpu_cfs_throttled_seconds_total{" + c + "} 0.25" + ms,
		"container_spec_cpu_quota{" + c + "} 20000" + ms,
		"container_spec_cpu_period{" + c + "} 100000" + ms,
		"container_spec_cpu_shares{" + pod + "} 2" + ms,
		"container_spec_memory_limit_bytes{" + c + "} 4000" + ms,
		"container_spec_memory_limit_bytes{" + pod + "} 0" + ms,
		`container_fs_reads_bytes_total{container="c",device="/dev/sda",id="/k/podu/id",image="img:1",name="id",namespace="d",pod="p"} 3000` + ms,
		`container_fs_limit_bytes{container="",device="/dev/sda1",id="/",image="",name="",namespace="",pod=""} 900` + ms,
		"container_network_receive_bytes_total{" + sandbox + "} 7" + ms,
		"container_network_receive_packets_total{" + sandbox + "} 12" + ms,
		"container_network_receive_packets_dropped_total{" + sandbox + "} 5" + ms,
		"container_network_transmit_packets_total{" + sandbox + "} 13" + ms,
		"container_network_transmit_packets_dropped_total{" + sandbox + "} 6" + ms,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	for _, bad := range []string{
		"container_cpu_cfs_periods_total{" + pod, // without a quota nothing is throttled
		"container_spec_cpu_quota{" + pod, `interface="lo"`, "container_memory_cache{" + root,
	} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%s in\n%s", bad, out.String())
		}
	}
	problems, err := promlint.New(strings.NewReader(out.String())).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
