package placement

// nobody stands for no node in a line.
const nobody = -1

// group is a set of nodes that differ, for one class, only in local score: topology rules and preferences say the same
// of each.
//
// Local scores are small whole numbers, so the nodes of one score stand in a line, and the best node is the first of the best line that
// is not empty. A node whose score changes leaves one line and joins another; that touches the same few entries however many
// nodes there are. A heap would touch as many as it is deep, all over memory, once for every class and pod.
type group struct {
	key    string
	slot   int // in class.groups
	static *static
	at     []int32 // per table, see table.at
	pull   int64   // sum of the narrow ruleScore tables

	size  int    // nodes
	lines []line // by topScore less the score
	first int    // no line before this one has nodes

	// Scratch of class.best.
	judgement judgement
	score     int64 // of all its nodes, without their scores of room
	raw       int64 // by the score that is asked just now
	counts    bool
	ignored   bool // by the pod's own soft spread constraints
}

// line is nodes of equal local score, linked by their entries. Equal nodes take turns: in front is the one on which no pod was placed for
// longest.
type line struct{ head, tail int32 }

// overtaken is how many nodes in a line may be asked whether they have waited for less long than one that joins. Nodes join because a pod was
// just placed on them, and have waited least; of others the order is not worth a search.
const overtaken = 8

// push adds node i with this local score; stamp says when a pod was last placed on it.
func (g *group) push(i int32, score int64, stamp uint64, entries []entry) {
	g.size++
	g.join(i, int16(topScore-min(max(score, 0), topScore)), stamp, entries)
}

// remove takes node i out.
func (g *group) remove(i int32, entries []entry) {
	g.size--
	g.part(i, entries)
	for g.size > 0 && g.lines[g.first].head == nobody {
		g.first++
	}
}

// update changes the score and the stamp of node i.
func (g *group) update(i int32, score int64, stamp uint64, entries []entry) {
	level := int16(topScore - min(max(score, 0), topScore))
	if e := &entries[i]; e.level == level && e.stamp == stamp {
		return
	}
	g.part(i, entries)
	g.join(i, level, stamp, entries)
	for g.lines[g.first].head == nobody {
		g.first++
	}
}

// top returns the best node and its local score; the group is not empty.
func (g *group) top() (i int32, score int64) { return g.lines[g.first].head, int64(topScore - g.first) }

func (g *group) join(i int32, level int16, stamp uint64, entries []entry) {
	for len(g.lines) <= int(level) {
		g.lines = append(g.lines, line{nobody, nobody})
	}
	l := &g.lines[level]
	before, after := l.tail, int32(nobody)
	for n := 0; before != nobody && entries[before].stamp > stamp && n < overtaken; n++ {
		before, after = entries[before].prev, before
	}
	e := &entries[i]
	e.level, e.stamp, e.prev, e.next = level, stamp, before, after
	if before == nobody {
		l.head = i
	} else {
		entries[before].next = i
	}
	if after == nobody {
		l.tail = i
	} else {
		entries[after].prev = i
	}
	if g.size == 1 || int(level) < g.first {
		g.first = int(level)
	}
}

func (g *group) part(i int32, entries []entry) {
	e := &entries[i]
	l := &g.lines[e.level]
	if e.prev == nobody {
		l.head = e.next
	} else {
		entries[e.prev].next = e.next
	}
	if e.next == nobody {
		l.tail = e.prev
	} else {
		entries[e.next].prev = e.prev
	}
}
