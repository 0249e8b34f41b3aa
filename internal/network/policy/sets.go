package policy

import (
	"cmp"
	"slices"
)

// set is a set that rules need, with what the kernel has of it.
type set struct {
	need
	selection *selection // nil where it never changes
	users     int        // chains that look into it
	written   bool
	elements  map[Element]count
	dirty     map[Element]struct{}
}

// count is how many pods have an element, and whether the kernel has it.
type count struct {
	pods    int32
	written bool
}

// selection is a choice in use.
type selection struct {
	choice
	sets map[string]*set
}

func compareElements(a, b Element) int {
	return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
}

// change adds n pods to an element.
func (s *set) change(e Element, n int32) {
	c := s.elements[e]
	c.pods += n
	if c.pods == 0 && !c.written {
		delete(s.elements, e)
		delete(s.dirty, e)
		return
	}
	s.elements[e] = c
	if s.written {
		s.dirty[e] = struct{}{}
	}
}

// present returns the elements that some pod has.
func (s *set) present() []Element {
	if s.selection == nil {
		return s.Elements
	}
	var out []Element
	for e, c := range s.elements {
		if c.pods > 0 {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, compareElements)
	return out
}

// elementsOf calls visit with what a pod adds to the set.
func (m *Model) elementsOf(s *set, p *Pod, visit func(Element)) {
	for _, addr := range p.Addrs {
		if !m.mine(addr) {
			continue
		}
		if s.Kind == Addresses {
			visit(Element{Addr: addr})
			continue
		}
		for _, port := range p.Ports {
			if port.Name == s.port.name && port.Protocol == s.port.protocol {
				visit(Element{Addr: addr, Protocol: port.Protocol, Port: port.Number})
			}
		}
	}
}

// count adds (n 1) or takes away (n -1) what a pod adds to all sets.
func (m *Model) count(p Pod, n int32) {
	if len(p.Addrs) == 0 {
		return
	}
	m.chosen.candidates(p.Key.Namespace, p.Labels, func(sel *selection) {
		if !sel.pods.Matches(labelSet(p.Labels)) {
			return
		}
		for _, s := range sel.sets {
			m.elementsOf(s, &p, func(e Element) {
				s.change(e, n)
				m.dirtySets[s.Name] = s
			})
		}
	})
}

// take returns the set that n describes for one more chain.
func (m *Model) take(n need) {
	s := m.sets[n.Name]
	if s == nil {
		s = &set{need: n, elements: map[Element]count{}, dirty: map[Element]struct{}{}}
		m.sets[n.Name] = s
	}
	s.users++
	if s.users > 1 {
		return
	}
	m.dirtySets[s.Name] = s
	if n.choice == nil {
		return
	}
	id := n.choice.id()
	sel := m.selections[id]
	if sel == nil {
		sel = &selection{choice: *n.choice, sets: map[string]*set{}}
		m.selections[id] = sel
		m.place(sel)
	}
	s.selection = sel
	sel.sets[s.Name] = s
	m.fill(s)
}

// fill counts the pods of a set that is new or in use again.
func (m *Model) fill(s *set) {
	for _, namespace := range m.namespacesOf(s.selection) {
		for _, p := range m.pods[namespace] {
			if s.selection.pods.Matches(labelSet(p.Labels)) {
				whole := m.whole(p)
				m.elementsOf(s, &whole, func(e Element) { s.change(e, 1) })
			}
		}
	}
}

// leave gives a set back for one chain. What the kernel has of it stays known until that is deleted there.
func (m *Model) leave(name string) {
	s := m.sets[name]
	s.users--
	if s.users > 0 {
		return
	}
	m.dirtySets[name] = s
	if s.selection == nil {
		return
	}
	for e, c := range s.elements {
		if c.pods > 0 {
			s.change(e, -c.pods)
		}
	}
	delete(s.selection.sets, name)
	if len(s.selection.sets) == 0 {
		delete(m.selections, s.selection.id())
		m.displace(s.selection)
	}
}

// namespacesOf returns the namespaces with pods that a selection chooses from.
func (m *Model) namespacesOf(sel *selection) []string {
	if sel.spaces == nil {
		return []string{sel.namespace}
	}
	var out []string
	for namespace := range m.pods {
		set, known := m.namespaces[namespace]
		if sel.spaces.Empty() || known && sel.spaces.Matches(labelSet(set)) {
			out = append(out, namespace)
		}
	}
	return out
}

// place enters a selection into the index, under each namespace that it chooses; one that chooses all of them stands under none.
func (m *Model) place(sel *selection) {
	term := termOf(sel.pods)
	switch {
	case sel.spaces == nil:
		m.chosen.add(place{sel.namespace, term}, sel)
	case sel.spaces.Empty():
		m.chosen.add(place{"", term}, sel)
	default:
		m.bySpaces[sel] = struct{}{}
		for namespace, set := range m.namespaces {
			if sel.spaces.Matches(labelSet(set)) {
				m.chosen.add(place{namespace, term}, sel)
			}
		}
	}
}

// displace takes a selection out of the index.
func (m *Model) displace(sel *selection) {
	term := termOf(sel.pods)
	switch {
	case sel.spaces == nil:
		m.chosen.remove(place{sel.namespace, term}, sel)
	case sel.spaces.Empty():
		m.chosen.remove(place{"", term}, sel)
	default:
		delete(m.bySpaces, sel)
		for namespace := range m.namespaces {
			m.chosen.remove(place{namespace, term}, sel)
		}
	}
}
