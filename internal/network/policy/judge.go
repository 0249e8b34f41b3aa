package policy

import (
	"cmp"
	"net/netip"
	"slices"
)

// judge finds out by which chains an address of this node is guarded.
func (m *Model) judge(addr netip.Addr) {
	policies, closed := m.policiesOf(addr)
	for d := range NumDirections {
		key := guardKey{d, addr}
		old := m.guards[key]
		var now *chain
		if of := isolating(policies, d); len(of) > 0 || closed {
			now = m.use(d, of)
		}
		if old == now {
			if now != nil {
				m.release(now)
			}
			continue
		}
		if now == nil {
			delete(m.guards, key)
		} else {
			m.guards[key] = now
		}
		m.dirtyGuards[key] = struct{}{}
		if old != nil {
			m.release(old)
		}
	}
}

// policiesOf returns the policies that select the pod of an address. closed is true where there are policies, but the pod is not known.
func (m *Model) policiesOf(addr netip.Addr) (of []*policy, closed bool) {
	a, attached := m.attached[addr]
	if !attached || len(m.policies) == 0 {
		return nil, false
	}
	p, known := m.pods[a.Pod.Namespace][a.Pod.Name]
	if !known || !m.belongs(a, p) {
		return nil, true
	}
	m.guarding.candidates(p.Key.Namespace, p.Labels, func(g *policy) {
		if g.pods.pods.Matches(labelSet(p.Labels)) {
			of = append(of, g)
		}
	})
	slices.SortFunc(of, func(a, b *policy) int { return cmp.Compare(a.key.Name, b.key.Name) })
	return of, false
}

func isolating(policies []*policy, d Direction) []*policy {
	var out []*policy
	for _, p := range policies {
		if p.isolate[d] {
			out = append(out, p)
		}
	}
	return out
}

// use returns the chain for pods of these policies, for one more user.
func (m *Model) use(d Direction, policies []*policy) *chain {
	var all []*compiled
	for _, p := range policies {
		if p.compiled[d] == nil {
			p.compiled[d] = p.compile(d)
			if known := m.chains[p.compiled[d].Name]; known != nil {
				known.origins = p.compiled[d].origins // other rules say the same now
			}
		}
		all = append(all, p.compiled[d])
	}
	want := podChain(d, all)
	c := m.chains[want.Name]
	if c == nil {
		c = &chain{Chain: want}
		m.chains[want.Name] = c
	}
	c.users++
	if c.users > 1 {
		return c
	}
	m.dirtyChains[c.Name] = c
	c.below = nil
	for _, p := range all {
		below := m.chains[p.Name]
		if below == nil {
			below = &chain{Chain: p.Chain, needs: p.needs, of: p.of, origins: p.origins}
			m.chains[p.Name] = below
		}
		c.below = append(c.below, below)
		below.users++
		if below.users == 1 {
			m.dirtyChains[below.Name] = below
			for _, n := range below.needs {
				m.take(n)
			}
		}
	}
	return c
}

// release gives a pod's chain back for one user.
func (m *Model) release(c *chain) {
	c.users--
	if c.users > 0 {
		return
	}
	m.dirtyChains[c.Name] = c
	for _, below := range c.below {
		below.users--
		if below.users == 0 {
			m.dirtyChains[below.Name] = below
			for _, n := range below.needs {
				m.leave(n.Name)
			}
		}
	}
}
