package endpoint

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/cgroup"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/stats"
)

// sample measures the node and its pods: counters only, nothing that takes long.
func (e *Endpoint) sample(ctx context.Context) (*stats.Sample, error) {
	list, err := e.Runtime.ListPodSandboxStats(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	s := &stats.Sample{At: now, Summary: kubelet.Summary{Node: e.nodeSample(now), Pods: []kubelet.PodStats{}}}
	for _, one := range list {
		labels := one.GetAttributes().GetLabels()
		w := e.Pods.Get(types.UID(labels[lifecycle.LabelPodUID]))
		if w == nil {
			continue // on its way out, or another's in the same runtime
		}
		s.Summary.Pods = append(s.Summary.Pods, e.podSample(w, one, now))
	}
	return s, nil
}

// nodeSample measures the machine.
func (e *Endpoint) nodeSample(now time.Time) kubelet.NodeStats {
	n := kubelet.NodeStats{NodeName: e.Node, StartTime: metav1.NewTime(e.booted)}
	if u, err := e.Cgroups.MachineUsage(); err == nil {
		n.CPU, n.Memory = cgroupUsage(u, now)
		if total := uint64(amount.Units(*e.Capacity.Memory())); n.Memory.AvailableBytes == nil && total > u.WorkingSet {
			left := total - u.WorkingSet
			n.Memory.AvailableBytes = &left
		}
	}
	if e.Hollow {
		return n
	}
	left, most := machine.Processes()
	running := most - left
	n.Rlimit = &kubelet.RlimitStats{Time: metav1.NewTime(now), MaxPID: &most, NumOfRunningProcesses: &running}
	n.Network = machine.Network(now)
	return n
}

func cgroupUsage(u cgroup.Usage, now time.Time) (*kubelet.CPUStats, *kubelet.MemoryStats) {
	m := &kubelet.MemoryStats{Time: metav1.NewTime(now), UsageBytes: &u.Memory, WorkingSetBytes: &u.WorkingSet, RSSBytes: &u.RSS,
		PageFaults: &u.PageFaults, MajorPageFaults: &u.MajorPageFaults}
	if u.MemoryLimit > u.WorkingSet {
		left := u.MemoryLimit - u.WorkingSet
		m.AvailableBytes = &left
	}
	return &kubelet.CPUStats{Time: metav1.NewTime(now), UsageCoreNanoSeconds: &u.CPU}, m
}

// podSample translates what the runtime measured of one pod. Its control group counts for the whole, where there is one.
func (e *Endpoint) podSample(w *pod.Worker, s *cri.PodSandboxStats, now time.Time) kubelet.PodStats {
	linux := s.GetLinux()
	p := kubelet.PodStats{
		PodRef:     kubelet.PodReference{Name: w.Key().Name, Namespace: w.Key().Namespace, UID: string(w.UID())},
		Containers: []kubelet.ContainerStats{},
		CPU:        cpuStats(linux.GetCpu()), Memory: memoryStats(linux.GetMemory()), Network: networkStats(linux.GetNetwork()),
	}
	if u, err := e.Cgroups.PodUsage(string(w.UID())); err == nil {
		p.CPU, p.Memory = cgroupUsage(u, now)
	}
	if n := linux.GetProcess().GetProcessCount(); n != nil {
		p.ProcessStats = &kubelet.ProcessStats{ProcessCount: &n.Value}
	}
	obs := w.Seen()
	if sb := obs.Sandbox(); sb != nil {
		p.StartTime = metav1.NewTime(sb.CreatedAt)
	}
	for _, c := range linux.GetContainers() {
		run := obs.ByID(c.GetAttributes().GetId())
		if run == nil || run.State != lifecycle.Running {
			continue
		}
		out := kubelet.ContainerStats{Name: run.Name, StartTime: metav1.NewTime(run.StartedAt), CPU: cpuStats(c.Cpu), Memory: memoryStats(c.Memory)}
		if l := c.WritableLayer; l != nil && l.UsedBytes != nil {
			out.Rootfs = &kubelet.FsStats{Time: nanoTime(l.Timestamp), UsedBytes: &l.UsedBytes.Value}
			if l.InodesUsed != nil {
				out.Rootfs.InodesUsed = &l.InodesUsed.Value
			}
		}
		p.Containers = append(p.Containers, out)
	}
	return p
}
