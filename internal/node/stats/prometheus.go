package stats

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// family is one metric with all its series, in the text form that Prometheus reads.
type family struct {
	name, kind, help string
	lines            []string
}

// add adds a series. labels are names and values in turn.
func (f *family) add(value string, at time.Time, labels ...string) {
	var b strings.Builder
	b.WriteString(f.name)
	for i := 0; i+1 < len(labels); i += 2 {
		b.WriteByte("{,"[min(i, 1)])
		fmt.Fprintf(&b, `%s="%s"`, labels[i], escape(labels[i+1]))
	}
	if len(labels) > 1 {
		b.WriteByte('}')
	}
	b.WriteByte(' ')
	b.WriteString(value)
	if !at.IsZero() {
		fmt.Fprintf(&b, " %d", at.UnixMilli())
	}
	f.lines = append(f.lines, b.String())
}

func escape(v string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`).Replace(v)
}

func (f *family) count(v *uint64, at time.Time, labels ...string) {
	if v != nil {
		f.add(strconv.FormatUint(*v, 10), at, labels...)
	}
}

func (f *family) seconds(c *stats.CPUStats, labels ...string) {
	if c != nil && c.UsageCoreNanoSeconds != nil {
		f.add(strconv.FormatFloat(float64(*c.UsageCoreNanoSeconds)/1e9, 'f', -1, 64), c.Time.Time, labels...)
	}
}

func (f *family) workingSet(m *stats.MemoryStats, labels ...string) {
	if m != nil {
		f.count(m.WorkingSetBytes, m.Time.Time, labels...)
	}
}

func write(w io.Writer, families []*family) error {
	for _, f := range families {
		if len(f.lines) == 0 {
			continue
		}
		if _, err := fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n%s\n", f.name, f.help, f.name, f.kind, strings.Join(f.lines, "\n")); err != nil {
			return err
		}
	}
	return nil
}

// Resource writes what the kubelet's /metrics/resource has
// (https://kubernetes.io/docs/reference/instrumentation/node-metrics/), from which metrics-server works.
func Resource(w io.Writer, s *stats.Summary) error {
	containerCPU := &family{name: "container_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed by the container in core-seconds"}
	containerMemory := &family{name: "container_memory_working_set_bytes", kind: "gauge", help: "Current working set of the container in bytes"}
	containerStart := &family{name: "container_start_time_seconds", kind: "gauge", help: "Start time of the container since unix epoch in seconds"}
	nodeCPU := &family{name: "node_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed by the node in core-seconds"}
	nodeMemory := &family{name: "node_memory_working_set_bytes", kind: "gauge", help: "Current working set of the node in bytes"}
	podCPU := &family{name: "pod_cpu_usage_seconds_total", kind: "counter", help: "Cumulative cpu time consumed by the pod in core-seconds"}
	podMemory := &family{name: "pod_memory_working_set_bytes", kind: "gauge", help: "Current working set of the pod in bytes"}
	failed := &family{name: "resource_scrape_error", kind: "gauge", help: "1 if there was an error while getting container metrics, 0 otherwise"}
	failed.add("0", time.Time{})
	nodeCPU.seconds(s.Node.CPU)
	nodeMemory.workingSet(s.Node.Memory)
	for i := range s.Pods {
		p := &s.Pods[i]
		pod := []string{"namespace", p.PodRef.Namespace, "pod", p.PodRef.Name}
		podCPU.seconds(p.CPU, pod...)
		podMemory.workingSet(p.Memory, pod...)
		for j := range p.Containers {
			c := &p.Containers[j]
			labels := append([]string{"container", c.Name}, pod...)
			containerCPU.seconds(c.CPU, labels...)
			containerMemory.workingSet(c.Memory, labels...)
			containerStart.add(unixSeconds(c.StartTime.Time), time.Time{}, labels...)
		}
	}
	return write(w, []*family{containerCPU, containerMemory, containerStart, nodeCPU, nodeMemory, podCPU, podMemory, failed})
}

func unixSeconds(t time.Time) string {
	return strconv.FormatFloat(float64(t.UnixMilli())/1000, 'f', 3, 64)
}

// Cadvisor writes what dashboards for Kubernetes read from the kubelet's /metrics/cadvisor: per container what it uses, per pod its
// network, and what the machine has. A pod's own figures have an empty container label, and those of the whole machine the id "/",
// as cAdvisor's.
func Cadvisor(w io.Writer, s *stats.Summary, cores int64, memory int64) error {
	f := map[string]*family{}
	var order []*family
	get := func(name, kind, help string) *family {
		if f[name] == nil {
			f[name] = &family{name: name, kind: kind, help: help}
			order = append(order, f[name])
		}
		return f[name]
	}
	machine := get("machine_cpu_cores", "gauge", "Number of logical CPU cores.")
	machine.add(strconv.FormatInt(cores, 10), time.Time{})
	get("machine_memory_bytes", "gauge", "Amount of memory installed on the machine.").add(strconv.FormatInt(memory, 10), time.Time{})
	one := func(cpu *stats.CPUStats, mem *stats.MemoryStats, labels ...string) {
		get("container_cpu_usage_seconds_total", "counter", "Cumulative cpu time consumed in seconds.").seconds(cpu, labels...)
		if mem == nil {
			return
		}
		at := mem.Time.Time
		get("container_memory_usage_bytes", "gauge", "Current memory usage in bytes, including all memory regardless of when it was accessed").count(mem.UsageBytes, at, labels...)
		get("container_memory_working_set_bytes", "gauge", "Current working set in bytes.").count(mem.WorkingSetBytes, at, labels...)
		get("container_memory_rss", "gauge", "Size of RSS in bytes.").count(mem.RSSBytes, at, labels...)
		if mem.MajorPageFaults != nil {
			faults := get("container_memory_failures_total", "counter", "Cumulative count of memory allocation failures.")
			faults.count(mem.MajorPageFaults, at, append([]string{"failure_type", "pgmajfault"}, labels...)...)
		}
	}
	one(s.Node.CPU, s.Node.Memory, "id", "/")
	for i := range s.Pods {
		p := &s.Pods[i]
		pod := []string{"namespace", p.PodRef.Namespace, "pod", p.PodRef.Name}
		one(p.CPU, p.Memory, append([]string{"container", ""}, pod...)...)
		if p.Network != nil {
			for _, n := range p.Network.Interfaces {
				labels, at := append([]string{"interface", n.Name}, pod...), p.Network.Time.Time
				get("container_network_receive_bytes_total", "counter", "Cumulative count of bytes received").count(n.RxBytes, at, labels...)
				get("container_network_receive_errors_total", "counter", "Cumulative count of errors encountered while receiving").count(n.RxErrors, at, labels...)
				get("container_network_transmit_bytes_total", "counter", "Cumulative count of bytes transmitted").count(n.TxBytes, at, labels...)
				get("container_network_transmit_errors_total", "counter", "Cumulative count of errors encountered while transmitting").count(n.TxErrors, at, labels...)
			}
		}
		for j := range p.Containers {
			c := &p.Containers[j]
			labels := append([]string{"container", c.Name}, pod...)
			one(c.CPU, c.Memory, labels...)
			get("container_start_time_seconds", "gauge", "Start time of the container since unix epoch in seconds.").add(unixSeconds(c.StartTime.Time), time.Time{}, labels...)
			if c.Rootfs != nil {
				get("container_fs_usage_bytes", "gauge", "Number of bytes that are consumed by the container on this filesystem.").count(c.Rootfs.UsedBytes, c.Rootfs.Time.Time, labels...)
			}
		}
	}
	return write(w, order)
}
