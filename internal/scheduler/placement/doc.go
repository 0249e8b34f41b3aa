// Package placement decides where pods go: the pure core of the scheduler, without I/O, clock or goroutine.
//
// What flows through it: nodes, assigned pods, namespaces, claims and disruption budgets come in through the Set and
// Remove methods of [State]; [State.Place] takes pending pods in queue order and returns one [Decision] each, having
// already accounted for the pods it placed; [State.Explain] says for one pod what every node thinks of it.
//
// How it stays cheap. Pods that are the same to the scheduler - same requests, selectors, tolerations, topology rules
// and owner - form a class. A class keeps every node in a group of nodes that differ only in free resources, in a line for
// each score; rules that look at whole topology domains (spread over zones, affinity to a rack) are evaluated once per
// group and not per node. Placing a pod changes one node, so the class looks at that node again, and at nothing else:
// the cost of a pod does not grow with the number of nodes. Changes are kept in a log from which each class catches up
// when it is next used, so classes that nobody needs cost nothing.
//
// What must stay true: a node is never given more than its allocatable resources; the chosen node is feasible, and no
// feasible node has a higher score, by Kubernetes' default plugins and weights (the tests compare with a plain
// implementation that looks at every node); every pod that was not placed carries the reasons, counted by node.
//
// Pods with spec.nodeName are assigned already, so there is no filter for the node's name; spec.affinity can name a
// node by matchFields.
package placement
