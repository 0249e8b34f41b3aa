package endpoint

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelet "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

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
