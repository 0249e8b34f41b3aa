// Package lifecycle decides what happens to one pod on a node: which sandbox and containers to start, stop or remove next
// ([Decide]), and what its status says ([Status]).
//
// What flows through it: the pod as the API has it, what the runtime shows ([Observed]), probe results and the agent's few
// memories go in; a [Plan] and a v1.PodStatus come out. Everything here is pure - no I/O, no clock, no goroutine, no shared state -
// so that the order of a pod's life is tested by tables, and deciding twice from the same input gives the same plan
// (TestDecidingTwiceGivesTheSamePlan).
//
// # Why level-triggered
//
// An agent may die at any moment, miss events, or find a runtime that somebody else changed. So nothing is decided from what
// happened; every decision is made from what is. A worker that was woken for whatever reason observes the pod anew, asks for the next
// step and begins it. Events only say that it is worth looking again: one that is lost costs time, one too many costs a look.
//
// What is being done in goroutines is [Busy], part of the input: a plan asks for nothing twice. What neither API nor runtime can
// tell - back-off, why the last start failed, that the node itself ended the pod - is [Memory]; losing it must never lose the pod. What of it
// would make work happen twice after a restart (since when the pod ends, which preStop hooks are over) package pod keeps in a file.
//
// # The states of a pod
//
//	         no sandbox            sandbox ready             containers started
//	admitted -----------> sandbox ---------------> init ----------------------> running
//	   |                     ^                      |                              |
//	   | refused             | sandbox lost         | init failed for good         | all ended for good,
//	   v                     +----------------------+------------------------------+ deleted, evicted, deadline
//	failed                                          |                              |
//	                                                v                              v
//	                                             ending: containers, then sidecars in reverse order
//	                                                |
//	                                                v
//	                              teardown (sandbox, volumes, cgroup) -> remove (if deleted) -> finish
//
// Ending is final: whatever began it, a pod that ends does not run again (TestDecide, "deleted"; Plan.Terminating).
//
// # The order of steps
//
//  1. A sandbox. Without one, or with one that is not ready, containers that still run are stopped first, then a sandbox with the next
//     attempt number is made. Two ready sandboxes are one too many: both make way.
//  2. Init containers, one after the other; each has to succeed. A sidecar (an init container that restarts always, KEP-753) lets the next
//     one come once it has started, and stays. In a new sandbox init containers begin from the first.
//  3. Containers, all together, in the order of the spec. Ephemeral containers come whenever they are asked for, and once.
//  4. Dead runs are pruned: the last two of each name stay, for logs and for what the status says of the run before.
//
// # The states of a container
//
//	(none) --start--> created --> running --> exited --restart--> (the next run: another container, attempt + 1)
//	                     |           |           |
//	                     |           |           +-- not restarted: its end stays in the status
//	                     |           +-- stop: preStop, SIGTERM, after the grace SIGKILL
//	                     +-- the agent died in between: removed and made again, with the same attempt
//
// A run is restarted by its own rules and policy first (KEP-5307), else by the pod's. A run that is not what the spec says (another
// image) or whose liveness or startup probe failed is stopped, and then restarted likewise. Restarts of containers that exit wait 10 s,
// doubling to 5 minutes, forgotten after 10 quiet minutes; the first comes at once; a restart for a resize is no crash.
//
// A run that exits with a code for which its container has a rule RestartAllContainers (KEP-5532) ends a round of the whole pod: all that
// runs is killed, and all begins again in the same sandbox, from the first init container (round.go).
//
// # The end of a pod
//
// The grace period begins once, when the end is decided, and is for all of it: containers are given what is left of it, at least a
// second; sidecars end after them, at least two seconds. A later, shorter grace (a forced deletion, an eviction) hurries what is being
// stopped, without its hook; a longer one changes nothing. A Ready pod that is deleted serves on for a moment, until its Services have
// heard of it. Sandbox, volumes and control group go when nothing runs; what is left in the runtime goes when the API wants the pod
// gone. Only then is the end reported, so that whoever reads it may give to others what the pod held.
//
// # What the status may not say
//
// The API refuses a status in which a container that ended for good is back to waiting or running. Init containers do run again, after
// the pod has lost its sandbox: their former end stays in the status until there is a newer one, and conditions say the rest
// (TestInitContainersRunAgainAfterAPowerFailure). A phase that is final stays.
package lifecycle
