package placement

import "math"

// maxScore is the best score that one rule gives.
const maxScore = 100

// score is one rule that prefers some feasible nodes to others, with kube-scheduler's names and default weights. A new one is a file
// with a score in it and a line in one of the lists below.
type score struct {
	name   string
	weight int64

	// One of these is set, by what the score looks at.

	// node looks at the node alone. It is asked once for each node and class.
	node func(sh *shape, n *node) int64
	// room looks at what the node has left, and returns 0 to maxScore. It is asked whenever something came or left.
	room func(sh *shape, n *node, o Options) int64
	// domains looks at what is placed around a group; counts is false for a group that it leaves out. prepare, if set, sees
	// all feasible groups first.
	domains func(c *class, g *group) (raw int64, counts bool)
	prepare func(c *class)

	// normal maps a raw score to 0 .. maxScore, given the lowest and the highest of the feasible groups; room needs none.
	normal func(raw, lowest, highest int64) int64
}

const nodeScoreCount, roomScoreCount = 2, 2

var (
	nodeScores   = [nodeScoreCount]*score{&dislikedTaints, &preferredNodes}
	roomScores   = [roomScoreCount]*score{&freeResources, &balance}
	domainScores = [...]*score{&evenSpread, &preferredPods}
)

// topScore is the best sum of the scores of room, whose weights are 1.
const topScore = roomScoreCount * maxScore

// roomScore sums the scores of room.
func (c *class) roomScore(st *State, n *node) (sum int64) {
	for _, s := range roomScores {
		sum += s.room(c.example, n, st.options)
	}
	return sum
}

// rate gives the feasible groups the part of their nodes' scores that is the same for all nodes of a group.
func (c *class) rate() {
	for _, g := range c.feasible {
		g.score = 0
	}
	for i, s := range nodeScores {
		c.rateBy(s, func(g *group) (int64, bool) { return g.static.raw[i], true })
	}
	for _, s := range domainScores {
		if s.prepare != nil {
			s.prepare(c)
		}
		c.rateBy(s, func(g *group) (int64, bool) { return s.domains(c, g) })
	}
}

func (c *class) rateBy(s *score, of func(*group) (int64, bool)) {
	lowest, highest := int64(math.MaxInt64), int64(math.MinInt64)
	for _, g := range c.feasible {
		if g.raw, g.counts = of(g); g.counts {
			lowest, highest = min(lowest, g.raw), max(highest, g.raw)
		}
	}
	for _, g := range c.feasible {
		if g.counts {
			g.score += s.weight * s.normal(g.raw, lowest, highest)
		}
	}
}
