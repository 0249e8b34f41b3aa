package placement

// item is a node in a group's heap. rank orders by local score, then by how long ago a pod was placed on it.
type item struct {
	rank uint64
	node int32
}

// rankOf puts the score first; of equal scores the smaller stamp wins, so that equal nodes take turns.
func rankOf(score int64, stamp uint64) uint64 {
	const stampBits = 48
	return uint64(score)<<stampBits | (^stamp & (1<<stampBits - 1))
}

func scoreOf(rank uint64) int64 { return int64(rank >> 48) }

// group is a set of nodes that differ, for one class, only in local score: topology rules and preferences say the same
// of each.
type group struct {
	key    string
	slot   int // in class.groups
	static *static
	at     []int32 // per table, see table.at
	pull   int64   // sum of the narrow ruleScore tables
	heap   []item  // the best on top

	// Scratch of class.best.
	verdict judgement
	spread  int64
	ignored bool
	affine  int64
}

// push adds node i; the position of every moved node is noted in entries.
func (g *group) push(i int32, rank uint64, entries []entry) {
	g.heap = append(g.heap, item{})
	g.up(len(g.heap)-1, item{rank, i}, entries)
}

// remove takes out the node at position p.
func (g *group) remove(p int, entries []entry) {
	last := len(g.heap) - 1
	moved := g.heap[last]
	g.heap = g.heap[:last]
	if p == last {
		return
	}
	g.place(p, moved, entries)
}

// update changes the rank of the node at position p.
func (g *group) update(p int, rank uint64, entries []entry) {
	if it := g.heap[p]; it.rank != rank {
		g.place(p, item{rank, it.node}, entries)
	}
}

func (g *group) place(p int, it item, entries []entry) {
	if p > 0 && g.heap[(p-1)/2].rank < it.rank {
		g.up(p, it, entries)
	} else {
		g.down(p, it, entries)
	}
}

func (g *group) up(p int, it item, entries []entry) {
	for p > 0 {
		parent := (p - 1) / 2
		if g.heap[parent].rank >= it.rank {
			break
		}
		g.set(p, g.heap[parent], entries)
		p = parent
	}
	g.set(p, it, entries)
}

func (g *group) down(p int, it item, entries []entry) {
	for {
		child := 2*p + 1
		if child >= len(g.heap) {
			break
		}
		if child+1 < len(g.heap) && g.heap[child+1].rank > g.heap[child].rank {
			child++
		}
		if it.rank >= g.heap[child].rank {
			break
		}
		g.set(p, g.heap[child], entries)
		p = child
	}
	g.set(p, it, entries)
}

func (g *group) set(p int, it item, entries []entry) {
	g.heap[p] = it
	entries[it.node].pos = int32(p)
}
