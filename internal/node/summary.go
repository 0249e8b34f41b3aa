package node

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/knarr-io/knarr/internal/node/cgroup"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
	"github.com/knarr-io/knarr/internal/node/stats"
)

// sample measures the node and its pods: counters only, nothing that takes long.
func (a *Agent) sample(ctx context.Context) (*stats.Sample, error) {
	list, err := a.rt.ListPodSandboxStats(ctx)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	s := &stats.Sample{At: now, Summary: kubelet.Summary{Node: a.nodeSample(now), Pods: []kubelet.PodStats{}}}
	for _, one := range list {
		labels := one.GetAttributes().GetLabels()
		w := a.worker(types.UID(labels[lifecycle.LabelPodUID]))
		if w == nil {
			continue // on its way out, or another's in the same runtime
		}
		s.Summary.Pods = append(s.Summary.Pods, a.podSample(w, one, now))
	}
	return s, nil
}

// nodeSample measures the machine.
func (a *Agent) nodeSample(now time.Time) kubelet.NodeStats {
	n := kubelet.NodeStats{NodeName: a.cfg.NodeName, StartTime: metav1.NewTime(a.booted)}
	if u, err := a.cgroups.MachineUsage(); err == nil {
		n.CPU, n.Memory = cgroupUsage(u, now)
		if total := uint64(a.capacity.Memory().Value()); n.Memory.AvailableBytes == nil && total > u.WorkingSet {
			left := total - u.WorkingSet
			n.Memory.AvailableBytes = &left
		}
	}
	if a.cfg.Hollow {
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
func (a *Agent) podSample(w *worker, s *cri.PodSandboxStats, now time.Time) kubelet.PodStats {
	linux := s.GetLinux()
	p := kubelet.PodStats{
		PodRef:     kubelet.PodReference{Name: w.key.Name, Namespace: w.key.Namespace, UID: string(w.uid)},
		Containers: []kubelet.ContainerStats{},
		CPU:        cpuStats(linux.GetCpu()), Memory: memoryStats(linux.GetMemory()), Network: networkStats(linux.GetNetwork()),
	}
	if u, err := a.cgroups.PodUsage(string(w.uid)); err == nil {
		p.CPU, p.Memory = cgroupUsage(u, now)
	}
	if n := linux.GetProcess().GetProcessCount(); n != nil {
		p.ProcessStats = &kubelet.ProcessStats{ProcessCount: &n.Value}
	}
	obs := w.seen()
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

// seen returns what was last seen of the pod in the runtime; never nil.
func (w *worker) seen() *lifecycle.Observed {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shown == nil {
		return &lifecycle.Observed{}
	}
	return w.shown
}

func nanoTime(n int64) metav1.Time { return metav1.NewTime(time.Unix(0, n)) }

func value(v *cri.UInt64Value) *uint64 {
	if v == nil {
		return nil
	}
	return &v.Value
}

func cpuStats(c *cri.CpuUsage) *kubelet.CPUStats {
	if c == nil {
		return nil
	}
	return &kubelet.CPUStats{Time: nanoTime(c.Timestamp), UsageCoreNanoSeconds: value(c.UsageCoreNanoSeconds)}
}

func memoryStats(m *cri.MemoryUsage) *kubelet.MemoryStats {
	if m == nil {
		return nil
	}
	left := value(m.AvailableBytes)
	if left != nil && *left == 0 {
		left = nil // containerd's way to say that there is no limit
	}
	return &kubelet.MemoryStats{Time: nanoTime(m.Timestamp), AvailableBytes: left, UsageBytes: value(m.UsageBytes),
		WorkingSetBytes: value(m.WorkingSetBytes), RSSBytes: value(m.RssBytes), PageFaults: value(m.PageFaults), MajorPageFaults: value(m.MajorPageFaults)}
}

func networkStats(n *cri.NetworkUsage) *kubelet.NetworkStats {
	if n == nil {
		return nil
	}
	one := func(i *cri.NetworkInterfaceUsage) kubelet.InterfaceStats {
		return kubelet.InterfaceStats{Name: i.GetName(), RxBytes: value(i.GetRxBytes()), RxErrors: value(i.GetRxErrors()),
			TxBytes: value(i.GetTxBytes()), TxErrors: value(i.GetTxErrors())}
	}
	out := &kubelet.NetworkStats{Time: nanoTime(n.Timestamp), InterfaceStats: one(n.DefaultInterface)}
	for _, i := range n.Interfaces {
		out.Interfaces = append(out.Interfaces, one(i))
	}
	return out
}
