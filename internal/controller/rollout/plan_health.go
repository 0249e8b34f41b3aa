package rollout

import (
	"fmt"
	"maps"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	spec "github.com/knarr-io/knarr/internal/api/rollout"
)

// lookAgain is the time between two looks at figures.
const lookAgain = 5 * time.Second

// healthy reports whether the new revision has the pods of the step and figures within bounds, and fails the roll-out where it has not had
// them for too long.
func (n *next) healthy() bool {
	want, _ := n.sizes()
	have := min(n.New.Size, n.New.Available)
	missing := have < want
	if missing {
		n.out.Message = fmt.Sprintf("%d of %d new pods are available", have, want)
	}
	readable, within := n.checks()
	if n.Job.Err != nil && n.jobKnown() {
		readable, n.out.Message, n.out.RunJob = false, n.Job.Err.Error(), true
		n.later(lookAgain - time.Second) // what it is made from may come
	}
	if n.st.Phase != UnderWay {
		return false
	}
	more := have > n.st.Reached
	n.st.Reached = max(n.st.Reached, have)
	if !missing && readable {
		n.st.Ill = nil
		return within
	}
	n.ill(more)
	return false
}

// ill notes that something is missing, and fails the roll-out when that lasts longer than the deadline. anew begins the time again.
func (n *next) ill(anew bool) {
	if n.st.Ill == nil || anew {
		at := metav1.NewTime(n.now)
		n.st.Ill = &at
	}
	if n.Deadline == 0 {
		return
	}
	left := n.st.Ill.Add(n.Deadline).Sub(n.now)
	if left < 0 {
		n.fail(fmt.Sprintf("%s, for longer than progressDeadlineSeconds (%v)", n.out.Message, n.Deadline))
		return
	}
	n.later(left)
}

// checks compares figures with their bounds. Without a new pod there are none.
func (n *next) checks() (readable, within bool) {
	if len(n.Strategy.Checks) == 0 || n.New.Available == 0 {
		return true, true
	}
	n.out.Read = true
	n.later(lookAgain - time.Second)
	if len(n.Readings) != len(n.Strategy.Checks) {
		n.out.Message = "its figures are read"
		return true, false
	}
	n.st.Failing = maps.Clone(n.st.Failing)
	readable, within = true, true
	for i, c := range n.Strategy.Checks {
		r := n.Readings[i]
		if r.Err != nil {
			readable = false
			n.out.Message = fmt.Sprintf("the check of %s cannot be made: %v", c, r.Err)
			continue
		}
		why := beyond(c, r)
		if why == "" {
			delete(n.st.Failing, i)
			continue
		}
		within = false
		n.out.Message = why
		since, ok := n.st.Failing[i]
		if !ok {
			since = metav1.NewTime(n.now)
			if n.st.Failing == nil {
				n.st.Failing = map[int]metav1.Time{}
			}
			n.st.Failing[i] = since
		}
		if n.now.Sub(since.Time) >= c.Patience() {
			n.fail(why)
			return readable, false
		}
	}
	if len(n.st.Failing) == 0 {
		n.st.Failing = nil
	}
	return readable, within
}

// beyond says how a figure is out of bounds; "" where it is not.
func beyond(c spec.Check, r Reading) string {
	switch {
	case c.Max != nil && r.Value.Cmp(*c.Max) > 0:
		return fmt.Sprintf("%s is %s, more than %s", c, r.Value.String(), c.Max)
	case c.Min != nil && r.Value.Cmp(*c.Min) < 0:
		return fmt.Sprintf("%s is %s, less than %s", c, r.Value.String(), c.Min)
	}
	return ""
}

// sizes returns how many pods each revision is to have in the end.
func (n *next) sizes() (fresh, stable int32) {
	all := n.Replicas
	switch {
	case n.st.Phase == RolledBack:
		return 0, all
	case n.st.Phase == Promoted:
		return all, 0
	case n.Strategy.Type == spec.BlueGreen:
		if n.st.Switched != nil && n.now.Sub(n.st.Switched.Time) >= n.keepOld() {
			return all, 0
		}
		return all, all
	case n.st.Step >= len(n.Strategy.Steps):
		return all, 0
	}
	weight := int32(0)
	for _, s := range n.Strategy.Steps[:n.st.Step+1] {
		if s.Weight != nil {
			weight = *s.Weight
		}
	}
	return share(all, weight)
}

// share parts n pods by the weight of the new ones. As long as neither has all of it, each has one pod at least.
func share(n, weight int32) (fresh, stable int32) {
	switch {
	case n == 0 || weight == 0:
		return 0, n
	case weight >= 100:
		return n, 0
	}
	fresh = int32((int64(n)*int64(weight) + 50) / 100)
	fresh = min(max(fresh, 1), max(n-1, 1))
	return fresh, max(n-fresh, 1)
}

// traffic decides of which pods Services are kept away.
func (n *next) traffic() {
	if n.Strategy.Type != spec.BlueGreen || n.st.Phase == Promoted {
		return
	}
	switched := n.st.Switched != nil
	n.out.OffNew, n.out.OffStable = !switched, switched
}

// describe completes the message.
func (n *next) describe() {
	switch n.st.Phase {
	case UnderWay:
		if text := n.step(); n.out.Message == "" {
			n.out.Message = "At " + text
		} else {
			n.out.Message = "At " + text + ": " + n.out.Message
		}
	case Held:
		n.out.Paused = true
		n.out.Message = fmt.Sprintf("Held at %s: %s", n.step(), n.st.Reason)
	case RolledBack:
		n.out.Message = fmt.Sprintf("Rolled back at %s: %s", n.step(), n.st.Reason)
	case Promoted:
		n.out.Message = "All pods are of this revision"
	}
}
