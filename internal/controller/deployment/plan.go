package deployment

import (
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	spec "github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/podconfig"
	"github.com/knarr-io/knarr/internal/controller/rollout"
)

// observed is what a plan is made from.
type observed struct {
	replicaSets []*appsv1.ReplicaSet
	// running has the UIDs of the ReplicaSets whose pods still have containers to run or stop. It matters for Recreate only.
	running map[types.UID]bool
	// config is what the ConfigMaps and Secrets of the template hold, where pods roll with them; nil where they do not.
	config *podconfig.Now
	// job and readings are what a roll-out with steps has asked for, once a plan has said that it needs them.
	job      rollout.Job
	readings []rollout.Reading
}

// actions is what to do about a Deployment, in this order.
type actions struct {
	create   *appsv1.ReplicaSet
	update   []update
	remove   []*appsv1.ReplicaSet
	status   appsv1.DeploymentStatus
	revision string        // the Deployment's revision annotation; "" leaves it
	after    time.Duration // another look is due then, for the progress deadline
	needs    *needs        // of a roll-out with steps; nil where there are none
	seen     bool          // the action that the Deployment asks for is to be taken away
	events   []event.Event
}

// update changes annotations, size or minReadySeconds of a ReplicaSet.
type update struct{ old, new *appsv1.ReplicaSet }

// set is a ReplicaSet in the plan: what was read and the size it is to have.
type set struct {
	*appsv1.ReplicaSet // as read; for one to be created, as it will be
	size               int32
	resized            bool // the size was decided in this plan, so its annotations are due
	isNew              bool // does not exist yet
}

func (s *set) active() bool { return s.size > 0 }

// progress is one plan in the making.
type progress struct {
	d      *appsv1.Deployment
	now    time.Time
	fresh  *set   // the ReplicaSet with the Deployment's template; nil if there is none
	old    []*set // the others, oldest first
	config string // what fresh is to be labelled with; "" leaves it
	steps  steps
	status appsv1.DeploymentStatus
	act    actions
}

// plan decides the next step of d.
func plan(d *appsv1.Deployment, obs observed, now time.Time) actions {
	r := &progress{d: d, now: now, status: *d.Status.DeepCopy()}
	if obs.config != nil {
		r.config = obs.config.Hash
	}
	sets := slices.Clone(obs.replicaSets)
	slices.SortStableFunc(sets, olderFirst)
	present := presentOf(d, sets, obs.config)
	for _, rs := range sets {
		s := &set{ReplicaSet: rs, size: *rs.Spec.Replicas}
		if rs == present {
			r.fresh = s
		} else {
			r.old = append(r.old, s)
		}
	}
	r.findSteps()
	switch {
	case d.DeletionTimestamp != nil:
		r.finish(false)
		r.act.update, r.act.events = nil, nil
		return r.act
	case r.steps.state != nil && (r.fresh != nil || !d.Spec.Paused):
		r.step(obs)
		r.replicaFailure()
		r.finish(false)
		if r.steps.decision.State.Phase == rollout.Promoted {
			r.cleanUp()
		}
	case d.Spec.Paused || r.scaled():
		r.pauseCondition()
		r.scale()
		if d.Spec.Paused {
			r.cleanUp()
		}
		r.finish(false)
	case d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType:
		r.pauseCondition()
		r.recreate(obs.running)
		r.finish(true)
	default:
		r.pauseCondition()
		r.rolling()
		r.finish(true)
	}
	return r.act
}

// all returns the old sets and the new one.
func (r *progress) all() []*set {
	if r.fresh == nil {
		return slices.Clone(r.old)
	}
	return append(slices.Clone(r.old), r.fresh)
}

// scaled reports whether the Deployment's size changed since its ReplicaSets were sized.
func (r *progress) scaled() bool {
	return slices.ContainsFunc(r.all(), func(s *set) bool {
		n, ok := annotatedSize(s.ReplicaSet, desiredAnnotation)
		return s.active() && ok && n != *r.d.Spec.Replicas
	})
}

// resize gives s a size. The annotations that record the Deployment's size are due with it.
func (s *set) resize(n int32) {
	s.size = n
	s.resized = true
}

// ensureFresh plans the new ReplicaSet if it does not exist.
func (r *progress) ensureFresh() {
	if r.fresh != nil {
		return
	}
	rs := newReplicaSet(r.d, r.config)
	r.fresh = &set{ReplicaSet: rs, isNew: true}
	r.fresh.resize(r.freshSize())
	r.setProgress(true, reasonNewReplicaSet, "Created new replica set %q", rs.Name)
}

// finish turns the decided sizes into writes and computes the status. progress asks for an estimate whether the rollout gets
// on.
func (r *progress) finish(progress bool) {
	revision := r.nextRevision()
	for _, s := range r.all() {
		rs := s.ReplicaSet.DeepCopy()
		if s == r.fresh {
			annotateFresh(rs, r.d, revision, s.isNew)
			rs.Spec.MinReadySeconds = r.d.Spec.MinReadySeconds
			if r.config != "" {
				rs.Labels = clone(rs.Labels)
				rs.Labels[spec.ConfigHash] = r.config
			}
			r.act.revision = rs.Annotations[revisionAnnotation]
			if !s.isNew && r.condition(appsv1.DeploymentProgressing) == nil {
				r.setProgress(true, reasonFoundNewReplicaSet, "Found new replica set %q", rs.Name)
			}
		}
		if s.resized {
			rs.Spec.Replicas = &s.size
			annotateSize(rs, r.d)
		}
		r.noteSteps(s, rs)
		switch {
		case s.isNew:
			r.act.create = rs
		case !apiequality.Semantic.DeepEqual(rs, s.ReplicaSet):
			r.act.update = append(r.act.update, update{s.ReplicaSet, rs})
		}
	}
	slices.SortStableFunc(r.act.update, trafficFirst)
	r.count()
	if progress {
		r.estimateProgress()
	}
	r.stepConditions()
	r.act.seen = r.seen()
	r.act.status = r.status
}

// cleanUp removes old, empty ReplicaSets beyond the revision history limit, lowest revision first.
func (r *progress) cleanUp() {
	limit := r.d.Spec.RevisionHistoryLimit
	if limit == nil || *limit == maxInt32 {
		return
	}
	var sets []*set
	for _, s := range r.old {
		if s.DeletionTimestamp == nil {
			sets = append(sets, s)
		}
	}
	slices.SortStableFunc(sets, func(a, b *set) int {
		ra, errA := revisionOf(a.ReplicaSet)
		rb, errB := revisionOf(b.ReplicaSet)
		if errA != nil || errB != nil || ra == rb {
			return olderFirst(a.ReplicaSet, b.ReplicaSet)
		}
		return int(min(max(ra-rb, -1), 1))
	})
	for i := 0; i < len(sets)-int(*limit); i++ {
		s := sets[i]
		if s.size == 0 && s.Status.Replicas == 0 && *s.Spec.Replicas == 0 && s.Generation <= s.Status.ObservedGeneration {
			r.act.remove = append(r.act.remove, s.ReplicaSet)
		}
	}
}

// olderFirst orders ReplicaSets by creation, then name.
func olderFirst(a, b *appsv1.ReplicaSet) int {
	if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// clone returns a copy of m that is never nil.
func clone(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return maps.Clone(m)
}
