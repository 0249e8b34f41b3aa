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
