package gate

import (
	"slices"
	"sync"

	"k8s.io/apiserver/pkg/authentication/user"
)

// bodyBytes bounds the bodies that are on their way in, in all.
const bodyBytes = 256 << 20

// exempt reports whether a user must get through whatever others do: administrators who come to help, and nodes, whose silence
// would be taken for death.
func exempt(who user.Info) bool {
	if who == nil {
		return false
	}
	return slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) || slices.Contains(who.GetGroups(), user.NodesGroup)
}

// share is something that users share. A user may hold no more than what remains free for all others: one alone gets half of
// it, and whoever comes next always finds something.
type share struct {
	size int

	mu   sync.Mutex
	used int
	held map[string]int
}

func newShare(size int) *share { return &share{size: size, held: map[string]int{}} }

// take takes n for a user and reports whether there was room for it.
func (s *share) take(who string, n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if free := s.size - s.used - n; free < 0 || s.held[who]+n > max(free, 1) {
		return false
	}
	s.used += n
	s.held[who] += n
	return true
}

// give gives n back.
func (s *share) give(who string, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= n
	if s.held[who] -= n; s.held[who] == 0 {
		delete(s.held, who)
	}
}

// taken is how much is in use.
func (s *share) taken() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.used
}
