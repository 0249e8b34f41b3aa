package daemonset

import (
	"cmp"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/controller/ownership"
	"github.com/knarr-io/knarr/internal/controller/podstate"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

// burst is how many pods one step creates or deletes at most.
const burst = 500

// observed is what a plan is made from.
type observed struct {
	selector labels.Selector
	nodes    []*corev1.Node
	pods     []*corev1.Pod // those the set controls and those nobody controls
	hash     string        // of the revision in force; new pods have it as a label
	same     []string      // further hashes under which the same template was kept
	byHash   bool          // pods roll with what they use, so that those of the same template may be of another revision
	// collisions is how many names of revisions were taken; nil before the first.
	collisions *int32
	// holds says of pods that have failed when they may be replaced; one that is not there may be at once.
	holds map[types.UID]time.Time
}

// actions is what to do about a DaemonSet.
type actions struct {
	adopt, release    []*corev1.Pod
	create            []*corev1.Pod
	delete            []*corev1.Pod
	failed, succeeded []*corev1.Pod // of those to be deleted, the ones that have ended
	status            appsv1.DaemonSetStatus
	after             time.Duration // until another look is due; 0: none is
	more              bool          // the burst limit cut the step short
}

// wrote reports whether the pods are others after act.
func (a *actions) wrote() bool {
	return len(a.adopt)+len(a.release)+len(a.create)+len(a.delete) > 0
}

// site is a node, or the name of one that is not there, and the pods on it or on the way to it, oldest first.
type site struct {
	name      string
	node      *corev1.Node // nil where it is not there
	pods      []*corev1.Pod
	run, stay bool // whether a pod is to be made there, and one that is there may stay
}

// step is one plan in the making.
type step struct {
	ds    *appsv1.DaemonSet
	obs   observed
	now   time.Time
	sites []*site // by name
	act   actions
}

// plan decides the next step of ds.
func plan(ds *appsv1.DaemonSet, obs observed, now time.Time) actions {
	s := &step{ds: ds, obs: obs, now: now}
	mine, adopt, release := ownership.Sort(ds, obs.selector, obs.pods)
	s.act.adopt, s.act.release = adopt, release
	s.place(slices.Concat(mine, adopt))
	s.count()
	for _, at := range s.sites {
		s.manage(at)
	}
	if len(s.act.create)+len(s.act.delete) == 0 && ds.Spec.UpdateStrategy.Type == appsv1.RollingUpdateDaemonSetStrategyType {
		if surge, unavailable := s.bounds(); surge == 0 {
			s.roll(unavailable)
		} else {
			s.surge(surge)
		}
	}
	s.act.more = len(s.act.create) > burst || len(s.act.delete) > burst
	s.act.create = s.act.create[:min(len(s.act.create), burst)]
	s.act.delete = s.act.delete[:min(len(s.act.delete), burst)]
	return s.act
}

// place puts the pods on their nodes. One that has ended and is being deleted is nobody's concern any longer.
func (s *step) place(pods []*corev1.Pod) {
	at := map[string]*site{}
	fit := fitOf(s.ds)
	for _, n := range s.obs.nodes {
		st := &site{name: n.Name, node: n}
		st.run, st.stay = fit.judge(n)
		at[n.Name] = st
		s.sites = append(s.sites, st)
	}
	for _, p := range pods {
		name := workload.TargetNode(p)
		if name == "" || podstate.Finished(p) && p.DeletionTimestamp != nil {
			continue
		}
		if at[name] == nil {
			at[name] = &site{name: name}
			s.sites = append(s.sites, at[name])
		}
		at[name].pods = append(at[name].pods, p)
	}
	slices.SortFunc(s.sites, func(a, b *site) int { return strings.Compare(a.name, b.name) })
	for _, st := range s.sites {
		slices.SortFunc(st.pods, olderFirst)
	}
}

// olderFirst orders pods: those that are bound first, then the older.
func olderFirst(a, b *corev1.Pod) int {
	bound := func(p *corev1.Pod) int {
		if p.Spec.NodeName != "" {
			return 0
		}
		return 1
	}
	return cmp.Or(bound(a)-bound(b), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}

// manage makes the pod that a node is to have, and deletes those that it is not to have: of a node that is not eligible, those that have
// ended, and more than one. What is not bound and never will be, as its node is gone, is deleted here as well.
func (s *step) manage(at *site) {
	switch {
	case at.node == nil:
		for _, p := range at.pods {
			if p.Spec.NodeName == "" {
				s.remove(p)
			}
		}
	case at.run && len(at.pods) == 0:
		s.create(at)
	case at.stay:
		s.thin(at, s.living(at))
	default:
		for _, p := range at.pods {
			s.remove(p)
		}
	}
}

// living returns the pods of a node that have not ended and are not being deleted, and deletes those that have ended. A pod that failed
// is replaced with back-off, as its node may have refused it and may refuse the next one.
func (s *step) living(at *site) []*corev1.Pod {
	var out []*corev1.Pod
	for _, p := range at.pods {
		switch {
		case p.DeletionTimestamp != nil:
		case p.Status.Phase == corev1.PodFailed:
			if wait := s.obs.holds[p.UID].Sub(s.now); wait > 0 {
				s.later(wait)
				continue
			}
			s.act.failed = append(s.act.failed, p)
			s.remove(p)
		case p.Status.Phase == corev1.PodSucceeded:
			s.act.succeeded = append(s.act.succeeded, p)
			s.remove(p)
		default:
			out = append(out, p)
		}
	}
	return out
}

// thin deletes all but the oldest of living. While an update surges, a node may have two: a new one that is not available yet beside an
// old one that is ready.
func (s *step) thin(at *site, living []*corev1.Pod) {
	if !s.surges() {
		for _, p := range living[min(1, len(living)):] {
			s.remove(p)
		}
		return
	}
	if len(living) == 0 && at.run && !slices.ContainsFunc(at.pods, func(p *corev1.Pod) bool { return podstate.Finished(p) }) {
		s.create(at) // the one before it may still be ending
		return
	}
	if len(living) <= 1 {
		return
	}
	var fresh, old *corev1.Pod
	for _, p := range living {
		switch {
		case s.updated(p) && fresh == nil:
			fresh = p
		case !s.updated(p) && old == nil:
			old = p
		default:
			s.remove(p)
		}
	}
	if fresh != nil && old != nil && (!podstate.Ready(old) || s.available(fresh)) {
		s.remove(old)
	}
}

func (s *step) create(at *site) {
	s.act.create = append(s.act.create, newPod(s.ds, s.obs.hash, at.name))
}

func (s *step) remove(p *corev1.Pod) {
	if p.DeletionTimestamp == nil {
		s.act.delete = append(s.act.delete, p)
	}
}

// later asks for another look after wait.
func (s *step) later(wait time.Duration) {
	if wait > 0 && (s.act.after == 0 || wait < s.act.after) {
		s.act.after = wait
	}
}

// available reports whether a pod is ready for long enough, and asks for another look where only time is missing.
func (s *step) available(p *corev1.Pod) bool {
	ok, wait := podstate.Available(p, s.ds.Spec.MinReadySeconds, s.now)
	s.later(wait)
	return ok
}

// updated reports whether a pod is of the revision in force: by its hash or, if it was made by a version so old that it has none, by the
// number of its template. That number begins anew with each DaemonSet, so that it says nothing about pods that were adopted from
// another one, which have a hash.
func (s *step) updated(p *corev1.Pod) bool {
	if hash := p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey]; hash != "" {
		return hash == s.obs.hash || slices.Contains(s.obs.same, hash)
	}
	generation := generationOf(s.ds)
	return !s.obs.byHash && generation != "" && p.Labels[generationLabel] == generation
}
