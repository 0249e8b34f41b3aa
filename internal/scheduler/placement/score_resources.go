package placement

import "github.com/knarr-io/knarr/internal/amount"

// Packing chooses between spreading load and filling nodes.
type Packing int

const (
	// leastAllocated prefers nodes with much free cpu and memory, as Kubernetes does by default.
	leastAllocated Packing = iota
	// MostAllocated prefers nodes that are nearly full, so that others can be emptied.
	MostAllocated
)

// freeResources scores free (or, with MostAllocated, used) cpu and memory after the pod was added.
var freeResources = score{name: "NodeResourcesFit", weight: 1, room: scoreFit}

func scoreFit(sh *shape, n *node, o Options) int64 {
	var sum, weight int64
	one := func(used amount.Sum, want, alloc int64) {
		if alloc == 0 {
			return
		}
		weight++
		used.Add(want)
		switch o.Packing {
		case MostAllocated:
			sum += amount.Scale(min(used.Int64(), alloc), maxScore, alloc)
		case leastAllocated:
			if left := used.Left(alloc); left > 0 {
				sum += amount.Scale(left, maxScore, alloc)
			}
		}
	}
	one(n.assumedCPU, sh.assumedCPU, n.alloc.milliCPU)
	one(n.assumedMemory, sh.assumedMemory, n.alloc.memory)
	if weight == 0 {
		return 0
	}
	return sum / weight
}
