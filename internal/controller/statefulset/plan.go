package statefulset

import (
	"slices"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// burst is how many pods one step of a set with parallel pod management creates at most, as in Kubernetes.
const burst = 500

// revision is a template under its name.
type revision struct {
	name     string
	template *corev1.PodTemplateSpec
}

// observed is what a plan is made from.
type observed struct {
	selector labels.Selector
	pods     []*corev1.Pod // those the set controls and those nobody controls
	claims   map[string]*corev1.PersistentVolumeClaim
	current  revision // what pods were made from before the update that is under way
	update   revision // what they are to be made from
	// collisions is how many names of revisions were taken.
	collisions int32
	// holds says of pods that have ended when they may be replaced; one that is not there may be at once.
	holds map[types.UID]time.Time
}

// actions is what to do about a StatefulSet.
type actions struct {
	adopt, release []*corev1.Pod
	claims         []*corev1.PersistentVolumeClaim // to be created
	owned          []*corev1.PersistentVolumeClaim // to be stored with these owner references
	conflicting    []string                        // claims that somebody else controls
	create         []*corev1.Pod
	mend           []*corev1.Pod // to be stored with these labels and volumes
	replace        []*corev1.Pod // have ended, or are broken; to be deleted
	condemn        []*corev1.Pod // beyond the replicas; to be deleted
	outdated       []*corev1.Pod // to be deleted if nothing else failed
	status         appsv1.StatefulSetStatus
	after          time.Duration // until another look is due; 0: none is
	more           bool          // the burst limit cut the step short
	blocked        string        // the claim that is being deleted and keeps a pod from being made
}

// wrote reports whether the pods are others after act.
func (a *actions) wrote() bool {
	return len(a.adopt)+len(a.release)+len(a.create)+len(a.mend)+len(a.replace)+len(a.condemn)+len(a.outdated) > 0
}

// member is a pod of the set and its ordinal.
type member struct {
	*corev1.Pod
	ordinal int
}

// step is one plan in the making.
type step struct {
	set       *appsv1.StatefulSet
	obs       observed
	now       time.Time
	replicas  []member // lowest ordinal first
	condemned []member // highest ordinal first
	act       actions
}

// plan decides the next step of set.
func plan(set *appsv1.StatefulSet, obs observed, now time.Time) actions {
	s := &step{set: set, obs: obs, now: now}
	s.sort()
	s.count()
	if set.DeletionTimestamp != nil {
		return s.act
	}
	ready := s.keep()
	if ready || s.parallel() {
		for _, m := range s.condemned {
			s.own(m.Pod)
		}
		if s.condemn() || s.parallel() {
			s.roll()
		}
	}
	return s.act
}

func (s *step) parallel() bool { return s.set.Spec.PodManagementPolicy == appsv1.ParallelPodManagement }

// start and end bound the ordinals of the set; end is not one of them.
func (s *step) start() int { return startOf(s.set) }
func (s *step) end() int   { return startOf(s.set) + int(*s.set.Spec.Replicas) }

// sort splits the pods into those to adopt, to release, to keep and to delete.
func (s *step) sort() {
	mine, adopt, release := claim(s.set, s.obs.selector, s.obs.pods)
	s.act.adopt, s.act.release = adopt, release
	for _, p := range slices.Concat(mine, adopt) {
		switch m := (member{p, ordinalOf(p)}); {
		case m.ordinal < 0:
		case m.ordinal >= s.start() && m.ordinal < s.end():
			s.replicas = append(s.replicas, m)
		default:
			s.condemned = append(s.condemned, m)
		}
	}
	slices.SortFunc(s.replicas, func(a, b member) int { return a.ordinal - b.ordinal })
	slices.SortFunc(s.condemned, func(a, b member) int { return b.ordinal - a.ordinal })
}

// keep goes through the ordinals from the first on: pods that are missing are made, those that have ended go, the others get what
// belongs to a member. With ordered management it stops at the first one that is not available, and reports whether there was none.
func (s *step) keep() (ready bool) {
	ready = true
	rest := s.replicas
	missing := 0
	for ordinal := s.start(); ordinal < s.end(); ordinal++ {
		ok := false
		switch {
		case len(rest) > 0 && rest[0].ordinal == ordinal:
			ok = s.tend(rest[0].Pod)
			rest = rest[1:]
		case missing < burst:
			missing++
			s.create(ordinal)
		default:
			s.act.more = true
			return false
		}
		ready = ready && ok
		if !ready && !s.parallel() {
			return false
		}
	}
	return ready
}

// tend looks after one pod that is there, and reports whether the next ordinal may be looked at.
func (s *step) tend(p *corev1.Pod) (ok bool) {
	if podstate.Finished(p) {
		if p.DeletionTimestamp == nil {
			s.ended(p)
		}
		return false
	}
	if p.Status.Phase == corev1.PodPending {
		s.missing(p)
		s.own(p)
	}
	if !s.parallel() {
		switch {
		case p.DeletionTimestamp != nil:
			return false
		case !s.available(p):
			s.replaceBroken()
			return false
		}
	}
	s.own(p)
	if fixed := mended(s.set, p); fixed != nil {
		s.act.mend = append(s.act.mend, fixed)
	}
	return true
}

// ended deletes a pod that has ended, now or when its hold is over. One of an old revision says nothing about the next.
func (s *step) ended(p *corev1.Pod) {
	if wait := s.obs.holds[p.UID].Sub(s.now); wait > 0 && revisionOf(p) == s.revisionFor(ordinalOf(p)).name {
		s.later(wait)
		return
	}
	s.act.replace = append(s.act.replace, p)
}

// later asks for another look after wait.
func (s *step) later(wait time.Duration) {
	if wait > 0 && (s.act.after == 0 || wait < s.act.after) {
		s.act.after = wait
	}
}

// create plans the pod with an ordinal, and its claims. One that still belongs to its predecessor has to go first.
func (s *step) create(ordinal int) {
	p := newPod(s.set, s.revisionFor(ordinal), ordinal)
	for _, c := range claimsOf(s.set, ordinal) {
		there := s.obs.claims[c.Name]
		switch {
		case there == nil:
		case there.DeletionTimestamp != nil:
			s.act.blocked = c.Name
			return
		case deletesScaled(s.set) && staleRef(there, p, podKind()):
			return // the garbage collector is about to delete it
		}
	}
	s.missing(p)
	s.act.create = append(s.act.create, p)
}

// revisionFor is what the pod with an ordinal is made from: below the partition, as before the update.
func (s *step) revisionFor(ordinal int) revision {
	strategy := s.set.Spec.UpdateStrategy
	switch {
	case strategy.RollingUpdate != nil && ordinal < s.start()+s.partition():
		return s.obs.current
	case strategy.RollingUpdate == nil && strategy.Type == appsv1.RollingUpdateStatefulSetStrategyType &&
		ordinal < s.start()+int(s.set.Status.CurrentReplicas):
		return s.obs.current
	}
	return s.obs.update
}

// condemn deletes pods beyond the replicas: all at once with parallel management, else from the highest ordinal down, one after the
// other, and none while several are not available. It reports whether there are none left that have to go first.
func (s *step) condemn() (done bool) {
	var unavailable *corev1.Pod // the first in order of ordinals; with ordered management all replicas are available by now
	for _, m := range s.condemned {
		if !s.available(m.Pod) || m.DeletionTimestamp != nil {
			unavailable = m.Pod
		}
	}
	for _, m := range s.condemned {
		switch {
		case m.DeletionTimestamp != nil:
		case s.parallel() || s.available(m.Pod) || m.Pod == unavailable:
			s.act.condemn = append(s.act.condemn, m.Pod)
		}
		if !s.parallel() {
			return false
		}
	}
	return true
}

// available reports whether a pod is ready for long enough, and asks for another look where only time is missing.
func (s *step) available(p *corev1.Pod) bool {
	if p.Status.Phase != corev1.PodRunning {
		return false
	}
	ok, wait := podstate.Available(p, s.set.Spec.MinReadySeconds, s.now)
	s.later(wait)
	return ok
}
