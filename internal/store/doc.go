// Package store is where objects live: the truth in etcd (or in memory, for tests and simulations) and the one in-memory
// copy of it that everything in this process reads.
//
// What flows through it: [Store.Commit] turns mutations into as few backend transactions as possible; one applier follows
// the backend's change stream, puts each change into its [Table] - an ordered copy-on-write tree with secondary indexes -
// and hands it to watchers; a write returns when the copy has seen it. Tables are given to [New], or come and go while the
// store runs ([Store.Open], [Store.Drop]).
//
// What must stay true: objects in the copy are immutable and shared; changes reach every table and watcher in revision
// order; a table's snapshot is consistent and never locked; a watcher that cannot keep up is told so
// ([ErrTooOld]) instead of slowing anybody down.
//
// # How a write is carried out
//
// A write is a group: mutations that are carried out together or not at all, each with the revision at which its object must
// be (zero: it must not exist). A Service and its address are a group, for neither may be there without the other; most groups
// are one object. A group knows nothing of other groups.
//
// Begin encodes the group in its caller's goroutine, so that many callers encode at once, and queues it. Two writers take from
// the queue. A writer takes whatever waits, up to the limits of one transaction, and sends it to the backend as one: groups share
// a transaction because what a transaction costs - a round through etcd's log and a wait for the disk - does not depend on how
// much is in it. Nobody waits for company: an idle writer sends the first group at once, and what comes while it is busy is
// its next transaction. So load makes the batches, and a lone write has the latency of a lone write.
//
// There are two writers since one would leave the disk idle while it puts the next transaction together, and the processor idle
// while it waits for the disk. With more of them the same groups would go in smaller and more transactions: more work and
// no more speed.
//
// A transaction names each key once, as etcd demands. A group whose key is in the batch already stays for the writer's next transaction.
// In all likelihood it is refused there, since its condition names a revision that has passed; its caller reads what is there now
// and tries again.
//
// # Conflicts
//
// etcd carries out a whole transaction or nothing. Where one group's condition does not hold, all that were sent with it are
// refused, and the store asks which conditions those were - afterwards rather than in the transaction itself, whose other branch
// would be written to the log each time for the sake of the few that are refused. The groups that own them are answered with a
// [ConflictError]; the rest is sent again at once, so a caller never learns that it had bad company. Each round answers at
// least one group, so the rounds come to an end.
//
// A refused caller gets its answer only when the copy has reached a revision at which the obstacle is visible. It reads,
// computes and commits again without finding the same stale state, and so makes progress instead of spinning.
//
// # The copy
//
// The backend's answer says that a write is in the log, not that the copy has it. The caller waits until the applier has passed its revision:
// whoever has written reads what it wrote, from its own server, without asking anybody. The objects that writers have encoded
// wait in the pending list under their key and bytes; the applier takes the object from there rather than decode the bytes that come back.
//
// # Lost answers
//
// A caller that stops waiting, a server that ends and a backend that cannot be reached have one thing in common: the write may have
// been carried out, or may yet be. Such errors ([ErrUnavailable], [ErrEnded], the context's) never claim otherwise. Groups of callers that
// have gone before they were taken from the queue are not sent.
//
// With several members, an answer is also lost when etcd's leader is: the transaction may have died with it, or be in the log of its
// successor. Waiting for etcd's own timeout would make each election last for seconds, so a transaction is sent again once a new leader
// has had time to answer (resend.go) - if it can be carried out only once: if it writes some key on condition of a revision that exists.
// A creation could have been carried out, and deleted by somebody, before it is carried out again; what has no condition could replace
// a newer write. Those get ErrUnavailable. When the second sending is refused, the first one may be why: if everything that the
// transaction puts is there, put by one transaction, that was it.
//
// # New leaders
//
// Of several servers one runs controllers. A server that has been cut off may believe for a while that it still does, and its
// writes may arrive late. Clocks and leases cannot exclude that; a condition can. A [Fence] is a key that the leader has written.
// Its writes carry the condition that nobody has written that key since, whatever else they are conditional on (fence.go). Who
// takes the fence waits until its copy holds all that its predecessors have written, and then nothing of theirs can come any more.
//
// # Invariants
//
//   - A group is carried out whole or not at all: TestReservations, TestBackendTransactions.
//   - No acknowledged write is lost: TestConcurrentWriters, TestNoLostUpdate; nor by a kill: TestWhatWasConfirmedSurvivesAKill.
//   - A refusal is the group's own, never its company's: TestCommitEachIsOneTransaction, TestFencedAndOtherWritesShareABatch.
//   - A transaction has a key once, and two are under way at most: TestWaitingGroupsShareTheNextTransaction.
//   - Whoever has written, or was refused, reads what it wrote or what was in the way: TestConcurrentWriters, TestNoLostUpdate.
//   - Who has gone is not served, and nobody waits for ever: TestGroupsOfCallersThatHaveGoneAreNotSent,
//     TestNobodyWaitsForAStuckBackendForEver.
//   - A transaction is carried out once, however often it is sent: TestWhatWasSentToALostLeaderIsDoneOnce.
//   - Nothing of a former leader is carried out after its successor's first write: TestFenceKeepsOutWhoLedBefore, TestOneOfManyLeaders.
//   - An object that was encoded here is not decoded again, and is never shared while somebody may change it: TestWritersOfTheSameBytes.
//   - A watch that resumes gets all of a batch or is told to begin anew: TestResume, TestRestart, TestAWatchDoesNotResumeInAnotherServersBatch,
//     TestAWatchOfAnOpenedTableNeverMissesAPart.
//   - Who is promised each change learns when some are no longer known: TestReloadTellsTheDifferenceInOrder.
//   - A table comes in without a gap: TestTablesComeAndGoUnderLoad, TestATableIsOpenedWholeThoughTheCopyIsLoadedAnew.
package store
