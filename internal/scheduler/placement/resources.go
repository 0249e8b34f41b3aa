package placement

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/knarr-io/knarr/internal/amount"
)

// Requests that scores assume of containers which state none, so that pods without requests spread too
// (kube-scheduler's DefaultMilliCPURequest and DefaultMemoryRequest).
const (
	unstatedMilliCPU = 100
	unstatedMemory   = 200 << 20
)

// resources is what one pod asks for, or one node has, of everything that a node can run out of, except the number of pods.
type resources struct {
	milliCPU  int64
	memory    int64   // bytes
	ephemeral int64   // bytes of local storage
	scalar    []int64 // extended resources, hugepages, ... by number, see scalars
}

// at returns the amount of scalar resource i.
func (r *resources) at(i int) int64 {
	if i < len(r.scalar) {
		return r.scalar[i]
	}
	return 0
}

// exceeds reports whether r is more than other of anything.
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

// totals is a sum of resources.
type totals struct {
	milliCPU  amount.Sum
	memory    amount.Sum
	ephemeral amount.Sum
	scalar    []amount.Sum
}

func (t *totals) add(r *resources) {
	t.milliCPU.Add(r.milliCPU)
	t.memory.Add(r.memory)
	t.ephemeral.Add(r.ephemeral)
	t.grow(len(r.scalar))
	for i, v := range r.scalar {
		t.scalar[i].Add(v)
	}
}

func (t *totals) sub(r *resources) {
	t.milliCPU.Sub(r.milliCPU)
	t.memory.Sub(r.memory)
	t.ephemeral.Sub(r.ephemeral)
	t.grow(len(r.scalar))
	for i, v := range r.scalar {
		t.scalar[i].Sub(v)
	}
}

// addAll adds another total.
func (t *totals) addAll(o *totals) {
	t.milliCPU.AddSum(o.milliCPU)
	t.memory.AddSum(o.memory)
	t.ephemeral.AddSum(o.ephemeral)
	t.grow(len(o.scalar))
	for i, v := range o.scalar {
		t.scalar[i].AddSum(v)
	}
}

// subAll takes another total out.
func (t *totals) subAll(o *totals) {
	t.milliCPU.SubSum(o.milliCPU)
	t.memory.SubSum(o.memory)
	t.ephemeral.SubSum(o.ephemeral)
	t.grow(len(o.scalar))
	for i, v := range o.scalar {
		t.scalar[i].SubSum(v)
	}
}

func (t *totals) grow(n int) {
	for len(t.scalar) < n {
		t.scalar = append(t.scalar, amount.Sum{})
	}
}

// at returns the total of scalar resource i.
func (t *totals) at(i int) amount.Sum {
	if i < len(t.scalar) {
		return t.scalar[i]
	}
	return amount.Sum{}
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
			r.milliCPU = amount.Milli(q)
		case corev1.ResourceMemory:
			r.memory = amount.Units(q)
		case corev1.ResourceEphemeralStorage:
			r.ephemeral = amount.Units(q)
		case corev1.ResourcePods:
		default:
			i := s.number(name)
			for len(r.scalar) <= i {
				r.scalar = append(r.scalar, 0)
			}
			r.scalar[i] = amount.Units(q)
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
	return amount.Milli(*list.Cpu()), amount.Units(*list.Memory())
}
