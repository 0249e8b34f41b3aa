package placement

import "slices"

// nodeResourcesFit keeps pods off nodes that have too little left of something they ask for.
var nodeResourcesFit = Filter{
	Name:  "NodeResourcesFit",
	Helps: NodeChanged | PodGone | RoomReturned,
	Next:  "lower the pod's requests, end other pods, or add a node",
	room:  fits,
	words: lackWords,
}

// lack is what a node has too little of, as bits: the number of pods, cpu, memory, ephemeral storage, host ports, then extended
// resources by number. Extended resources beyond the 57th share a bit.
type lack uint64

const (
	lackPods lack = 1 << iota
	lackCPU
	lackMemory
	lackEphemeral
	lackPorts
	// lackForGood marks that even the empty node has too little, so that removing pods from it cannot help.
	lackForGood
	lackScalar // first of the extended resources
)

func lackOf(scalar int) lack {
	return lackScalar << min(scalar, 57)
}

// fits returns what n lacks for a pod.
func fits(sh *shape, n *node, r *room) lack {
	if r == nil {
		return n.lacks(&sh.requests, &n.used, n.pods)
	}
	used := totals{milliCPU: n.used.milliCPU, memory: n.used.memory, ephemeral: n.used.ephemeral, scalar: slices.Clone(n.used.scalar)}
	used.addAll(&r.held)
	return n.lacks(&sh.requests, &used, n.pods+int32(r.pods))
}

// lacks returns what n lacks for one more pod, with so much in use.
func (n *node) lacks(req *resources, used *totals, pods int32) (l lack) {
	if pods >= n.maxPods {
		l |= lackPods
	}
	if req.milliCPU > 0 && req.milliCPU > used.milliCPU.Left(n.alloc.milliCPU) {
		l |= lackCPU
		if req.milliCPU > n.alloc.milliCPU {
			l |= lackForGood
		}
	}
	if req.memory > 0 && req.memory > used.memory.Left(n.alloc.memory) {
		l |= lackMemory
		if req.memory > n.alloc.memory {
			l |= lackForGood
		}
	}
	if req.ephemeral > 0 && req.ephemeral > used.ephemeral.Left(n.alloc.ephemeral) {
		l |= lackEphemeral
		if req.ephemeral > n.alloc.ephemeral {
			l |= lackForGood
		}
	}
	for i, want := range req.scalar {
		if want > 0 && want > used.at(i).Left(n.alloc.at(i)) {
			l |= lackOf(i)
			if want > n.alloc.at(i) {
				l |= lackForGood
			}
		}
	}
	return l
}

// lackWords turns a lack into words: "Too many pods", "Insufficient cpu", ...
func lackWords(l lack, names *scalars) (reasons []string) {
	if l&lackPods != 0 {
		reasons = append(reasons, "Too many pods")
	}
	if l&lackCPU != 0 {
		reasons = append(reasons, "Insufficient cpu")
	}
	if l&lackMemory != 0 {
		reasons = append(reasons, "Insufficient memory")
	}
	if l&lackEphemeral != 0 {
		reasons = append(reasons, "Insufficient ephemeral-storage")
	}
	for i, name := range names.names {
		if l&lackOf(i) != 0 {
			reasons = append(reasons, "Insufficient "+string(name))
		}
	}
	return reasons
}
