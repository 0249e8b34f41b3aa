package stats

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// NodeUsage returns the node's use of processor and memory in the form of metrics.k8s.io; nil where it is not known.
func NodeUsage(p Pair) *metrics.NodeMetrics {
	node := &p.New.Summary.Node
	r, ok := rateOf(node.CPU, p.Old.Summary.Node.CPU, node.StartTime)
	if !ok || node.Memory == nil || node.Memory.WorkingSetBytes == nil {
		return nil
	}
	return &metrics.NodeMetrics{
		ObjectMeta: metav1.ObjectMeta{Name: node.NodeName},
		Timestamp:  metav1.NewTime(p.New.At.Truncate(time.Second)), Window: metav1.Duration{Duration: r.window.Round(time.Millisecond)},
		Usage: used(r.cores, *node.Memory.WorkingSetBytes),
	}
}

// PodUsage returns the use of each pod, container by container. A pod of which a container cannot be told yet is left out, lest sums
// mislead.
func PodUsage(p Pair) []metrics.PodMetrics {
	before := podsByUID(p.Old.Summary.Pods)
	out := []metrics.PodMetrics{}
	for i := range p.New.Summary.Pods {
		pod := &p.New.Summary.Pods[i]
		was := before[pod.PodRef.UID]
		m := metrics.PodMetrics{
			ObjectMeta: metav1.ObjectMeta{Namespace: pod.PodRef.Namespace, Name: pod.PodRef.Name, UID: ""},
			Timestamp:  metav1.NewTime(p.New.At.Truncate(time.Second)),
		}
		known := len(pod.Containers) > 0
		for j := range pod.Containers {
			c := &pod.Containers[j]
			r, ok := rateOf(c.CPU, earlier(&was, c), c.StartTime)
			if !ok || c.Memory == nil || c.Memory.WorkingSetBytes == nil {
				known = false
				break
			}
			m.Window.Duration = max(m.Window.Duration, r.window.Round(time.Millisecond))
			m.Containers = append(m.Containers, metrics.ContainerMetrics{Name: c.Name, Usage: used(r.cores, *c.Memory.WorkingSetBytes)})
		}
		if known {
			out = append(out, m)
		}
	}
	return out
}

func used(nanocores, bytes uint64) corev1.ResourceList {
	cpu := resource.NewScaledQuantity(int64(nanocores), resource.Nano)
	memory := resource.NewQuantity(int64(bytes), resource.BinarySI)
	return corev1.ResourceList{corev1.ResourceCPU: *cpu, corev1.ResourceMemory: *memory}
}

// CPUAndMemory returns a summary with nothing else, as ?only_cpu_and_memory=true asks for.
func CPUAndMemory(s stats.Summary) stats.Summary {
	node := &s.Node
	out := stats.Summary{Node: stats.NodeStats{NodeName: node.NodeName, StartTime: node.StartTime, CPU: node.CPU, Memory: node.Memory}}
	for i := range s.Pods {
		p := &s.Pods[i]
		pod := stats.PodStats{PodRef: p.PodRef, StartTime: p.StartTime, CPU: p.CPU, Memory: p.Memory}
		for j := range p.Containers {
			c := &p.Containers[j]
			pod.Containers = append(pod.Containers, stats.ContainerStats{Name: c.Name, StartTime: c.StartTime, CPU: c.CPU, Memory: c.Memory})
		}
		out.Pods = append(out.Pods, pod)
	}
	return out
}
