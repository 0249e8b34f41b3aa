// Package sim runs whole clusters in virtual time: the real control plane over the memory store, and nodes that are the real agent
// over a fake runtime, all in one testing/synctest bubble. Minutes of a cluster's life take milliseconds. TestLivesEndAsDeclared draws lives of
// all kinds of workloads from seeds; `make all-lives` draws long ones.
//
// What flows through it: a test starts a world, creates objects as a user would, lets time pass, breaks things (a node that falls
// silent, a store that fails or answers late, a watch that is lost) and looks at what the cluster has made of it. What must stay true: no
// test waits in real time; faults come from a seed that a failure names (goroutines still run in an order of their own); every world ends with all its
// goroutines.
package sim
