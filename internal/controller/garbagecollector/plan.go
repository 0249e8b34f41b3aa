package garbagecollector

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// ownerState is what an owner reference points to.
type ownerState int

const (
	solid     ownerState = iota // exists
	dangling                    // does not exist
	waiting                     // exists and waits for its dependents to be deleted
	unknown                     // cannot be known: the kind is not served, or reading failed
	misplaced                   // namespaced, but named by an object that is in no namespace
)

// action is what to do about one object with owner references.
type action struct {
	drop    []types.UID                // remove references to these owners
	unblock bool                       // make all references non-blocking
	remove  metav1.DeletionPropagation // delete the object so; "" keeps it
}

// plan decides about obj, whose owner references are in states. dependents, what names obj as its owner, matter where one of the
// owners is waiting.
func plan(obj metav1.Object, states []ownerState, dependents []metav1.Object) action {
	var act action
	for i, ref := range obj.GetOwnerReferences() {
		if states[i] == dangling || states[i] == waiting {
			act.drop = append(act.drop, ref.UID)
		}
	}
	switch {
	case slices.Contains(states, unknown) || slices.Contains(states, misplaced):
		return action{} // somebody may still want it
	case slices.Contains(states, solid):
		// Another owner keeps it. A waiting owner need not wait for it any longer.
		return act
	}
	act.drop = nil
	if slices.Contains(states, waiting) && len(dependents) > 0 {
		// The owner wants everything below it gone first. Should the dependents lead back to the owner, nobody would ever
		// begin: the circle is cut here.
		act.unblock = slices.ContainsFunc(dependents, func(d metav1.Object) bool {
			return d.GetDeletionTimestamp() != nil && hasFinalizer(d, metav1.FinalizerDeleteDependents)
		})
		act.remove = metav1.DeletePropagationForeground
		return act
	}
	switch {
	case hasFinalizer(obj, metav1.FinalizerOrphanDependents):
		act.remove = metav1.DeletePropagationOrphan
	case hasFinalizer(obj, metav1.FinalizerDeleteDependents):
		act.remove = metav1.DeletePropagationForeground
	default:
		act.remove = metav1.DeletePropagationBackground
	}
	return act
}
