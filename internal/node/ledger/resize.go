package ledger

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/amount"
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
		room, known := allocatable[name]
		ask, have, capacity := amount.Of(name, want[name]), amount.Of(name, had[name]), amount.Of(name, room)
		if !known || ask <= have {
			continue
		}
		if ask > capacity {
			return lifecycle.Waiting{Reason: corev1.PodReasonInfeasible,
				Message: fmt.Sprintf("Node didn't have enough capacity: %s, requested: %d, capacity: %d", name, ask, capacity)}
		}
		var used amount.Sum
		for _, o := range claims {
			used.Add(amount.Of(name, o.requests[name]))
		}
		used.Sub(have)
		if ask > used.Left(capacity) && deferred.Reason == "" {
			deferred = lifecycle.Waiting{Reason: corev1.PodReasonDeferred,
				Message: fmt.Sprintf("Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, ask, used.Int64(), capacity)}
		}
	}
	return deferred
}
