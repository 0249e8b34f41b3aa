// Package store is where objects live: the truth in etcd (or in memory, for tests and simulations) and the one in-memory
// copy of it that everything in this process reads.
//
// What flows through it: [Store.Commit] turns mutations into as few backend transactions as possible; one applier follows
// the backend's change stream, puts each change into its [Table] - an ordered copy-on-write tree with secondary indexes -
// and hands it to watchers; a write returns when the copy has seen it.
//
// What must stay true: objects in the copy are immutable and shared; changes reach every table and watcher in revision
// order; a table's snapshot is consistent and never locked; a watcher that cannot keep up is told so
// ([ErrTooOld]) instead of slowing anybody down.
package store
