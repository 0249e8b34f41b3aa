package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
)

// Requests that scores assume of containers which state none, so that pods without requests spread too
// (kube-scheduler's DefaultMilliCPURequest and DefaultMemoryRequest).
const (
	unstatedMilliCPU = 100
	unstatedMemory   = 200 << 20
)

// resources is an amount of everything a node can run out of, except the number of pods.
type resources struct {
	milliCPU  int64
	memory    int64   // bytes
	ephemeral int64   // bytes of local storage
	scalar    []int64 // extended resources, hugepages, ... by number, see scalars
}

// add adds times (1 or -1) other.
func (r *resources) add(other *resources, times int64) {
	r.milliCPU += times * other.milliCPU
	r.memory += times * other.memory
	r.ephemeral += times * other.ephemeral
	for i, v := range other.scalar {
		if v == 0 {
			continue
		}
		for len(r.scalar) <= i {
			r.scalar = append(r.scalar, 0)
		}
		r.scalar[i] += times * v
	}
}

// at returns the amount of scalar resource i.
func (r *resources) at(i int) int64 {
	if i < len(r.scalar) {
		return r.scalar[i]
	}
	return 0
}

// exceeds says that r is more than other of anything.
func (r *resources) exceeds(other *resources) bool {
	if r.milliCPU > other.milliCPU || r.memory > other.memory || r.ephemeral > other.ephemeral {
		return true
	}
	for i, v := range r.scalar {
		if v > other.at(i) {
			return true
		}
	}
	return false
}

// scalars numbers the names of extended resources, so that amounts are slices and not maps.
type scalars struct {
	index map[corev1.ResourceName]int
	names []corev1.ResourceName
}

func (s *scalars) number(name corev1.ResourceName) int {
	i, ok := s.index[name]
	if !ok {
		i = len(s.names)
		s.index[name] = i
		s.names = append(s.names, name)
	}
	return i
}

// parse turns a resource list into resources; pods are not a resource here.
func (s *scalars) parse(list corev1.ResourceList) resources {
	var r resources
	for name, q := range list {
		switch name {
		case corev1.ResourceCPU:
			r.milliCPU = q.MilliValue()
		case corev1.ResourceMemory:
			r.memory = q.Value()
		case corev1.ResourceEphemeralStorage:
			r.ephemeral = q.Value()
		case corev1.ResourcePods:
		default:
			i := s.number(name)
			for len(r.scalar) <= i {
				r.scalar = append(r.scalar, 0)
			}
			r.scalar[i] = q.Value()
		}
	}
	return r
}

// requestsOf returns what pod asks for: containers, init containers and sidecars, pod-level resources and overhead, as
// Kubernetes adds them up. While a resize is under way it is the larger of what is wanted and what is held.
func (s *scalars) requestsOf(pod *corev1.Pod) resources {
	return s.parse(resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{UseStatusResources: true}))
}

// statedOrAssumed returns cpu and memory requests, with the assumed amounts for containers that state none.
func statedOrAssumed(pod *corev1.Pod) (milliCPU, memory int64) {
	list := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{
		UseStatusResources: true,
		NonMissingContainerRequests: corev1.ResourceList{
			corev1.ResourceCPU:    *resource.NewMilliQuantity(unstatedMilliCPU, resource.DecimalSI),
			corev1.ResourceMemory: *resource.NewQuantity(unstatedMemory, resource.BinarySI),
		},
	})
	return list.Cpu().MilliValue(), list.Memory().Value()
}
