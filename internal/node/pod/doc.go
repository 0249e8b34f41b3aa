// Package pod runs the pods of one node: a [Worker] for each, in a [Set].
//
// What flows through it: the pod's state in the API, runtime events, probe results, changes of ConfigMaps and Secrets, room in the ledger
// and timers wake a worker. It observes the pod in the runtime, asks package lifecycle what to do next, begins it, and hands the pod's
// status to the status writer. What the worker needs of the node is its [Host]; nothing here knows the agent.
//
// What must stay true: a worker that has nothing to do has no goroutine (BenchmarkHollowPods counts them); no lock of a worker is held over
// a call to the runtime or the API; an observation that was overtaken by an event serves one step and is not kept; operations that make
// something in the runtime are not cut off half done by the end of the pod (task.Group.Steady); what the agent itself did not begin it
// finds by labels (TestTakeoverKeepsContainers), and what the API does not know it ends (TestOrphansAreEnded).
package pod
