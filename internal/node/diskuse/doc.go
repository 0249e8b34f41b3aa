// Package diskuse measures what pods have on a node's disk: volumes, the files that containers wrote, and their logs.
//
// What flows through it: evictions and /stats/summary ask for a pod's use ([Meter.Of]). What must stay true: walking a pod's files costs,
// so they are walked once in ten seconds however many ask (TestFilesAreWalkedOnceInAWhile); memory-backed volumes are not disk
// (TestEphemeralStorage).
package diskuse
