package store

// history keeps the last events of a table, for watches that begin in the past. States that newer ones have replaced are of use to nobody
// else, and there may be more of them than there are objects: all but the latest are kept in their stored form, which takes a
// quarter of the memory, and decoded for who asks.
type history struct {
	max, maxBytes int
	entries       []entry
	frozen        int   // this many entries from the first have a state before in stored form
	bytes         int   // in stored form
	floor         int64 // the oldest revision from which a watch can resume
}

const (
	// historyBytes is how many bytes of replaced states are kept of one resource: of pods, some five thousand.
	historyBytes = 6 << 20
	// historyWarm is how many of the newest events keep their objects: most who resume were away for a moment.
	historyWarm = 256
)

// entry is one event.
type entry struct {
	typ      EventType
	batch    bool
	rev      int64
	new, old *record // new is nil for Deleted: it is old at another revision
}

// record is one state of one object, shared by the event that brought it and the one that replaced it.
type record struct {
	revision *Revision // nil once it is frozen
	key      string
	rev      int64
	value    []byte
}

// after tells whether the event is to be told to a watch that resumes from revision from.
func (e *entry) after(from int64) bool { return e.rev > from || e.rev == from && e.batch }

func (h *history) add(e Event) {
	if e.Revision.Rev < h.floor {
		return // told after a load, out of order: nobody can ask for it
	}
	n := entry{typ: e.Type, batch: e.batch, rev: e.Revision.Rev}
	if e.Old != nil {
		n.old = e.Old.recorded()
	}
	if e.Type != Deleted {
		n.new = e.Revision.recorded()
	}
	h.entries = append(h.entries, n)
	for len(h.entries) > h.max || h.bytes > h.maxBytes && len(h.entries) > historyWarm {
		h.forget()
	}
}

// forget drops the oldest event.
func (h *history) forget() {
	first := &h.entries[0]
	// Who resumes from the revision of a batch gets all of it again. Once a part is forgotten that is no longer possible.
	h.floor = first.rev
	if first.batch {
		h.floor++
	}
	if h.frozen > 0 {
		h.frozen--
		if first.old != nil {
			h.bytes -= len(first.old.value)
		}
	}
	*first = entry{}
	h.entries = h.entries[1:]
}

// frozen is a state in stored form, to be kept instead of its record's object.
type frozen struct {
	record *record
	value  []byte
}

// freeze encodes the replaced states of events that are no longer among the newest. It may be called by the one goroutine that
// changes the history, without the lock: settle makes it so.
func (h *history) freeze(encode func(Object) ([]byte, error)) (out []frozen, upTo int) {
	upTo = max(h.frozen, len(h.entries)-historyWarm)
	for _, e := range h.entries[h.frozen:upTo] {
		if e.old == nil || e.old.revision == nil {
			continue
		}
		if value, err := encode(e.old.revision.Object); err == nil {
			out = append(out, frozen{e.old, value})
		}
	}
	return out, upTo
}

// settle puts what freeze made in place. The store's lock is held.
func (h *history) settle(states []frozen, upTo int) {
	for _, f := range states {
		f.record.revision, f.record.value = nil, f.value
		h.bytes += len(f.value)
	}
	h.frozen = upTo
}

// past is an event as it was found under the store's lock.
type past struct {
	entry
	newState, oldState record
}

// since returns the events after revision from, and those of from itself where from was a batch. The store's lock is held.
func (h *history) since(from int64) ([]past, bool) {
	if from < h.floor {
		return nil, false
	}
	i := len(h.entries)
	for i > 0 && h.entries[i-1].after(from) {
		i--
	}
	out := make([]past, 0, len(h.entries)-i)
	for _, e := range h.entries[i:] {
		p := past{entry: e}
		if e.new != nil {
			p.newState = *e.new
		}
		if e.old != nil {
			p.oldState = *e.old
		}
		out = append(out, p)
	}
	return out, true
}

// events decodes what since found; no lock is needed.
func events(found []past, decode func([]byte) (Object, error)) ([]Event, error) {
	out := make([]Event, len(found))
	known := map[*record]*Revision{} // a state stands in two events
	state := func(r *record, s *record) (*Revision, error) {
		if r == nil || s.revision != nil {
			return s.revision, nil
		}
		if rev := known[r]; rev != nil {
			return rev, nil
		}
		obj, err := decode(s.value)
		if err != nil {
			return nil, err
		}
		obj.SetResourceVersion(FormatRevision(s.rev))
		known[r] = &Revision{Key: s.key, Rev: s.rev, Object: obj}
		return known[r], nil
	}
	for i := range found {
		p := &found[i]
		e := Event{Type: p.typ, batch: p.batch}
		var err error
		if e.Old, err = state(p.old, &p.oldState); err != nil {
			return nil, err
		}
		if p.typ == Deleted {
			e.Revision = &Revision{Key: e.Old.Key, Rev: p.rev, Object: deletedAt(e.Old.Object, p.rev)}
		} else if e.Revision, err = state(p.new, &p.newState); err != nil {
			return nil, err
		}
		out[i] = e
	}
	return out, nil
}
