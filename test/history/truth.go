package history

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// never is a revision after all others.
const never = math.MaxInt64

// state is what a key held from a revision on. Where nobody saw when an object was deleted, that was at some revision from lo to rev.
type state struct {
	key     string
	value   string // "": nothing
	lo, rev int64
	maybe   bool // a deletion that may not have happened
	sighted bool // by somebody else than its writer
}

func (s *state) exact() bool { return s.lo == s.rev }

func (s *state) String() string {
	switch {
	case s.exact():
		return Version{s.value, s.rev}.String() + map[bool]string{true: fmt.Sprintf(" since @%d", s.rev)}[s.value == ""]
	default:
		return fmt.Sprintf("nothing since some revision of %d-%d", s.lo, s.rev)
	}
}

// truth is what each key held when, put together from everything that anybody was told. It notes contradictions.
type truth struct {
	*verdict
	h       *History
	writes  map[string]*Op   // by the value they write
	deletes map[string][]*Op // those that may have been done, by the value that they delete
	keys    map[string][]*state
	values  map[string]*state // by value
	spans   []span            // in which followers saw every change
	bounds  *bounds
}

func newTruth(h *History, v *verdict) *truth {
	t := &truth{verdict: v, h: h, writes: map[string]*Op{}, deletes: map[string][]*Op{}, keys: map[string][]*state{}, values: map[string]*state{}}
	for _, o := range h.Ops {
		switch {
		case o.Kind == Create || o.Kind == Update:
			t.writes[o.Value] = o
		case o.Kind == Delete && (o.Outcome == Done || o.Outcome == Unknown):
			t.deletes[o.Expect.Value] = append(t.deletes[o.Expect.Value], o)
		}
	}
	t.gather()
	t.spans = spansOf(h.Followers)
	t.bounds = newBounds(t)
	for key, states := range t.keys {
		t.keys[key] = t.inferDeletions(states)
	}
	return t
}

// gather takes in everything that anybody was told of any object.
func (t *truth) gather() {
	seen := map[string]map[int64]*state{}
	sight := func(key string, v Version, by fmt.Stringer, own bool) {
		if v.Rev <= 0 {
			t.fail("an answer has no revision: %s", by)
			return
		}
		if seen[key] == nil {
			seen[key] = map[int64]*state{}
		}
		s := seen[key][v.Rev]
		if s == nil {
			s = &state{key: key, value: v.Value, lo: v.Rev, rev: v.Rev}
			seen[key][v.Rev] = s
			t.keys[key] = append(t.keys[key], s)
			t.newValue(s, by)
		}
		s.sighted = s.sighted || !own
		if s.value != v.Value {
			t.fail("at revision %d key %s was both %q and %q: %s", v.Rev, key, s.value, v.Value, by)
		}
	}
	for _, o := range t.h.Ops {
		if o.Outcome != Done {
			continue
		}
		switch o.Kind {
		case Create, Update:
			if o.Found.Value != o.Value {
				t.fail("a write was answered with another value, %s: %s", o.Found, o)
			}
			sight(o.Key, o.Found, o, true)
		case Read:
			if o.Found.Value != "" {
				sight(o.Key, o.Found, o, false)
			}
		case List:
			for key, v := range o.Items {
				sight(key, v, o, false)
			}
		}
	}
	for _, f := range t.h.Followers {
		for _, e := range f.Events {
			switch e.Type {
			case Added, Modified:
				sight(e.Key, Version{e.Value, e.Rev}, e, false)
			case Deleted:
				sight(e.Key, Version{"", e.Rev}, e, false)
			}
		}
	}
	for _, states := range t.keys {
		slices.SortFunc(states, func(a, b *state) int { return cmp.Compare(a.rev, b.rev) })
	}
}

// newValue checks where a value comes from.
func (t *truth) newValue(s *state, by fmt.Stringer) {
	if s.value == "" {
		return
	}
	o := t.writes[s.value]
	switch {
	case o == nil:
		t.fail("key %s has value %s, which nobody wrote: %s", s.key, s.value, by)
	case o.Key != s.key:
		t.fail("key %s has value %s, which was written to another key: %s", s.key, s.value, o)
	case o.Outcome == Refused || o.Outcome == NotSent:
		t.fail("a write that was not done took effect at revision %d: %s", s.rev, o)
	}
	if before := t.values[s.value]; before != nil {
		t.fail("value %s has two revisions, %d and %d: %s", s.value, before.rev, s.rev, by)
	}
	t.values[s.value] = s
}

// inferDeletions adds the deletions that no follower was told of: those that were acknowledged, and those without which the next write
// could not have happened.
func (t *truth) inferDeletions(states []*state) []*state {
	var out []*state
	for i, s := range states {
		out = append(out, s)
		var next *state
		if i+1 < len(states) {
			next = states[i+1]
		}
		if s.value == "" || next != nil && next.value == "" {
			continue
		}
		d := &state{key: s.key, lo: s.rev + 1, rev: never, maybe: true}
		if next != nil {
			d.rev = next.rev - 1
			if o := t.writes[next.value]; o != nil && o.Kind == Create {
				d.maybe = false
			}
		}
		for _, o := range t.deletes[s.value] {
			if o.Outcome == Done {
				d.maybe = false
				d.rev = min(d.rev, t.bounds.ceil(o.Return)-1)
			}
		}
		switch {
		case len(t.deletes[s.value]) == 0 && d.maybe:
		case len(t.deletes[s.value]) == 0:
			t.fail("key %s was created anew as %s though nobody had deleted %s", s.key, next, s)
		case !t.unseen(d):
			if !d.maybe {
				t.fail("key %s: there is no deletion of %s among the changes that followers saw, though it must have happened: %s", s.key, s, t.deletes[s.value][0])
			}
		default:
			out = append(out, d)
		}
	}
	return out
}

// unseen narrows d down to when no follower watched, and reports whether anything is left.
func (t *truth) unseen(d *state) bool {
	for _, s := range t.spans {
		if s.from <= d.lo && d.lo <= s.to {
			d.lo = s.to + 1
		}
	}
	for _, s := range slices.Backward(t.spans) {
		if s.from <= d.rev && d.rev <= s.to {
			d.rev = s.from - 1
		}
	}
	return d.lo <= d.rev
}

// span is a range of revisions, both included.
type span struct{ from, to int64 }

// spansOf returns the revisions in which some follower was told of every change.
func spansOf(followers []*Follower) []span {
	var all []span
	for _, f := range followers {
		for _, s := range segments(f) {
			if s.complete >= s.from+1 {
				all = append(all, span{s.from + 1, s.complete})
			}
		}
	}
	slices.SortFunc(all, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var merged []span
	for _, s := range all {
		if n := len(merged); n > 0 && s.from <= merged[n-1].to+1 {
			merged[n-1].to = max(merged[n-1].to, s.to)
		} else {
			merged = append(merged, s)
		}
	}
	return merged
}

// covered reports whether followers saw every change from one revision to another.
func (t *truth) covered(from, to int64) bool {
	return slices.ContainsFunc(t.spans, func(s span) bool { return s.from <= from && to <= s.to })
}

// possible reports whether key was in a state that matches at any revision from one to another.
func (t *truth) possible(key string, from, to int64, match func(value string) bool) bool {
	states := t.keys[key]
	current := &state{key: key}
	for i := 0; ; i++ {
		last := int64(never) // revision at which current can still have been
		for j := i; j < len(states); j++ {
			if !states[j].maybe {
				last = states[j].rev - 1
				break
			}
		}
		if current.lo <= to && last >= from && match(current.value) {
			return true
		}
		if i == len(states) || states[i].lo > to {
			return false
		}
		current = states[i]
	}
}

// told says in words what a key was around some revisions.
func (t *truth) told(key string, from, to int64) string {
	out := "never there"
	for _, s := range t.keys[key] {
		switch {
		case s.rev <= from:
			out = s.String()
		case s.lo <= to:
			out += ", " + s.String()
		}
	}
	return out
}
