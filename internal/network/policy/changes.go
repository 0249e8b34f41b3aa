package policy

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// Changes are what has to be written, in this order: sets, chains, guards, elements, and then what is no longer needed.
type Changes struct {
	AddSets      []Set
	AddChains    []Chain // called ones first
	DeleteGuards []Guard
	AddGuards    []Guard
	Delete, Add  []Set // elements of sets that are there
	DeleteChains []string
	DeleteSets   []Set
}

// Guard leads connections of an address in a direction to a chain.
type Guard struct {
	Direction Direction
	Addr      netip.Addr
	Chain     string
}

// Empty reports whether nothing has to be written.
func (c Changes) Empty() bool {
	return len(c.AddSets)+len(c.AddChains)+len(c.DeleteGuards)+len(c.AddGuards)+len(c.Delete)+len(c.Add)+len(c.DeleteChains)+len(c.DeleteSets) == 0
}

// Changes returns the difference between what is to be and the kernel.
func (m *Model) Changes() Changes {
	var c Changes
	for _, name := range slices.Sorted(maps.Keys(m.dirtySets)) {
		c.changeSet(m.dirtySets[name])
	}
	var chains []*chain
	for _, name := range slices.Sorted(maps.Keys(m.dirtyChains)) {
		chains = append(chains, m.dirtyChains[name])
	}
	c.addChains(chains, true)
	for _, ch := range slices.Backward(byDepth(chains)) {
		if ch.users == 0 && ch.written {
			c.DeleteChains = append(c.DeleteChains, ch.Name)
		}
	}
	for key := range m.dirtyGuards {
		old, had := m.kernel[key]
		now := m.guards[key]
		switch {
		case now == nil && had:
			c.DeleteGuards = append(c.DeleteGuards, Guard{key.Direction, key.addr, old})
		case now != nil && old != now.Name:
			if had {
				c.DeleteGuards = append(c.DeleteGuards, Guard{key.Direction, key.addr, old})
			}
			c.AddGuards = append(c.AddGuards, Guard{key.Direction, key.addr, now.Name})
		}
	}
	sortGuards(c.DeleteGuards)
	sortGuards(c.AddGuards)
	return c
}

// All returns everything that is to be, as changes to an empty table.
func (m *Model) All() Changes {
	var c Changes
	for _, name := range slices.Sorted(maps.Keys(m.sets)) {
		if s := m.sets[name]; s.users > 0 {
			c.AddSets = append(c.AddSets, s.whole())
		}
	}
	var chains []*chain
	for _, name := range slices.Sorted(maps.Keys(m.chains)) {
		chains = append(chains, m.chains[name])
	}
	c.addChains(chains, false)
	for key, ch := range m.guards {
		c.AddGuards = append(c.AddGuards, Guard{key.Direction, key.addr, ch.Name})
	}
	sortGuards(c.AddGuards)
	return c
}

// changeSet appends what has to be done about a set.
func (c *Changes) changeSet(s *set) {
	switch {
	case s.users > 0 && !s.written:
		c.AddSets = append(c.AddSets, s.whole())
	case s.users == 0 && s.written:
		c.DeleteSets = append(c.DeleteSets, Set{Name: s.Name, Kind: s.Kind})
	case s.users > 0:
		gone, come := Set{Name: s.Name, Kind: s.Kind}, Set{Name: s.Name, Kind: s.Kind}
		for e := range s.dirty {
			switch n := s.elements[e]; {
			case n.written && n.pods == 0:
				gone.Elements = append(gone.Elements, e)
			case !n.written && n.pods > 0:
				come.Elements = append(come.Elements, e)
			}
		}
		slices.SortFunc(gone.Elements, compareElements)
		slices.SortFunc(come.Elements, compareElements)
		if len(gone.Elements) > 0 {
			c.Delete = append(c.Delete, gone)
		}
		if len(come.Elements) > 0 {
			c.Add = append(c.Add, come)
		}
	}
}

func (s *set) whole() Set {
	return Set{Name: s.Name, Kind: s.Kind, Ranges: s.Ranges, Elements: s.present()}
}

// addChains appends the chains in use; with fresh those that the kernel lacks.
func (c *Changes) addChains(chains []*chain, fresh bool) {
	for _, ch := range byDepth(chains) {
		if ch.users > 0 && !(fresh && ch.written) {
			c.AddChains = append(c.AddChains, ch.Chain)
		}
	}
}

// byDepth returns chains with those first to which others jump.
func byDepth(chains []*chain) []*chain {
	chains = slices.Clone(chains)
	slices.SortStableFunc(chains, func(a, b *chain) int {
		switch {
		case a.OfPod == b.OfPod:
			return 0
		case a.OfPod:
			return 1
		}
		return -1
	})
	return chains
}

func sortGuards(guards []Guard) {
	slices.SortFunc(guards, func(a, b Guard) int { return cmp.Or(cmp.Compare(a.Direction, b.Direction), a.Addr.Compare(b.Addr)) })
}

// Written records that the kernel has what Changes returned last.
func (m *Model) Written() {
	for name, s := range m.dirtySets {
		s.settle()
		if s.users == 0 {
			delete(m.sets, name)
		}
	}
	for name, ch := range m.dirtyChains {
		ch.written = ch.users > 0
		if ch.users == 0 {
			delete(m.chains, name)
		}
	}
	for key := range m.dirtyGuards {
		if ch := m.guards[key]; ch != nil {
			m.kernel[key] = ch.Name
		} else {
			delete(m.kernel, key)
		}
	}
	m.settled()
}

// settled forgets what was dirty. Maps stay as large as they ever were, and to clear one takes as long.
func (m *Model) settled() {
	m.dirtySets, m.dirtyChains, m.dirtyGuards = map[string]*set{}, map[string]*chain{}, map[guardKey]struct{}{}
}

// settle notes that the kernel has the set as it is.
func (s *set) settle() {
	settled := func(e Element) {
		n := s.elements[e]
		if n.written = n.pods > 0; n.written {
			s.elements[e] = n
		} else {
			delete(s.elements, e)
		}
	}
	if s.written {
		for e := range s.dirty {
			settled(e)
		}
	} else {
		for e := range s.elements {
			settled(e)
		}
	}
	s.dirty = map[Element]struct{}{}
	s.written = s.users > 0
}

// Rewritten records that the kernel has what All returned last, and nothing else.
func (m *Model) Rewritten() {
	for name, s := range m.sets {
		s.written = false
		s.settle()
		if s.users == 0 {
			delete(m.sets, name)
		}
	}
	for name, ch := range m.chains {
		ch.written = ch.users > 0
		if ch.users == 0 {
			delete(m.chains, name)
		}
	}
	clear(m.kernel)
	for key, ch := range m.guards {
		m.kernel[key] = ch.Name
	}
	m.settled()
}
