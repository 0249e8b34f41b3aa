// Package workloads compares Knarr's controllers of workloads with Kubernetes' own, in a module of its own because these bring a large
// part of Kubernetes with them.
//
// What flows through it: random histories, by seed, which both live through. What must stay true: both make and delete the same pods and
// report the same status; where Knarr departs, the test names why.
package workloads
