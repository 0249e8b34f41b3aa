package stats

import (
	"bufio"
	"cmp"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/node/cgroup"
)

// Machine is what Cadvisor says of the machine itself.
type Machine struct {
	Cores, Memory int64
	Disk          string // the device of the node's file system, "/dev/sda1"
}

// Group is a control group as cAdvisor names it. A pod's own has neither Name nor Image.
type Group struct {
	cgroup.Details
	Name  string // the runtime's ID of the container or sandbox
	Image string
}

// Groups are the control groups of one pod, and what passed its network interfaces.
type Groups struct {
	Pod, Sandbox Group
	Containers   map[string]Group // by the container's name
	Interfaces   []Interface
}

// Interface counts the packets of a network interface.
type Interface struct {
	Name                                       string
	RxPackets, RxDropped, TxPackets, TxDropped uint64
}

// ReadInterfaces reads a network namespace's interfaces, but for the loopback one, as in /proc/PID/net/dev (proc_pid_net(5)).
func ReadInterfaces(r io.Reader) (out []Interface) {
	for s := bufio.NewScanner(r); s.Scan(); {
		name, rest, ok := strings.Cut(strings.TrimSpace(s.Text()), ":")
		figures := strings.Fields(rest)
		if !ok || len(figures) < 12 || name == "lo" {
			continue
		}
		at := func(i int) uint64 {
			n, _ := strconv.ParseUint(figures[i], 10, 64)
			return n
		}
		out = append(out, Interface{Name: name, RxPackets: at(1), RxDropped: at(3), TxPackets: at(9), TxDropped: at(11)})
	}
	return out
}

// Cadvisor writes what dashboards and alerts for Kubernetes read from the kubelet's /metrics/cadvisor, under cAdvisor's names and with
// its labels: per control group what it uses and may use, per pod its network, and what the machine has. A pod's own figures have an
// empty container label, and those of the whole machine the id "/". groups are by the pods' UIDs; a pod without any is on a hollow node.
func Cadvisor(w io.Writer, s *stats.Summary, groups map[string]Groups, m Machine) error {
	c := cadvisor{families: map[string]*family{}}
	c.add("machine_cpu_cores", "gauge", "Number of logical CPU cores.", strconv.FormatInt(m.Cores, 10), time.Time{})
	c.add("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.", strconv.FormatInt(m.Memory, 10), time.Time{})
	root := owner{group: Group{Details: cgroup.Details{Path: "/"}}}
	c.usage(root, s.Node.CPU, s.Node.Memory)
	if fs := s.Node.Fs; fs != nil {
		c.fileSystem(root, fs, m.Disk)
	}
	for i := range s.Pods {
		p := &s.Pods[i]
		g := groups[p.PodRef.UID]
		o := owner{group: g.Pod, namespace: p.PodRef.Namespace, pod: p.PodRef.Name}
		c.usage(o, p.CPU, p.Memory)
		c.details(o, statTime(p.CPU))
		o.group = g.Sandbox
		c.network(o, p.Network, g.Interfaces)
		for j := range p.Containers {
			k := &p.Containers[j]
			o.group, o.container = g.Containers[k.Name], k.Name
			c.usage(o, k.CPU, k.Memory)
			c.details(o, statTime(k.CPU))
			c.add("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.", unixSeconds(k.StartTime.Time), time.Time{}, o.labels()...)
			if k.Rootfs != nil {
				c.fileSystem(o, k.Rootfs, "")
			}
		}
	}
	return write(w, slices.SortedFunc(maps.Values(c.families), func(a, b *family) int { return cmp.Compare(a.name, b.name) }))
}

func statTime(c *stats.CPUStats) time.Time {
	if c == nil {
		return time.Time{}
	}
	return c.Time.Time
}

// owner is who a series is about.
type owner struct {
	group                     Group
	namespace, pod, container string
}

// labels returns those that every series has, and more, sorted by name.
func (o owner) labels(more ...string) []string {
	pairs := append([]string{"container", o.container, "id", o.group.Path, "image", o.group.Image, "name", o.group.Name, "namespace", o.namespace, "pod", o.pod}, more...)
	sorted := slices.SortedFunc(slices.Chunk(pairs, 2), slices.Compare)
	return slices.Concat(sorted...)
}

// cadvisor collects families by name.
type cadvisor struct{ families map[string]*family }

func (c *cadvisor) family(name, kind, help string) *family {
	if c.families[name] == nil {
		c.families[name] = &family{name: name, kind: kind, help: help}
	}
	return c.families[name]
}

func (c *cadvisor) add(name, kind, help, value string, at time.Time, labels ...string) {
	c.family(name, kind, help).add(value, at, labels...)
}

// usage writes what processors and memory a group uses.
func (c *cadvisor) usage(o owner, cpu *stats.CPUStats, mem *stats.MemoryStats) {
	c.family("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.").seconds(cpu, o.labels("cpu", "total")...)
	if mem == nil {
		return
	}
	at, labels := mem.Time.Time, o.labels()
	c.family("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory regardless of when it was accessed").count(mem.UsageBytes, at, labels...)
	c.family("container_memory_working_set_bytes", "gauge", "Current working set in bytes.").count(mem.WorkingSetBytes, at, labels...)
	c.family("container_memory_rss", "gauge", "Size of RSS in bytes.").count(mem.RSSBytes, at, labels...)
	faults := c.family("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.")
	for _, scope := range []string{"container", "hierarchy"} {
		faults.count(mem.PageFaults, at, o.labels("failure_type", "pgfault", "scope", scope)...)
		faults.count(mem.MajorPageFaults, at, o.labels("failure_type", "pgmajfault", "scope", scope)...)
	}
}

// fileSystem writes what is used of one, and its size where the group is the machine, whose file system it is.
func (c *cadvisor) fileSystem(o owner, fs *stats.FsStats, device string) {
	at, labels := fs.Time.Time, o.labels("device", device)
	c.family("container_fs_usage_bytes", "gauge", "Number of bytes that are consumed by the container on this filesystem.").count(fs.UsedBytes, at, labels...)
	if o.pod != "" {
		return
	}
	c.family("container_fs_limit_bytes", "gauge", "Number of bytes that can be consumed by the container on this filesystem.").count(fs.CapacityBytes, at, labels...)
	c.family("container_fs_inodes_total", "gauge", "Number of Inodes").count(fs.Inodes, at, labels...)
	c.family("container_fs_inodes_free", "gauge", "Number of available Inodes").count(fs.InodesFree, at, labels...)
}

// network writes a pod's. Where its packets are not known there are its bytes alone.
func (c *cadvisor) network(o owner, n *stats.NetworkStats, packets []Interface) {
	if n == nil {
		return
	}
	for _, i := range n.Interfaces {
		labels, at := o.labels("interface", i.Name), n.Time.Time
		c.family("container_network_receive_bytes_total", "counter", "Cumulative count of bytes received").count(i.RxBytes, at, labels...)
		c.family("container_network_receive_errors_total", "counter", "Cumulative count of errors encountered while receiving").count(i.RxErrors, at, labels...)
		c.family("container_network_transmit_bytes_total", "counter", "Cumulative count of bytes transmitted").count(i.TxBytes, at, labels...)
		c.family("container_network_transmit_errors_total", "counter", "Cumulative count of errors encountered while transmitting").count(i.TxErrors, at, labels...)
	}
	for _, i := range packets {
		labels, at := o.labels("interface", i.Name), n.Time.Time
		c.family("container_network_receive_packets_total", "counter", "Cumulative count of packets received").count(&i.RxPackets, at, labels...)
		c.family("container_network_receive_packets_dropped_total", "counter", "Cumulative count of packets dropped while receiving").count(&i.RxDropped, at, labels...)
		c.family("container_network_transmit_packets_total", "counter", "Cumulative count of packets transmitted").count(&i.TxPackets, at, labels...)
		c.family("container_network_transmit_packets_dropped_total", "counter", "Cumulative count of packets dropped while transmitting").count(&i.TxDropped, at, labels...)
	}
}

// details writes what is read from the control group itself; at is when.
func (c *cadvisor) details(o owner, at time.Time) {
	d := o.group.Details
	if d.Path == "" {
		return
	}
	labels := o.labels()
	count := func(name, kind, help string, v uint64) {
		c.family(name, kind, help).count(&v, at, labels...)
	}
	seconds := func(name, help string, ns uint64) {
		c.add(name, "counter", help, strconv.FormatFloat(float64(ns)/1e9, 'f', -1, 64), at, labels...)
	}
	seconds("container_cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds.", d.User)
	seconds("container_cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds.", d.System)
	count("container_memory_cache", "gauge", "Number of bytes of page cache memory.", d.Cache)
	count("container_memory_swap", "gauge", "Container swap usage in bytes.", d.Swap)
	count("container_spec_cpu_period", "gauge", "CPU period of the container.", d.Period)
	count("container_spec_cpu_shares", "gauge", "CPU share of the container.", d.Shares)
	if d.Quota > 0 {
		count("container_spec_cpu_quota", "gauge", "CPU quota of the container.", d.Quota)
		count("container_cpu_cfs_periods_total", "counter", "Number of elapsed enforcement period intervals.", d.Periods)
		count("container_cpu_cfs_throttled_periods_total", "counter", "Number of throttled period intervals.", d.Throttled)
		seconds("container_cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled.", d.ThrottledTime)
	}
	count("container_spec_memory_limit_bytes", "gauge", "Memory limit for the container.", d.MemoryLimit)
	count("container_spec_memory_reservation_limit_bytes", "gauge", "Memory reservation limit for the container.", d.MemoryReservation)
	count("container_spec_memory_swap_limit_bytes", "gauge", "Memory swap limit for the container.", d.SwapLimit)
	for _, disk := range d.Disks {
		labels = o.labels("device", disk.Device)
		count("container_fs_reads_total", "counter", "Cumulative count of reads completed", disk.Reads)
		count("container_fs_reads_bytes_total", "counter", "Cumulative count of bytes read", disk.ReadBytes)
		count("container_fs_writes_total", "counter", "Cumulative count of writes completed", disk.Writes)
		count("container_fs_writes_bytes_total", "counter", "Cumulative count of bytes written", disk.WrittenBytes)
	}
}
