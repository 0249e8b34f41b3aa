// Package upkeep does what has to be looked at on a node now and then: logs that grow are rotated, unused images are removed when the disk
// fills, and pods are evicted that have more on disk than they may or, while memory or disk run short, one after the other.
//
// What flows through it: each heartbeat calls [Keeper.Tend]; what takes long runs beside it, so that the node's lease is renewed in time.
// What must stay true: one pod is evicted at a time, and the next only once the first has given back what it held
// (TestLowMemoryEndsOnePodAtATime); images that nobody uses go before pods do.
package upkeep
