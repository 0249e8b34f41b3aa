package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/resource"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// ContainerResources returns what a container's requests and limits mean to the kernel.
func ContainerResources(pod *corev1.Pod, c *corev1.Container, capacity corev1.ResourceList) *cri.LinuxContainerResources {
	cpuLimit, memoryLimit := limitOf(pod, c, corev1.ResourceCPU), limitOf(pod, c, corev1.ResourceMemory)
	cpuRequest := amount.Milli(*c.Resources.Requests.Cpu())
	if _, ok := c.Resources.Requests[corev1.ResourceCPU]; !ok {
		cpuRequest = cpuLimit
	}
	r := &cri.LinuxContainerResources{
		CpuShares:          lifecycle.Shares(cpuRequest),
		MemoryLimitInBytes: memoryLimit,
		OomScoreAdj:        OOMScoreAdj(pod, c, amount.Units(*capacity.Memory())),
	}
	if q := lifecycle.Quota(cpuLimit); q > 0 {
		r.CpuQuota, r.CpuPeriod = q, lifecycle.CPUPeriod
	}
	return r
}

// limitOf is a container's limit: its own, else the pod's (KEP-2837), else 0. CPU is in thousandths.
func limitOf(pod *corev1.Pod, c *corev1.Container, name corev1.ResourceName) int64 {
	q, ok := c.Resources.Limits[name]
	if !ok && pod.Spec.Resources != nil {
		q = pod.Spec.Resources.Limits[name]
	}
	return amount.Of(name, q)
}

// OOMScoreAdj orders who is killed first when memory runs out
// (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-out-of-memory-behavior).
func OOMScoreAdj(pod *corev1.Pod, c *corev1.Container, capacity int64) int64 {
	const guaranteed, bestEffort = -997, 1000
	const systemCritical = 2_000_000_000
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical {
		return guaranteed
	}
	switch lifecycle.QOS(pod) {
	case corev1.PodQOSGuaranteed:
		return guaranteed
	case corev1.PodQOSBestEffort:
		return bestEffort
	}
	if capacity <= 0 {
		return bestEffort - 1
	}
	adj := 1000 - amount.Scale(amount.Units(*c.Resources.Requests.Memory()), 1000, capacity)
	return min(max(adj, 1000+guaranteed), bestEffort-1)
}

// PodResources is what a whole pod may use, for its cgroup. Zero means no limit.
type PodResources struct {
	QOS         corev1.PodQOSClass
	Shares      int64
	Quota       int64 // µs of every 100 ms
	MemoryLimit int64
}

// ForPod sums a pod's requests and limits. A limit counts for the pod only if every container has one.
func ForPod(pod *corev1.Pod) PodResources {
	req := resource.PodRequests(pod, resource.PodResourcesOptions{})
	lim := resource.PodLimits(pod, resource.PodResourcesOptions{})
	out := PodResources{QOS: lifecycle.QOS(pod), Shares: lifecycle.Shares(amount.Milli(*req.Cpu()))}
	cpu, mem := true, true
	each := func(c *corev1.Container) {
		cpu = cpu && !c.Resources.Limits.Cpu().IsZero()
		mem = mem && !c.Resources.Limits.Memory().IsZero()
	}
	for i := range pod.Spec.Containers {
		each(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.InitContainers {
		each(&pod.Spec.InitContainers[i])
	}
	if pod.Spec.Resources != nil {
		cpu = cpu || !pod.Spec.Resources.Limits.Cpu().IsZero()
		mem = mem || !pod.Spec.Resources.Limits.Memory().IsZero()
	}
	if out.QOS == corev1.PodQOSBestEffort {
		out.Shares = lifecycle.Shares(0)
		return out
	}
	if cpu {
		out.Quota = lifecycle.Quota(amount.Milli(*lim.Cpu()))
	}
	if mem {
		out.MemoryLimit = amount.Units(*lim.Memory())
	}
	return out
}
