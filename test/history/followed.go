package history

import (
	"cmp"
	"slices"
)

// segment is what a follower was told between two lists, without a gap.
type segment struct {
	list     *Op
	from     int64   // the list's revision
	complete int64   // every change up to here was told
	events   []Event // without the list
}

// segments takes what a follower was told apart.
func segments(f *Follower) []*segment {
	var out []*segment
	for _, e := range f.Events {
		if e.Type == Replaced {
			out = append(out, &segment{list: e.List, from: e.Rev, complete: e.Rev})
			continue
		}
		if len(out) == 0 {
			continue
		}
		s := out[len(out)-1]
		s.events = append(s.events, e)
		switch e.Type {
		case Bookmark:
			s.complete = max(s.complete, e.Rev)
		case Added, Modified, Deleted:
			s.complete = max(s.complete, e.Rev-1) // there may be more of the same revision
		}
	}
	return out
}

// checkFollowers checks that everybody who watches is told of every change, in order.
func (t *truth) checkFollowers() {
	var all []*state
	for _, states := range t.keys {
		for _, s := range states {
			if s.exact() {
				all = append(all, s)
			}
		}
	}
	slices.SortFunc(all, func(a, b *state) int { return cmp.Or(cmp.Compare(a.rev, b.rev), cmp.Compare(a.key, b.key)) })
	for _, f := range t.h.Followers {
		for _, s := range segments(f) {
			t.checkComplete(f, s, all)
			t.checkSegment(f, s)
		}
	}
}

// change is one change of one object.
type change struct {
	key string
	rev int64
}

func (t *truth) checkComplete(f *Follower, s *segment, all []*state) {
	seen := map[change]bool{}
	for _, e := range s.events {
		seen[change{e.Key, e.Rev}] = true
	}
	first, _ := slices.BinarySearchFunc(all, s.from+1, func(s *state, rev int64) int { return cmp.Compare(s.rev, rev) })
	for _, c := range all[first:] {
		if c.rev > s.complete {
			return
		}
		// What its writer alone has seen is lost, which is said elsewhere.
		if !seen[change{c.key, c.rev}] && (c.sighted || c.value == "") {
			t.fail("%s followed all changes from revision %d to %d but was not told of %s = %s", f, s.from, s.complete, c.key, c)
		}
	}
}

// checkSegment checks the order of what a follower was told, and that each event fits those before it.
func (t *truth) checkSegment(f *Follower, s *segment) {
	objects := map[string]Version{}
	for key, v := range s.list.Items {
		objects[key] = v
	}
	var resumed, last int64
	seen := map[change]bool{}
	for _, e := range s.events {
		if e.Type == Connected {
			resumed, last = e.Rev, e.Rev
			continue
		}
		if e.Rev < last {
			t.fail("%s was told of revision %d after %d: %s", f, e.Rev, last, e)
		}
		last = max(last, e.Rev)
		if e.Type == Bookmark {
			continue
		}
		c, before := change{e.Key, e.Rev}, objects[e.Key]
		if again := seen[c] || before.Rev == e.Rev; again {
			if e.Rev != resumed {
				t.fail("%s was told twice: %s", f, e)
			}
			continue
		}
		seen[c] = true
		if e.Rev == s.from { // deleted at the list's own revision, which is told again
			continue
		}
		if there := before.Value != ""; there == (e.Type == Added) {
			t.fail("%s was told what does not fit %s, which it knew: %s", f, before, e)
		}
		objects[e.Key] = Version{e.Value, e.Rev}
		if e.Type == Deleted {
			objects[e.Key] = Version{"", e.Rev}
		}
	}
}
