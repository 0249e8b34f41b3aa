package services

import (
	"cmp"
	"maps"
	"slices"
)

// Table merges the elements that Services and host ports ask for and knows what the kernel has of them. Where two owners want
// the same key (two Services with one external IP and port), the first by name gets it and the other once the first is gone.
// It does no I/O.
type Table struct {
	parts  map[string][]Element
	claims map[Key][]claim
	kernel map[Key]Value // what was written last
	dirty  map[Key]struct{}
	refs   map[Picker]int // pickers in the kernel, with the number of frontends that use them
}

type claim struct {
	owner string
	value Value
}

// Changes are what has to be written. Pickers are added before and deleted after the elements. A picker that nobody uses any more
// stays until [Table.Idle] is written: to add one makes the kernel walk the whole map it looks into, and while something
// scales up or down the same numbers of endpoints come again and again.
type Changes struct {
	AddPickers    []Picker
	Delete        []Element
	Add           []Element
	DeletePickers []Picker
}

// Empty reports whether nothing has to be written.
func (c Changes) Empty() bool {
	return len(c.Add)+len(c.Delete)+len(c.AddPickers)+len(c.DeletePickers) == 0
}

// NewTable returns an empty table.
func NewTable() *Table {
	return &Table{parts: map[string][]Element{}, claims: map[Key][]claim{}, kernel: map[Key]Value{},
		dirty: map[Key]struct{}{}, refs: map[Picker]int{}}
}

// Set replaces what owner asks for; no elements remove it.
func (t *Table) Set(owner string, elements []Element) {
	for _, e := range t.parts[owner] {
		t.claims[e.Key] = slices.DeleteFunc(t.claims[e.Key], func(c claim) bool { return c.owner == owner })
		t.dirty[e.Key] = struct{}{}
	}
	delete(t.parts, owner)
	if len(elements) > 0 {
		t.parts[owner] = elements
	}
	for _, e := range elements {
		cs := t.claims[e.Key]
		i, _ := slices.BinarySearchFunc(cs, owner, func(c claim, o string) int { return cmp.Compare(c.owner, o) })
		t.claims[e.Key] = slices.Insert(cs, i, claim{owner, e.Value})
		t.dirty[e.Key] = struct{}{}
	}
}

// Owners returns all owners that have elements.
func (t *Table) Owners() []string { return slices.Sorted(maps.Keys(t.parts)) }

// Changes returns the difference between what is asked for and the kernel.
func (t *Table) Changes() Changes {
	var c Changes
	for key := range t.dirty {
		old, had := t.kernel[key]
		now, want := t.wanted(key)
		if had == want && old == now {
			continue
		}
		if had {
			c.Delete = append(c.Delete, Element{key, old})
		}
		if want {
			c.Add = append(c.Add, Element{key, now})
			if _, ok := t.refs[now.Picker]; !ok && now.Picker.isChain() && !slices.Contains(c.AddPickers, now.Picker) {
				c.AddPickers = append(c.AddPickers, now.Picker)
			}
		}
	}
	c.sort()
	return c
}

// All returns everything that is asked for, as changes to an empty table.
func (t *Table) All() Changes {
	var c Changes
	pickers := map[Picker]bool{}
	for key := range t.claims {
		v, ok := t.wanted(key)
		if !ok {
			continue
		}
		c.Add = append(c.Add, Element{key, v})
		if v.Picker.isChain() && !pickers[v.Picker] {
			pickers[v.Picker] = true
			c.AddPickers = append(c.AddPickers, v.Picker)
		}
	}
	c.sort()
	return c
}

// Idle returns the deletion of the pickers that nobody uses.
func (t *Table) Idle() Changes {
	var c Changes
	for p, n := range t.refs {
		if n == 0 {
			c.DeletePickers = append(c.DeletePickers, p)
		}
	}
	c.sort()
	return c
}

// Written records that the kernel has changes now.
func (t *Table) Written(c Changes) {
	for _, e := range c.Delete {
		delete(t.kernel, e.Key)
		t.ref(e.Picker, -1)
	}
	for _, e := range c.Add {
		t.kernel[e.Key] = e.Value
		t.ref(e.Picker, 1)
	}
	for _, p := range c.DeletePickers {
		delete(t.refs, p)
	}
	if len(c.Add)+len(c.Delete) == 0 {
		return
	}
	for key := range t.dirty {
		if len(t.claims[key]) == 0 {
			delete(t.claims, key)
		}
	}
	clear(t.dirty)
}

// Rewritten records that the kernel has exactly c, which All returned.
func (t *Table) Rewritten(c Changes) {
	clear(t.kernel)
	clear(t.refs)
	t.Written(c)
}

// Sticky reports whether c takes endpoints away while clients are kept with theirs.
func (t *Table) Sticky(c Changes) bool {
	for _, e := range c.Delete {
		if e.Picker.Affinity > 0 {
			return true
		}
	}
	if len(c.Delete) == 0 {
		return false
	}
	for p := range t.refs {
		if p.Affinity > 0 {
			return true
		}
	}
	return false
}

func (t *Table) ref(p Picker, n int) {
	if p.isChain() {
		t.refs[p] += n
	}
}

// wanted returns the value of the first claim on key.
func (t *Table) wanted(key Key) (Value, bool) {
	cs := t.claims[key]
	if len(cs) == 0 {
		return Value{}, false
	}
	return cs[0].value, true
}

func (c *Changes) sort() {
	byName := func(a, b Picker) int { return cmp.Compare(a.Name(), b.Name()) }
	slices.SortFunc(c.AddPickers, byName)
	slices.SortFunc(c.DeletePickers, byName)
	sortElements(c.Add)
	sortElements(c.Delete)
}
