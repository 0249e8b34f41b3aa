// Package node is the agent of one node: it makes the pods that the API assigns to the node run, and tells the API how they are.
//
// What flows through it: the watch of the node's pods, runtime events, probe results and timers wake a pod's [worker]; the worker
// looks at the runtime, asks package lifecycle what to do next, does it, and hands the pod's status to the status writer, which
// writes many at once. Node object and lease tell that the node is alive.
//
// What must stay true: there is no loop that lists pods or containers again and again - one list at the start and after a lost stream;
// a worker that has nothing to do has no goroutine; the agent may be killed at any time and finds everything again in the runtime
// (labels) and on its disk (directories named by pod UID); containers keep running while the API or the agent is away.
package node
