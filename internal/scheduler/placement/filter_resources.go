package placement

import "github.com/knarr-io/knarr/internal/amount"

// lack is a set of resources of which a node has too little, as bits: the number of pods, cpu, memory, ephemeral
// storage, then extended resources by number. Extended resources beyond the 58th share a bit.
type lack uint64

const (
	lackPods lack = 1 << iota
	lackCPU
	lackMemory
	lackEphemeral
	// lackForGood says that even the empty node has too little, so that removing pods from it cannot help.
	lackForGood
	lackScalar // first of the extended resources
)

func lackOf(scalar int) lack {
	return lackScalar << min(scalar, 58)
}

// fits returns the resources that n lacks for a pod that asks for req, with held added to what is in use (pods nominated to
// the node, or, negative, victims taken away).
func fits(n *node, req *resources, held *totals, heldPods int) lack {
	var l lack
	if n.pods+heldPods+1 > n.maxPods {
		l |= lackPods
	}
	if req.milliCPU > 0 && req.milliCPU > left(n.alloc.milliCPU, n.used.milliCPU, held.milliCPU) {
		l |= lackCPU
		if req.milliCPU > n.alloc.milliCPU {
			l |= lackForGood
		}
	}
	if req.memory > 0 && req.memory > left(n.alloc.memory, n.used.memory, held.memory) {
		l |= lackMemory
		if req.memory > n.alloc.memory {
			l |= lackForGood
		}
	}
	if req.ephemeral > 0 && req.ephemeral > left(n.alloc.ephemeral, n.used.ephemeral, held.ephemeral) {
		l |= lackEphemeral
		if req.ephemeral > n.alloc.ephemeral {
			l |= lackForGood
		}
	}
	for i, want := range req.scalar {
		if want > 0 && want > left(n.alloc.at(i), n.used.at(i), held.at(i)) {
			l |= lackOf(i)
			if want > n.alloc.at(i) {
				l |= lackForGood
			}
		}
	}
	return l
}

// left is what used and held leave of alloc.
func left(alloc int64, used, held amount.Sum) int64 {
	used.AddSum(held)
	return used.Left(alloc)
}

// verdict turns a lack into words: "Too many pods", "Insufficient cpu", ...
func (l lack) verdict(names *scalars) verdict {
	v := verdict{filter: FilterResources, unresolvable: l&lackForGood != 0}
	if l&lackPods != 0 {
		v.reasons = append(v.reasons, "Too many pods")
	}
	if l&lackCPU != 0 {
		v.reasons = append(v.reasons, "Insufficient cpu")
	}
	if l&lackMemory != 0 {
		v.reasons = append(v.reasons, "Insufficient memory")
	}
	if l&lackEphemeral != 0 {
		v.reasons = append(v.reasons, "Insufficient ephemeral-storage")
	}
	for i, name := range names.names {
		if l&lackOf(i) != 0 {
			v.reasons = append(v.reasons, "Insufficient "+string(name))
		}
	}
	return v
}
