// Package probe keeps the health of containers: when which probe is due and what its results mean ([Tracker], pure), and the
// probes themselves ([Prober]).
//
// What flows through it: a container's probes and their results go in; due times, lifecycle.Health and messages come out. What
// must stay true: a Tracker has no clock and no goroutine - one timer of the pod's worker serves all probes of a pod, so an idle
// pod costs nothing; thresholds and defaults are Kubernetes'
// (https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/). Tests: TestTracker,
// TestNextDueIsFarWhileNothingIs.
package probe
