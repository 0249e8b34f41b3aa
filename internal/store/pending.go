package store

import "bytes"

// pending is an object that a writer in this process is storing. The applier puts it into the copy when its bytes come back from the
// backend, rather than decode them. Writers whose bytes are the same stand in for one another: whichever object is taken first
// is shared from then on, even if its own writer is the one that is refused. (Only one of them is not refused: what is created has a
// UID of its own, and what is updated is at one revision only once.)
type pending struct {
	full   string
	value  []byte
	object Object
	taken  bool
}

func (s *Store) addPending(list []*pending) {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	for _, p := range list {
		s.pending[p.full] = append(s.pending[p.full], p)
	}
}

// settle takes list back: the writer has its outcome, or waits no longer. If the write was made, at rev, an object that was not
// taken gets its resourceVersion here.
func (s *Store) settle(list []*pending, rev int64) {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	for _, p := range list {
		rest := s.pending[p.full]
		for i := range rest {
			if rest[i] == p {
				rest = append(rest[:i:i], rest[i+1:]...)
				break
			}
		}
		if len(rest) == 0 {
			delete(s.pending, p.full)
		} else {
			s.pending[p.full] = rest
		}
		if !p.taken && rev > 0 {
			p.object.SetResourceVersion(FormatRevision(rev))
		}
	}
}

// takePending returns the object that a writer in this process encoded to value, once, as it is at rev; nil if there is none.
func (s *Store) takePending(full string, value []byte, rev int64) Object {
	s.pendingMu.Lock()
	defer s.pendingMu.Unlock()
	for _, p := range s.pending[full] {
		if !p.taken && bytes.Equal(p.value, value) {
			p.taken = true
			p.object.SetResourceVersion(FormatRevision(rev))
			return p.object
		}
	}
	return nil
}
