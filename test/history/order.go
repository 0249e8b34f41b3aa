package history

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// bounds are what is known about etcd's revision at a time.
type bounds struct {
	times  []time.Duration // at which a newer revision became known
	revs   []int64
	calls  []time.Duration // of writes that were done, latest first
	oldest []int64         // the oldest revision of the writes that began then or later
}

func newBounds(t *truth) *bounds {
	type at struct {
		time time.Duration
		rev  int64
	}
	var known, begun []at
	for _, o := range t.h.Ops {
		if rev := max(o.Rev, o.Found.Rev); o.Outcome == Done && rev > 0 {
			known = append(known, at{o.Return, rev})
		}
	}
	for _, f := range t.h.Followers {
		for _, e := range f.Events {
			known = append(known, at{e.At, e.Rev})
		}
	}
	for value, s := range t.values {
		if o := t.writes[value]; o != nil {
			begun = append(begun, at{o.Call, s.rev})
		}
	}
	b := &bounds{}
	slices.SortFunc(known, func(a, b at) int { return cmp.Compare(a.time, b.time) })
	newest := int64(0)
	for _, k := range known {
		if k.rev > newest {
			newest = k.rev
			b.times, b.revs = append(b.times, k.time), append(b.revs, k.rev)
		}
	}
	slices.SortFunc(begun, func(a, b at) int { return cmp.Compare(b.time, a.time) })
	oldest := int64(never)
	for _, k := range begun {
		oldest = min(oldest, k.rev)
		b.calls, b.oldest = append(b.calls, k.time), append(b.oldest, oldest)
	}
	return b
}

// floor is the newest revision that anybody knew before a time: whatever is done later comes after it, whatever is read then is not older.
func (b *bounds) floor(at time.Duration) int64 {
	i, _ := slices.BinarySearch(b.times, at)
	if i == 0 {
		return 0
	}
	return b.revs[i-1]
}

// ceil is the oldest revision of the writes that began after a time: whatever was answered by then is older.
func (b *bounds) ceil(at time.Duration) int64 {
	i, _ := slices.BinarySearchFunc(b.calls, at, func(call, at time.Duration) int {
		if call > at {
			return -1
		}
		return 1
	})
	if i == 0 {
		return never
	}
	return b.oldest[i-1]
}

// checkOrder holds every answer against the order of revisions.
func (t *truth) checkOrder() {
	for _, o := range t.h.Ops {
		from, to := t.bounds.floor(o.Call), t.bounds.ceil(o.Return)-1
		switch {
		case o.Kind == Create || o.Kind == Update:
			t.checkWrite(o, from, to)
		case o.Kind == Delete:
			t.checkRefusal(o, from, to)
		case o.Outcome != Done:
		case o.Kind == Read:
			if !t.possible(o.Key, from, to, func(value string) bool { return value == o.Found.Value }) {
				t.fail("a read found what was no longer, or not yet, there: between revision %d, known before, and %d it was: %s\n    %s", from, to, t.told(o.Key, from, to), o)
			}
		case o.Kind == List:
			if o.Rev < from || o.Rev > to {
				t.fail("a list is not of its time, which is from revision %d to %d: %s", from, to, o)
			}
		}
	}
	t.checkLists()
}

func (t *truth) checkWrite(o *Op, from, to int64) {
	s := t.values[o.Value]
	if s == nil {
		t.checkRefusal(o, from, to)
		return
	}
	if o.Outcome != Done {
		to = never // it may be done later
	}
	if s.rev <= from || s.rev > to {
		t.fail("a write took effect at revision %d, outside of its time from %d to %d: %s", s.rev, from+1, to, o)
	}
	states := t.keys[o.Key]
	before := &state{key: o.Key}
	if i := slices.Index(states, s); i > 0 {
		before = states[i-1]
		if before.maybe && before.value != o.Expect.Value {
			before = states[i-2] // a deletion that did not happen
		}
	}
	if before.value != o.Expect.Value { // of a Create nothing
		t.fail("a write took effect at revision %d on %s, which is not what it was made from: %s", s.rev, before, o)
	}
	if o.Outcome == Done && !s.sighted && t.covered(s.rev, s.rev) {
		t.fail("an acknowledged write was lost, nobody else has seen it: %s", o)
	}
}

// checkRefusal checks that there was a reason to refuse.
func (t *truth) checkRefusal(o *Op, from, to int64) {
	if o.Outcome != Refused {
		return
	}
	match := map[string]func(value string) bool{
		AlreadyExists: func(value string) bool { return value != "" && o.Kind == Create },
		Conflict:      func(value string) bool { return value != "" && value != o.Expect.Value && o.Kind != Create },
		NotFound:      func(value string) bool { return value == "" && o.Kind != Create },
	}[o.Reason]
	switch {
	case match == nil:
		t.fail("an answer that should not be: %s", o)
	case !t.possible(o.Key, from, to, match):
		t.fail("refused without a reason: between revision %d, known before, and %d it was: %s\n    %s", from, to, t.told(o.Key, from, to), o)
	}
}

// checkLists checks that each list is what all keys were at its revision.
func (t *truth) checkLists() {
	// Most keys are not there most of the time: only those are looked at that can be.
	type turn struct {
		rev   int64
		key   string
		there bool
	}
	var turns []turn
	for key, states := range t.keys {
		for _, s := range states {
			if s.value != "" || !s.maybe {
				turns = append(turns, turn{s.rev, key, s.value != ""})
			}
		}
	}
	slices.SortFunc(turns, func(a, b turn) int { return cmp.Compare(a.rev, b.rev) })
	var lists []*Op
	for _, o := range t.h.Ops {
		if o.Kind == List && o.Outcome == Done {
			lists = append(lists, o)
		}
	}
	slices.SortStableFunc(lists, func(a, b *Op) int { return cmp.Compare(a.Rev, b.Rev) })
	there := map[string]bool{}
	for _, o := range lists {
		for len(turns) > 0 && turns[0].rev <= o.Rev {
			if turns[0].there {
				there[turns[0].key] = true
			} else {
				delete(there, turns[0].key)
			}
			turns = turns[1:]
		}
		for key := range there {
			t.checkItem(o, key)
		}
		for key := range o.Items {
			if !there[key] {
				t.checkItem(o, key)
			}
		}
	}
}

func (t *truth) checkItem(o *Op, key string) {
	item := o.Items[key]
	if !t.possible(key, o.Rev, o.Rev, func(value string) bool { return value == item.Value }) {
		t.fail("a list at revision %d has %s as %s, but it was: %s\n    %s", o.Rev, key, item, t.told(key, o.Rev, o.Rev), o)
	}
}

// checkDeletions checks that whatever was deleted was deleted by somebody, in time.
func (t *truth) checkDeletions() {
	for key, states := range t.keys {
		for i, s := range states {
			if s.value != "" || !s.exact() {
				continue
			}
			if i == 0 || states[i-1].value == "" {
				t.fail("key %s was deleted at revision %d though it was not there", key, s.rev)
				continue
			}
			by := t.deletes[states[i-1].value]
			if len(by) == 0 {
				t.fail("key %s was deleted at revision %d as %s; nobody asked for that", key, s.rev, states[i-1])
				continue
			}
			earliest := int64(math.MaxInt64)
			for _, o := range by {
				earliest = min(earliest, t.bounds.floor(o.Call)+1)
			}
			if s.rev < earliest {
				t.fail("key %s was deleted at revision %d, before anybody asked for it: %s", key, s.rev, by[0])
			}
			if len(by) == 1 && by[0].Outcome == Done && s.rev >= t.bounds.ceil(by[0].Return) {
				t.fail("a deletion took effect at revision %d, after it was acknowledged: %s", s.rev, by[0])
			}
		}
	}
}
