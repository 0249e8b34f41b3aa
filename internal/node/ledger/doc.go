// Package ledger keeps what the pods that a node has admitted hold of it: processor, memory, devices and other resources, and ports of
// the host.
//
// What flows through it: a pod's worker asks once whether the node can take the pod ([Ledger.Admit]; the scheduler may have been wrong,
// or left out by spec.nodeName), again when a running pod asks for more ([Ledger.Resize], KEP-1287), and gives back what the pod held
// ([Ledger.Release]). What must stay true: no two pods hold the same share (TestWhatIsHeldCannotBeHadAgain); what a pod is refused with
// is what the kubelet says, as controllers and people match on it (TestRefusals); a pod that waits for room is woken when some is given
// back (TestAPodThatWaitsForRoomIsWoken).
//
// The ledger has a lock of its own, which is taken last: it may be called with a worker's lock held, and wakes workers from goroutines
// that hold none.
package ledger
