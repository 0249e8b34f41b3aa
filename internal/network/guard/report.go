package guard

import (
	"net/netip"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// standing is since when a policy is in force as it is.
type standing struct {
	uid        types.UID
	generation int64
	since      time.Time // zero where the kernel does not have it yet
}

// standings are those of all policies.
type standings struct {
	of       map[api.Key]standing
	revision int64 // the last change of policies that was heard of
	written  int64 // the last one that is in force
}

func newStandings() standings { return standings{of: map[api.Key]standing{}} }

func (s *standings) any() bool { return len(s.of) > 0 }

// heard notes a policy as it is now, or that it is gone. What changes neither what it says nor who it is leaves it in force.
func (s *standings) heard(i item) {
	if i.policy != nil { // nil where only its absence was noticed
		if n, err := strconv.ParseInt(i.policy.ResourceVersion, 10, 64); err == nil {
			s.revision = max(s.revision, n)
		}
	}
	if i.gone {
		delete(s.of, i.key)
		return
	}
	if old, known := s.of[i.key]; !known || old.uid != i.policy.UID || old.generation != i.policy.Generation {
		s.of[i.key] = standing{uid: i.policy.UID, generation: i.policy.Generation}
	}
}

// inForce notes that the kernel has all of them.
func (s *standings) inForce(now time.Time) {
	s.written = s.revision
	for key, st := range s.of {
		if st.since.IsZero() {
			st.since = now
			s.of[key] = st
		}
	}
}

// lost notes that somebody took the rules away.
func (s *standings) lost() {
	s.written = 0
	for key, st := range s.of {
		st.since = time.Time{}
		s.of[key] = st
	}
}

// report is what is in force, for those who ask.
type report struct {
	revision int64
	pods     map[netip.Addr]api.Key // of this node
	guards   map[guarded][]api.Key  // the policies that guard them
	since    map[api.Key]time.Time  // of policies that guard pods of this node
}

// guarded is one direction of an address of this node.
type guarded struct {
	policy.Direction
	addr netip.Addr
}

// report returns what is in force. It is the loop's.
func (g *Guard) report() report {
	r := report{revision: g.policies.written, pods: map[netip.Addr]api.Key{}, guards: map[guarded][]api.Key{}, since: map[api.Key]time.Time{}}
	for addr, a := range g.attached {
		r.pods[addr] = a.Pod
		for _, s := range g.sides {
			for d := range policy.NumDirections {
				of := s.model.PoliciesAt(d, addr)
				if len(of) == 0 {
					continue
				}
				r.guards[guarded{d, addr}] = of
				for _, key := range of {
					if st := g.policies.of[key]; !st.since.IsZero() {
						r.since[key] = st.since
					}
				}
			}
		}
	}
	return r
}

// inForce asks the loop for its report; ok is false once that has ended.
func (g *Guard) inForce() (r report, ok bool) {
	to := make(chan report, 1)
	select {
	case g.reports <- to:
		return <-to, true
	case <-g.ended:
		return r, false
	}
}
