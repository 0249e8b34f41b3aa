// Package refusal decides how long a controller waits before it replaces pods that nodes refused.
//
// A pod that a node refuses (OutOfcpu, NodeAffinity, PodOSNotSupported, UnexpectedAdmissionError, ...) fails at once and never
// starts a container. Its owner makes another, which is likely to fare the same, hundreds of times a second. Kubernetes' ReplicaSet
// controller does so; its Job controller waits 10 s, and twice as long after every failure. So does this package, for every owner.
//
// What flows through it: the pods of one owner, of which [Judge] makes a [Pause]. The pods that failed are the memory: nothing
// is kept between two looks, or lost with a restart.
//
// What must stay true: as long as nodes refuse every pod, an owner makes no more of them than one for each pause, which grows
// to [Longest] (TestPodsThatNodesRefuseAreReplacedWithBackOff in internal/controller/replicaset); one pod that a node took
// ends it.
package refusal

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/controller/podstate"
)

// The pauses between tries, as those of Kubernetes' Job controller, which stops at ten minutes.
const (
	First   = 10 * time.Second
	Longest = 5 * time.Minute
)

// Pause is what the refusals of an owner's newest pods mean for the next ones. The zero value: nothing stands in the way.
type Pause struct {
	// Tries is how often in a row pods were made that nodes refused. After the first, one pod is made at a time.
	Tries int
	// Until is when the next pod may be made. While one has been made whose fate is open, it is when that counts as taken.
	Until time.Time
	// Trying reports whether such a pod is there.
	Trying bool
	// Last is the newest pod that a node refused.
	Last *corev1.Pod
}

// Holds reports whether no pod may be made at now.
func (p Pause) Holds(now time.Time) bool { return p.Tries > 0 && now.Before(p.Until) }

// After returns how long it is from now until a pod may be made; 0 if that is now.
func (p Pause) After(now time.Time) time.Duration {
	if !p.Holds(now) {
		return 0
	}
	return p.Until.Sub(now)
}

// Message says what happened and what happens next.
func (p Pause) Message() string {
	return fmt.Sprintf("node %s refused pod %s (%s): %s; the next pod is made %s after it",
		p.Last.Spec.NodeName, p.Last.Name, cmp.Or(p.Last.Status.Reason, "no reason given"), cmp.Or(p.Last.Status.Message, "no message"), pause(p.Tries))
}

// Judge looks at all pods of one owner, finished ones included.
func Judge(pods []*corev1.Pod, now time.Time) Pause {
	var refused []*corev1.Pod
	var taken, open time.Time // creation of the newest pod that a node took, and of the newest whose fate is open
	for _, p := range pods {
		made := p.CreationTimestamp.Time
		switch {
		case Refused(p):
			refused = append(refused, p)
		case isTaken(p) || !now.Before(made.Add(First)):
			taken = later(taken, made)
		default:
			open = later(open, made)
		}
	}
	refused = slices.DeleteFunc(refused, func(p *corev1.Pod) bool { return p.CreationTimestamp.Time.Before(taken) })
	if len(refused) == 0 {
		return Pause{}
	}
	slices.SortFunc(refused, func(a, b *corev1.Pod) int { return b.CreationTimestamp.Time.Compare(a.CreationTimestamp.Time) })
	out := Pause{Last: refused[0], Tries: 1}
	for i, p := range refused[1:] { // pods made within one pause were one try
		if refused[i].CreationTimestamp.Sub(p.CreationTimestamp.Time) >= First {
			out.Tries++
		}
	}
	out.Until = out.Last.CreationTimestamp.Add(pause(out.Tries))
	if !open.Before(out.Last.CreationTimestamp.Time) && !open.IsZero() {
		out.Trying, out.Until = true, open.Add(First)
	}
	return out
}

// Refused reports whether a node refused the pod: it failed there, and none of its containers ever ran.
func Refused(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed && pod.Spec.NodeName != "" && !ran(pod)
}

// isTaken reports whether a node runs the pod, or has run it.
func isTaken(pod *corev1.Pod) bool {
	return pod.Status.StartTime != nil || pod.Status.Phase == corev1.PodRunning || pod.Status.Phase == corev1.PodSucceeded || ran(pod)
}

func ran(pod *corev1.Pod) bool {
	if podstate.Ready(pod) {
		return true
	}
	started := func(s corev1.ContainerStatus) bool {
		return s.State.Running != nil || s.State.Terminated != nil || s.LastTerminationState.Terminated != nil
	}
	return slices.ContainsFunc(pod.Status.InitContainerStatuses, started) || slices.ContainsFunc(pod.Status.ContainerStatuses, started)
}

func pause(tries int) time.Duration {
	d := First
	for i := 1; i < tries && d < Longest; i++ {
		d *= 2
	}
	return min(d, Longest)
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}
