package deployment

import (
	"cmp"
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const maxInt32 = math.MaxInt32

// bounds returns maxSurge and maxUnavailable of d as numbers of pods. Surge is rounded up, unavailability down, and if both
// come to nothing one pod may be missing, or the rollout could not move (see the API documentation of
// RollingUpdateDeployment).
func bounds(d *appsv1.Deployment) (surge, unavailable int32) {
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return 0, 0
	}
	n := *d.Spec.Replicas
	if ru := d.Spec.Strategy.RollingUpdate; ru != nil {
		surge, unavailable = resolve(ru.MaxSurge, n, true), resolve(ru.MaxUnavailable, n, false)
	}
	if surge == 0 && unavailable == 0 {
		unavailable = 1
	}
	return min(surge, maxInt32-n), min(unavailable, n) // replicas and surge are added up
}

// resolve turns a number or percentage of n into a number. Validation has refused what does not parse.
func resolve(v *intstr.IntOrString, n int32, up bool) int32 {
	got, err := intstr.GetScaledValueFromIntOrPercent(intstr.ValueOrDefault(v, intstr.FromInt32(0)), int(n), up)
	if err != nil {
		return 0
	}
	return int32(min(got, maxInt32))
}

func total(sets []*set) (n int32) {
	for _, s := range sets {
		n += s.size
	}
	return n
}

// available returns how many pods are available once the sets have the sizes that were asked for: the status of one that was just made
// smaller still counts pods that are about to end.
func available(sets []*set) (n int32) {
	for _, s := range sets {
		n += min(s.Status.AvailableReplicas, s.size)
	}
	return n
}

func activeOf(sets []*set) []*set {
	return slices.DeleteFunc(slices.Clone(sets), func(s *set) bool { return !s.active() })
}

// freshSize is how large the new ReplicaSet may be now: its size and what the surge leaves room for.
func (r *progress) freshSize() int32 {
	want := *r.d.Spec.Replicas
	if r.d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return want
	}
	surge, _ := bounds(r.d)
	room := want + surge - total(r.all())
	if room <= 0 {
		return r.fresh.size
	}
	return r.fresh.size + min(room, want-r.fresh.size)
}

// rolling replaces pods gradually: first the new ReplicaSet grows as far as the surge allows, then the old ones shrink as far as
// availability allows, each in a step of its own.
func (r *progress) rolling() {
	r.ensureFresh()
	want := *r.d.Spec.Replicas
	if r.fresh.size > want {
		r.fresh.resize(want)
		return
	}
	if n := r.freshSize(); r.fresh.size != want && n != r.fresh.size {
		r.fresh.resize(n)
		return
	}
	if r.shrinkOld() {
		return
	}
	if complete(r.d, &r.d.Status) {
		r.cleanUp()
	}
}

// shrinkOld takes pods from the old ReplicaSets, oldest first: those that are not available at once, the others while the number
// of available pods stays above the minimum. It reports whether it took any.
func (r *progress) shrinkOld() bool {
	old := activeOf(r.old)
	if len(old) == 0 {
		return false
	}
	_, unavailable := bounds(r.d)
	least := *r.d.Spec.Replicas - unavailable
	// Pods of the new ReplicaSet that are not available may have to be made up for by old ones, whether or not these are
	// available themselves: what may go is what remains beyond the minimum and those.
	budget := total(r.all()) - least - (r.fresh.size - r.fresh.Status.AvailableReplicas)
	if budget <= 0 {
		return false
	}
	took := false
	left := budget
	for _, s := range old {
		if n := min(left, s.size-s.Status.AvailableReplicas); n > 0 {
			s.resize(s.size - n)
			left -= n
			took = true
		}
	}
	spare := available(append(slices.Clone(old), r.fresh)) - least
	for _, s := range old {
		if n := min(spare, left, s.size); n > 0 {
			s.resize(s.size - n)
			spare, left = spare-n, left-n
			took = true
		}
	}
	return took
}

// recreate ends all old pods before it makes the first new one.
func (r *progress) recreate(running map[types.UID]bool) {
	if old := activeOf(r.old); len(old) > 0 {
		for _, s := range old {
			s.resize(0)
		}
		return
	}
	if slices.ContainsFunc(r.old, func(s *set) bool { return s.Status.Replicas > 0 || running[s.UID] }) {
		return
	}
	r.ensureFresh()
	if r.fresh.size != *r.d.Spec.Replicas {
		r.fresh.resize(*r.d.Spec.Replicas)
	}
	if complete(r.d, &r.d.Status) {
		r.cleanUp()
	}
}

// scale spreads a new size of the Deployment over its ReplicaSets, while it is paused or in the middle of a rollout, in proportion
// to their sizes. Giving all of it to one would push the rollout on, or back.
func (r *progress) scale() {
	want := *r.d.Spec.Replicas
	if s := r.onlyOne(); s != nil {
		s.resize(want)
		return
	}
	if r.saturated() {
		for _, s := range activeOf(r.old) {
			s.resize(0)
		}
		return
	}
	if r.d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType {
		return
	}
	sets := activeOf(r.all())
	allowed := int32(0)
	if want > 0 {
		surge, _ := bounds(r.d)
		allowed = want + surge
	}
	toAdd := allowed - total(sets)
	slices.SortStableFunc(sets, func(a, b *set) int {
		c := olderFirst(a.ReplicaSet, b.ReplicaSet)
		if toAdd > 0 {
			c = -c // of equals, the newer grows first and the older shrinks first
		}
		return cmp.Or(cmp.Compare(b.size, a.size), c)
	})
	left := toAdd
	for _, s := range sets {
		n := int32(0)
		if left != 0 {
			n = r.share(s)
			if toAdd > 0 {
				n = min(n, left)
			} else {
				n = max(n, left)
			}
		}
		left -= n
		s.resize(s.size + n)
	}
	if left != 0 && len(sets) > 0 { // what rounding left over goes to the largest
		sets[0].resize(max(sets[0].size+left, 0))
	}
}

// share is how much s grows or shrinks for its part of the Deployment to stay the same.
func (r *progress) share(s *set) int32 {
	if *r.d.Spec.Replicas == 0 {
		return -s.size
	}
	surge, _ := bounds(r.d)
	before, ok := annotatedSize(s.ReplicaSet, maxAnnotation)
	if !ok || before == 0 {
		if before = r.d.Status.Replicas; before == 0 {
			return 0 // the annotation was taken away and no pod could be made: nothing to compare with
		}
	}
	return int32(math.Round(float64(s.size)*float64(*r.d.Spec.Replicas+surge)/float64(before))) - s.size
}

// onlyOne returns the only active ReplicaSet, the newest if none is active, nil if there are several.
func (r *progress) onlyOne() *set {
	switch act := activeOf(r.all()); {
	case len(act) == 1:
		return act[0]
	case len(act) > 1:
		return nil
	case r.fresh != nil:
		return r.fresh
	case len(r.old) > 0:
		return r.old[len(r.old)-1]
	}
	return nil
}

// saturated reports whether the new ReplicaSet has all the pods, all available, and was meant to.
func (r *progress) saturated() bool {
	if r.fresh == nil {
		return false
	}
	want := *r.d.Spec.Replicas
	n, ok := annotatedSize(r.fresh.ReplicaSet, desiredAnnotation)
	return ok && n == want && r.fresh.size == want && r.fresh.Status.AvailableReplicas == want
}
