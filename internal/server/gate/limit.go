package gate

import (
	"net/http"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/server/call"
)

// limits bound how many requests are served at a time. Watches and streams wait for most of their life and are not counted;
// reads and writes have slots of their own, so that neither starves the other.
type limits struct {
	reads, writes chan struct{}
}

func newLimits(reads, writes int) *limits {
	if reads == 0 {
		reads = 400
	}
	if writes == 0 {
		writes = 200
	}
	return &limits{make(chan struct{}, reads), make(chan struct{}, writes)}
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
	select {
	case slots <- struct{}{}:
		return func() { <-slots }, nil
	default:
		e := apierrors.NewGenericServerResponse(http.StatusTooManyRequests, t.Verb, schema.GroupResource{}, "", "", 1, true)
		e.ErrStatus.Message = "Too many requests, please try again later."
		return nil, e
	}
}

// exempt are those who must get through whatever others do: administrators who come to help, and nodes, whose silence would
// be taken for death.
func exempt(who user.Info) bool {
	if who == nil {
		return false
	}
	return slices.Contains(who.GetGroups(), user.SystemPrivilegedGroup) || slices.Contains(who.GetGroups(), user.NodesGroup)
}
