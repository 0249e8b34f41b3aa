// Package rollout decides how a canary or a blue/green roll-out goes on: which step it is at, how many pods each revision is to have, what
// is waited for, and when it is rolled back (docs/adr/0012-rollouts.md).
//
// What flows through it: the Deployment controller hands over the strategy, what there is of both revisions ([View]) and the [State] that it
// keeps on the new ReplicaSet; [Next] returns the next state and the sizes to go towards, [Move] how far the ReplicaSets may go now.
// What must stay true: everything here is a pure function of what is handed over and the time; the stable revision is never waited for
// (TestABrokenStableRevisionIsReplaced); what was asked for once is done once, whenever the controller is killed
// (TestActionsAreDoneOnce); a step ends only with all its pods available and all figures within bounds (TestStepsInTheirOrder,
// TestChecks).
package rollout

import (
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	spec "github.com/knarr-io/knarr/internal/api/rollout"
)

// Phase is where a revision stands.
type Phase string

// The phases. A revision that was rolled out without steps has no State at all, which is as good as Promoted.
const (
	UnderWay   Phase = "UnderWay"
	Held       Phase = "Held" // it has failed, and the strategy says to wait
	RolledBack Phase = "RolledBack"
	Promoted   Phase = "Promoted"
)

// State is what is kept of the roll-out of a revision.
type State struct {
	Phase   Phase       `json:"phase"`
	Step    int         `json:"step"`  // of the strategy's; their number once all are done
	Since   metav1.Time `json:"since"` // when the step began
	Attempt int         `json:"attempt,omitempty"`
	// Ill is since when the new revision has not had all the pods of the step available, or a figure could not be read; it begins again
	// with each pod that comes (Reached).
	Ill     *metav1.Time `json:"ill,omitempty"`
	Reached int32        `json:"reached,omitempty"`
	// Failing is since when the figures of checks, by their number, have been out of bounds.
	Failing map[int]metav1.Time `json:"failing,omitempty"`
	// Switched is when Services went over to the new pods (blue/green).
	Switched *metav1.Time `json:"switched,omitempty"`
	Reason   string       `json:"reason,omitempty"` // why it was held or rolled back
	Done     string       `json:"done,omitempty"`   // the action that has been seen to and is still to be taken away
}

// Begin is the state of a revision of which no pod has been made.
func Begin(step, attempt int, now time.Time) State {
	return State{Phase: UnderWay, Step: step, Attempt: attempt, Since: metav1.NewTime(now)}
}

// Pods are the pods of one revision: those it is to have, and those of them that are available.
type Pods struct{ Size, Available int32 }

// Job is how the Job of a step is doing.
type Job struct {
	Step, Attempt    int
	Err              error // why it cannot be made
	Exists           bool
	Complete, Failed bool
	Message          string
}

// Reading is what a check found.
type Reading struct {
	Value resource.Quantity
	Err   error
}

// View is what is decided from.
type View struct {
	Strategy    *spec.Strategy
	Replicas    int32         // of the Deployment
	Deadline    time.Duration // progressDeadlineSeconds; 0 is none
	New, Stable Pods
	OthersGone  bool      // no pods of further revisions are left
	Job         Job       // that was looked at last
	Readings    []Reading // of the strategy's checks; nil where none were made
	Action      string    // what is asked for
	Frozen      bool      // the Deployment is paused: sizes are kept up, and nothing else is done
}

// Decision is how it goes on.
type Decision struct {
	State       State
	New, Stable int32         // how many pods each is to have in the end
	RunJob      bool          // the Job of the step is to be made
	Read        bool          // figures are needed, and to be read again soon
	Message     string        // what it is at, and what it waits for
	Paused      bool          // no progress is expected
	News        []string      // what has happened
	Warnings    []string      // likewise, what has gone wrong
	After       time.Duration // when to look again; 0 is when something changes
	// OffNew and OffStable keep Services away from pods.
	OffNew, OffStable bool
}

// next is one decision in the making.
type next struct {
	View
	st  State
	now time.Time
	out Decision
}

// Next decides how the roll-out goes on.
func Next(v View, st State, now time.Time) Decision {
	n := &next{View: v, st: st, now: now}
	n.st.Step = min(n.st.Step, len(v.Strategy.Steps)) // the steps may have become fewer
	if v.Frozen {
		n.st.Ill, n.out.Paused, n.out.Message = nil, true, "the Deployment is paused"
	} else {
		n.obey()
	}
	if n.st.Phase == UnderWay && !v.Frozen {
		n.advance()
	}
	n.out.New, n.out.Stable = n.sizes()
	n.traffic()
	n.describe()
	n.out.State = n.st
	return n.out
}

// obey sees to what is asked for, once.
func (n *next) obey() {
	if n.Action == n.st.Done {
		return
	}
	n.st.Done = n.Action
	under := n.st.Phase == UnderWay
	switch {
	case n.Action == "":
	case n.Action == spec.Abort && (under || n.st.Phase == Held):
		n.rollBack("it was aborted by request")
	case n.Action == spec.PromoteFull && n.st.Phase != Promoted:
		if n.st.Phase == RolledBack {
			n.st.Attempt++
		}
		n.st.Phase, n.st.Reason = UnderWay, ""
		n.enter(len(n.Strategy.Steps))
		n.say("All steps that were left are skipped by request")
	case n.Action == spec.Promote && n.st.Phase == Held:
		n.st.Phase, n.st.Reason = UnderWay, ""
		n.enter(n.st.Step)
		n.say("Going on with %s by request", n.step())
	case n.Action == spec.Promote && under && n.pausing():
		n.say("The pause of %s is ended by request", n.step())
		n.enter(n.st.Step + 1)
	case n.Action == spec.Retry && (n.st.Phase == RolledBack || n.st.Phase == Held):
		*n = next{View: n.View, now: n.now, out: n.out, st: Begin(0, n.st.Attempt+1, n.now)}
		n.st.Done = n.Action
		n.say("Beginning again by request")
	default:
		n.out.Warnings = append(n.out.Warnings, fmt.Sprintf("Nothing is there to %s: the roll-out is %s", n.Action, n.st.Phase))
	}
}

func (n *next) say(format string, args ...any) {
	n.out.News = append(n.out.News, fmt.Sprintf(format, args...))
}

// pausing reports whether the present step is a pause.
func (n *next) pausing() bool {
	return n.st.Step < len(n.Strategy.Steps) && n.Strategy.Steps[n.st.Step].Pause != ""
}

// enter begins a step.
func (n *next) enter(step int) {
	n.st.Step, n.st.Since = step, metav1.NewTime(n.now)
	n.st.Ill, n.st.Reached, n.st.Failing = nil, 0, nil
}

// step names the present step.
func (n *next) step() string {
	if n.st.Step >= len(n.Strategy.Steps) {
		return "the last part"
	}
	return fmt.Sprintf("step %d of %d (%s)", n.st.Step+1, len(n.Strategy.Steps), n.Strategy.Steps[n.st.Step])
}

func (n *next) rollBack(why string) {
	n.st.Phase, n.st.Reason = RolledBack, why
	n.st.Ill, n.st.Failing, n.st.Switched = nil, nil, nil
	n.out.Warnings = append(n.out.Warnings, fmt.Sprintf("Rolling back at %s: %s", n.step(), why))
}

// fail does what the strategy says of failures.
func (n *next) fail(why string) {
	if n.Strategy.OnFailure != spec.Hold {
		n.rollBack(why)
		return
	}
	n.st.Phase, n.st.Reason = Held, why
	n.out.Warnings = append(n.out.Warnings, fmt.Sprintf("Held at %s: %s", n.step(), why))
}

// advance goes through as many steps as are done.
func (n *next) advance() {
	for {
		healthy := n.healthy()
		if n.st.Phase != UnderWay || !healthy {
			return
		}
		if n.st.Step == len(n.Strategy.Steps) {
			n.last()
			return
		}
		done := n.done(n.Strategy.Steps[n.st.Step])
		if n.st.Phase != UnderWay || !done {
			return
		}
		n.enter(n.st.Step + 1)
		n.say("At %s", n.step())
	}
}

// done reports whether a step of a healthy revision is over.
func (n *next) done(s spec.Step) bool {
	switch {
	case s.Weight != nil:
		return true
	case s.Pause != "":
		d, forever := s.Duration()
		n.out.Paused = true
		if forever {
			n.out.Message = "waits until it is promoted"
			return false
		}
		end := n.st.Since.Add(d)
		if left := end.Sub(n.now); left > 0 {
			n.later(left)
			n.out.Message = "waits until " + end.UTC().Format(time.RFC3339)
			return false
		}
		n.out.Paused = false
		return true
	}
	return n.ran(s)
}

// ran reports whether the Job of a step has succeeded.
func (n *next) ran(s spec.Step) bool {
	switch {
	case !n.jobKnown() || !n.Job.Exists:
		n.out.RunJob, n.out.Message = true, "its Job is made"
	case n.Job.Failed:
		n.fail(fmt.Sprintf("the Job of %s failed: %s", s, n.Job.Message))
	case n.Job.Complete:
		return true
	default:
		n.out.Message = "waits for its Job"
	}
	return false
}

// jobKnown reports whether the Job of the present step was looked at.
func (n *next) jobKnown() bool { return n.Job.Step == n.st.Step && n.Job.Attempt == n.st.Attempt }

// last ends the roll-out when all pods are new.
func (n *next) last() {
	if n.Strategy.Type == spec.BlueGreen {
		if n.st.Switched == nil {
			at := metav1.NewTime(n.now)
			n.st.Switched = &at
			n.say("Services go over to the new pods")
		}
		if left := n.st.Switched.Add(n.keepOld()).Sub(n.now); left > 0 {
			n.later(left)
			n.out.Message = "the old pods are kept until " + n.st.Switched.Add(n.keepOld()).UTC().Format(time.RFC3339)
			return
		}
	}
	if n.Stable.Size == 0 && n.OthersGone {
		n.st.Phase = Promoted
		n.say("All pods are of the new revision, which is the stable one now")
	}
}

const defaultKeepOld = 30 * time.Second

func (n *next) keepOld() time.Duration {
	if k := n.Strategy.KeepOld; k != nil {
		return k.Duration
	}
	return defaultKeepOld
}

// later asks for a look after d. A second more, because stored times have no fractions.
func (n *next) later(d time.Duration) {
	if d += time.Second; n.out.After == 0 || d < n.out.After {
		n.out.After = d
	}
}
