package placement

import (
	"slices"
	"strings"
)

// maxEntries bounds the memory of classes: about 100 bytes for each node of each class.
const maxEntries = 1 << 20

// classOf returns the class of a shape, up to date.
func (st *State) classOf(sh *shape) *class {
	if sh.class == nil || sh.classGen != st.rulesGen || st.classes[sh.class.key] != sh.class {
		specs := st.specs(sh)
		key := classKey(sh, specs, selfAffine(sh, st))
		c := st.classes[key]
		if c == nil {
			st.evictClasses()
			c = newClass(st, sh, key, specs)
			st.classes[key] = c
		}
		sh.class, sh.classGen = c, st.rulesGen
	}
	sh.class.catchUp(st)
	return sh.class
}

// classKey names the class: two shapes share one exactly if nothing in it differs.
func classKey(sh *shape, specs []tableSpec, self bool) string {
	var w keyWriter
	w.string(sh.staticID)
	w.bool(sh.ownSpread)
	w.bool(self)
	for i := range specs {
		specs[i].id(&w)
	}
	return string(w.buf)
}

// specs returns the topology rules that apply to pods of a shape: their own, and those that other pods carry.
func (st *State) specs(sh *shape) []tableSpec {
	var specs []tableSpec
	if !sh.pinned {
		specs = spreadSpecs(sh)
	}
	if terms := sh.affinity.required; len(terms) > 0 {
		key, match := st.meansAll(terms)
		for _, t := range terms {
			specs = append(specs, tableSpec{rule: ruleAffinity, counterKey: key, match: match, topologyKey: t.topologyKey})
		}
	}
	for _, t := range sh.affinity.anti {
		key, match := st.meansAll([]*term{t})
		specs = append(specs, tableSpec{rule: ruleAnti, counterKey: key, match: match, topologyKey: t.topologyKey})
	}
	for _, w := range sh.affinity.preferred {
		if sh.pinned {
			break // who has one node has no use for scores
		}
		key, match := st.meansAll([]*term{w.term})
		specs = append(specs, tableSpec{rule: ruleScore, counterKey: key, match: match, topologyKey: w.topologyKey, weight: w.weight})
	}
	return append(specs, st.carriedSpecs(sh)...)
}

func spreadSpecs(sh *shape) []tableSpec {
	var specs []tableSpec
	for i := range sh.spread {
		s, ns := &sh.spread[i], sh.namespace
		r := ruleSpreadSoft
		if s.hard {
			r = ruleSpreadHard
		}
		spec := tableSpec{
			rule: r, counterKey: s.key, match: func(other *shape) bool { return s.counts(ns, other) },
			topologyKey: s.topologyKey, maxSkew: s.maxSkew, minDomains: s.minDomains, self: s.self,
			honorAffinity: s.honorAffinity && sh.constrained, honorTaints: s.honorTaints,
		}
		if s.hard { // first, see class.judgeSpread
			specs = slices.Insert(specs, hardSpecs(specs), spec)
		} else {
			specs = append(specs, spec)
		}
	}
	return specs
}

func hardSpecs(specs []tableSpec) int {
	n := 0
	for n < len(specs) && specs[n].rule == ruleSpreadHard {
		n++
	}
	return n
}

// meansAll returns the counter of the pods that all terms mean.
func (st *State) meansAll(terms []*term) (key string, match func(*shape) bool) {
	keys := make([]string, len(terms))
	for i, t := range terms {
		keys[i] = t.key
	}
	return "all|" + strings.Join(keys, "&"), func(sh *shape) bool {
		for _, t := range terms {
			if !t.matches(sh.namespace, st.namespaces[sh.namespace], sh.labels) {
				return false
			}
		}
		return true
	}
}

// selfAffine reports whether a pod of this shape meets its own required affinity terms.
func selfAffine(sh *shape, st *State) bool {
	if len(sh.affinity.required) == 0 {
		return false
	}
	_, match := st.meansAll(sh.affinity.required)
	return match(sh)
}

// carriedSpecs returns the rules by which placed pods act on pods of this shape, in a fixed order.
func (st *State) carriedSpecs(sh *shape) []tableSpec {
	var acting []*carriedTerm
	for _, c := range st.carried {
		if c.matches(sh.namespace, st.namespaces[sh.namespace], sh.labels) {
			acting = append(acting, c)
		}
	}
	slices.SortFunc(acting, func(a, b *carriedTerm) int { return strings.Compare(a.key, b.key) })
	var specs []tableSpec
	for _, c := range acting {
		if sh.pinned && !c.anti {
			continue
		}
		key := c.key
		spec := tableSpec{
			rule: ruleScore, counterKey: "carry|" + key, match: func(sh *shape) bool { return sh.carries(key) },
			topologyKey: c.topologyKey, weight: c.weight,
		}
		if c.anti {
			spec.rule = ruleExisting
		}
		specs = append(specs, spec)
	}
	return specs
}

// evictClasses makes room for one more class by dropping those that were not used for longest.
func (st *State) evictClasses() {
	limit := max(16, maxEntries/max(1, len(st.nodes)))
	for len(st.classes) >= limit {
		var oldest *class
		for _, c := range st.classes {
			if oldest == nil || c.lastUse < oldest.lastUse {
				oldest = c
			}
		}
		delete(st.classes, oldest.key)
		for _, t := range oldest.tables {
			st.release(t.counter)
		}
	}
}
