package daemonset

import (
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// resolve turns a number or percentage of n into a number, rounded up. Validation has refused what does not parse.
func resolve(v *intstr.IntOrString, n int) int {
	got, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), n, true)
	if err != nil {
		return 0
	}
	return got
}

// surges reports whether updates make the new pod before the old one goes.
func (s *step) surges() bool {
	u := s.ds.Spec.UpdateStrategy
	return u.Type == appsv1.RollingUpdateDaemonSetStrategyType && u.RollingUpdate != nil && resolve(u.RollingUpdate.MaxSurge, 1) > 0
}

// bounds returns maxSurge and maxUnavailable as numbers of nodes. If both come to nothing, one pod may be missing, or an update could
// not move.
func (s *step) bounds() (surge, unavailable int) {
	n := int(s.act.status.DesiredNumberScheduled)
	if ru := s.ds.Spec.UpdateStrategy.RollingUpdate; ru != nil {
		surge, unavailable = resolve(ru.MaxSurge, n), resolve(ru.MaxUnavailable, n)
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return surge, unavailable
}

// pair returns the pods of a node that are not being deleted, one new and one old. ok is false where there are more.
func (s *step) pair(at *site) (fresh, old *corev1.Pod, ok bool) {
	for _, p := range at.pods {
		switch {
		case p.DeletionTimestamp != nil:
		case s.updated(p) && fresh == nil:
			fresh = p
		case !s.updated(p) && old == nil:
			old = p
		default:
			return nil, nil, false
		}
	}
	return fresh, old, true
}

// inUse reports whether a node counts in an update: one that is to have a pod, or has one.
func (at *site) inUse() bool { return at.run || len(at.pods) > 0 }

// roll deletes old pods, of which at most unavailable nodes are without one. Those that are not available anyway go first, all of them.
func (s *step) roll(unavailable int) {
	missing := 0
	var replace, candidates []*corev1.Pod
	for _, at := range s.sites {
		if !at.inUse() {
			continue
		}
		fresh, old, ok := s.pair(at)
		switch {
		case !ok || (fresh == nil) == (old == nil):
			missing++
		case fresh != nil:
			if !s.available(fresh) {
				missing++
			}
		case !s.available(old):
			replace = append(replace, old)
			missing++
		default:
			candidates = append(candidates, old)
		}
	}
	for _, p := range append(replace, candidates[:min(max(unavailable-missing, 0), len(candidates))]...) {
		s.remove(p)
	}
}

// surge makes new pods beside old ones on at most limit nodes, and on all where the old one is not available. An old pod goes when
// the new one is available. One on a node that is no longer eligible goes only when as many others are available as are to be.
func (s *step) surge(limit int) {
	surging, available := 0, 0
	var candidates []*site
	var leaving []*corev1.Pod
	for _, at := range s.sites {
		fresh, old, ok := s.pair(at)
		if !ok {
			surging++
			continue
		}
		if first := firstOf(old, fresh); first != nil && s.available(first) {
			available++
		}
		switch {
		case old == nil:
		case fresh != nil && s.available(fresh):
			s.remove(old)
		case fresh != nil:
			surging++
		case !at.run && s.available(old):
			leaving = append(leaving, old)
		case !at.run:
			s.remove(old)
		case !s.available(old):
			s.create(at)
		default:
			candidates = append(candidates, at)
		}
	}
	spare := available - int(s.act.status.DesiredNumberScheduled)
	for _, p := range leaving[:min(max(spare, 0), len(leaving))] {
		s.remove(p)
	}
	for _, at := range candidates[:min(max(limit-surging, 0), len(candidates))] {
		s.create(at)
	}
}

func firstOf(pods ...*corev1.Pod) *corev1.Pod {
	for _, p := range pods {
		if p != nil {
			return p
		}
	}
	return nil
}

// count fills the status.
func (s *step) count() {
	st := appsv1.DaemonSetStatus{ObservedGeneration: s.ds.Generation, CollisionCount: s.obs.collisions, Conditions: s.ds.Status.Conditions}
	for _, at := range s.sites {
		switch {
		case at.node == nil:
		case !at.run:
			if len(at.pods) > 0 {
				st.NumberMisscheduled++
			}
		default:
			st.DesiredNumberScheduled++
			if len(at.pods) == 0 {
				continue
			}
			st.CurrentNumberScheduled++
			oldest := at.pods[0]
			if podstate.Ready(oldest) {
				st.NumberReady++
				if s.available(oldest) {
					st.NumberAvailable++
				}
			}
			if s.updated(oldest) {
				st.UpdatedNumberScheduled++
			}
		}
	}
	st.NumberUnavailable = st.DesiredNumberScheduled - st.NumberAvailable
	s.act.status = st
}
