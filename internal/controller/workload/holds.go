package workload

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// The pauses before a pod that has failed is replaced, where its predecessors in the same place had failed as well.
const (
	firstHold   = time.Second
	longestHold = 5 * time.Minute
)

// Holds remembers how often pods failed one after the other in the same place - a name, or a node - where only one can be at a time, so
// that what failed before is gone. It is a memory of convenience: forgetting costs one pod that is replaced at once.
type Holds struct {
	mu    sync.Mutex
	known map[api.Key]map[string]*hold // by owner and place
}

type hold struct {
	failed  types.UID // the last pod that failed
	at      time.Time
	fails   int
	release time.Time // when it may be replaced
}

// NewHolds returns Holds that know of no failure.
func NewHolds() *Holds { return &Holds{known: map[api.Key]map[string]*hold{}} }

// Until returns when each of pods that have failed may be replaced: the first at once, the next after a pause that doubles. A pod that
// has become ready, or a place that was quiet for twice the longest pause, begins anew.
func (h *Holds) Until(owner api.Key, pods []*corev1.Pod, now time.Time) map[types.UID]time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	places := h.known[owner]
	var out map[types.UID]time.Time
	for _, p := range pods {
		place := placeOf(p)
		switch {
		case podstate.Ready(p) && places[place] != nil:
			delete(places, place)
		case p.Status.Phase == corev1.PodFailed && p.DeletionTimestamp == nil:
			if places == nil {
				places = map[string]*hold{}
				h.known[owner] = places
			}
			if out == nil {
				out = map[types.UID]time.Time{}
			}
			out[p.UID] = next(places, place, p.UID, now)
		}
	}
	return out
}

// next notes that a pod failed in a place, and returns when it may be replaced.
func next(places map[string]*hold, place string, uid types.UID, now time.Time) time.Time {
	was := places[place]
	if was != nil && was.failed == uid {
		return was.release
	}
	if was == nil || now.Sub(was.at) > 2*longestHold {
		was = &hold{}
		places[place] = was
	}
	pause := time.Duration(0)
	if was.fails > 0 {
		pause = min(firstHold<<min(was.fails-1, 20), longestHold)
	}
	was.failed, was.at, was.release = uid, now, now.Add(pause)
	was.fails++
	return was.release
}

// placeOf is where no second pod of the same owner is: the node that a name has been made up for, else the name.
func placeOf(p *corev1.Pod) string {
	if p.GenerateName != "" {
		return TargetNode(p)
	}
	return p.Name
}

// Forget drops what is known of an owner, which is gone.
func (h *Holds) Forget(owner api.Key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.known, owner)
}
