package gate

import (
	"net/http"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/call"
)

// limits bound how much is served at a time. Watches and streams wait for most of their life and are not counted; reads and
// writes have slots of their own, so that neither starves the other; what bodies hold while they arrive is counted in bytes.
type limits struct {
	reads, writes *share
	bodies        *share
}

// bodyBytes bounds the bodies that are on their way in, in all.
const bodyBytes = 256 << 20

func newLimits(reads, writes int) *limits {
	if reads == 0 {
		reads = 400
	}
	if writes == 0 {
		writes = 200
	}
	return &limits{newShare(reads), newShare(writes), newShare(bodyBytes)}
}

// acquire takes a slot, or answers 429 at once: the client has a back-off, the server needs none.
func (l *limits) acquire(t *call.Target) (release func(), err error) {
	slots := l.writes
	switch t.Verb {
	case "watch":
		return func() {}, nil
	case "get", "list":
		slots = l.reads
	}
	if t.Connects() || exempt(t.User) {
		return func() {}, nil
	}
	if !slots.take(t.User.GetName(), 1) {
		return nil, errTooMany(t)
	}
	return func() { slots.give(t.User.GetName(), 1) }, nil
}

func errTooMany(t *call.Target) error {
	err := apierrors.NewGenericServerResponse(http.StatusTooManyRequests, t.Verb, schema.GroupResource{}, "", "", 1, true)
	err.ErrStatus.Message = "Too many requests, please try again later."
	return err
}

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
