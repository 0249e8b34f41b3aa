// Package lifecycle decides what happens to one pod on a node: which sandbox and containers to start, stop or remove next
// ([Decide]), and what its status says ([Status]).
//
// What flows through it: the pod as the API has it, what the runtime shows ([Observed]), probe results and the agent's few
// memories go in; a [Plan] and a v1.PodStatus come out. What must stay true: everything here is pure - no I/O, no clock, no
// goroutine, no shared state - so that the order of a pod's life is tested by tables; deciding twice from the same input gives
// the same plan.
package lifecycle
