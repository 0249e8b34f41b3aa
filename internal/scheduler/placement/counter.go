package placement

import "fmt"

// counter counts, per node, the placed pods that a rule means: those that a selector matches, or those that carry a term.
// Classes whose rules mean the same pods share one.
type counter struct {
	key   string
	refs  int // classes that use it
	match func(*shape) bool
	node  []int32
}

// counter returns the counter named key, made with match if there is none yet.
func (st *State) counter(key string, match func(*shape) bool) *counter {
	if c := st.counters[key]; c != nil {
		c.refs++
		return c
	}
	c := &counter{key: key, refs: 1, match: match, node: make([]int32, len(st.nodes))}
	st.counters[key] = c
	for _, sh := range st.shapes {
		if !match(sh) {
			continue
		}
		sh.counters = append(sh.counters, c)
		for n, count := range sh.onNode {
			c.node[n] += count
		}
	}
	return c
}

// release gives a counter back; the last user's takes it out of the shapes, too.
func (st *State) release(c *counter) {
	if c.refs--; c.refs > 0 {
		return
	}
	delete(st.counters, c.key)
	for _, sh := range st.shapes {
		for i, other := range sh.counters {
			if other == c {
				sh.counters = append(sh.counters[:i], sh.counters[i+1:]...)
				break
			}
		}
	}
}

// carriedTerm is a term with which placed pods act on pods that come later: required anti-affinity keeps matching pods
// away, everything else draws or repels them by weight.
type carriedTerm struct {
	*term
	key    string
	anti   bool  // required anti-affinity
	weight int64 // otherwise
	refs   int   // shapes that carry it
}

// carry registers the terms of a new shape.
func (st *State) carry(sh *shape) {
	one := func(t *term, anti bool, weight int64) {
		key := carriedKey(t, anti, weight)
		c := st.carried[key]
		if c == nil {
			c = &carriedTerm{term: t, key: key, anti: anti, weight: weight}
			st.carried[key] = c
			st.rulesGen++
		}
		if sh.carries(key) {
			return
		}
		c.refs++
		sh.carried = append(sh.carried, c)
	}
	for _, t := range sh.affinity.anti {
		one(t, true, 0)
	}
	for _, w := range merged(sh.affinity) {
		one(w.term, false, w.weight)
	}
}

// merged returns the terms by which sh's pods draw or repel others, equal ones added up. A required affinity works in
// the other direction as a preference of weight 1 (kube-scheduler's hardPodAffinityWeight).
func merged(a affinityTerms) []weighted {
	var out []weighted
	add := func(t *term, weight int64) {
		for i := range out {
			if out[i].key == t.key && out[i].topologyKey == t.topologyKey {
				out[i].weight += weight
				return
			}
		}
		out = append(out, weighted{t, weight})
	}
	for _, t := range a.required {
		add(t, 1)
	}
	for _, w := range a.preferred {
		add(w.term, w.weight)
	}
	return out
}

// drop takes a shape's terms back.
func (st *State) drop(sh *shape) {
	for _, c := range sh.carried {
		if c.refs--; c.refs == 0 {
			delete(st.carried, c.key)
			st.rulesGen++
		}
	}
}

func (sh *shape) carries(key string) bool {
	for _, have := range sh.carried {
		if have.key == key {
			return true
		}
	}
	return false
}

func carriedKey(t *term, anti bool, weight int64) string {
	return fmt.Sprintf("%s|%s|%t|%d", t.key, t.topologyKey, anti, weight)
}
