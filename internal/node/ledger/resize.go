package ledger

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// Resize gives the pod what it asks for now in place of what it holds, or says why not (KEP-1287); wake is called once it is worth
// asking again. known is false before all pods of the node are known: then it is not known whether there is room.
func (l *Ledger) Resize(pod *corev1.Pod, wake func()) (pending lifecycle.Waiting, known bool) {
	want := Requests(pod)
	l.mu.Lock()
	defer l.mu.Unlock()
	had, ok := l.claims[pod.UID]
	if !ok {
		return lifecycle.Waiting{}, true
	}
	pending = grow(want, had.requests, l.allocatable, l.claims)
	if !l.complete || pending.Reason == corev1.PodReasonDeferred {
		l.deferred[pod.UID] = wake
		return pending, l.complete
	}
	delete(l.deferred, pod.UID)
	if pending.Reason == "" {
		had.requests = want
		l.claims[pod.UID] = had
		l.wakeDeferred() // it may have shrunk
	}
	return pending, true
}

// grow says why a pod that holds had cannot have want: it is more than the node has, or than others leave. What does not grow needs no
// room. It is pure.
func grow(want, had, allocatable corev1.ResourceList, claims map[types.UID]claim) lifecycle.Waiting {
	deferred := lifecycle.Waiting{}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		ask, have := want[name], had[name]
		room, known := allocatable[name]
		if !known || ask.Cmp(have) <= 0 {
			continue
		}
		figure := func(milli, value int64) int64 {
			if name == corev1.ResourceCPU {
				return milli
			}
			return value
		}
		if ask.Cmp(room) > 0 {
			return lifecycle.Waiting{Reason: corev1.PodReasonInfeasible, Message: fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d",
				name, figure(ask.MilliValue(), ask.Value()), figure(room.MilliValue(), room.Value()))}
		}
		free := room.DeepCopy()
		for _, o := range claims {
			free.Sub(o.requests[name])
		}
		free.Add(have)
		if ask.Cmp(free) > 0 && deferred.Reason == "" {
			used := room.DeepCopy()
			used.Sub(free)
			deferred = lifecycle.Waiting{Reason: corev1.PodReasonDeferred, Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
				name, figure(ask.MilliValue(), ask.Value()), figure(used.MilliValue(), used.Value()), figure(room.MilliValue(), room.Value()))}
		}
	}
	return deferred
}
