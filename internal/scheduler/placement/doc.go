// Package placement decides where pods go: the pure core of the scheduler, without I/O, clock or goroutine.
//
// # What flows through it
//
// Nodes, assigned pods, namespaces, claims and disruption budgets come in through the Set and Remove methods of [State].
// [State.Place] takes pending pods in queue order and returns one [Decision] each, having already accounted for the pods it
// placed. [State.Explain] reports for one pod what every node thinks of it.
//
// # The problem
//
// kube-scheduler takes one pod at a time, asks every filter about (a sample of) the nodes, and scores what is left: the work for a
// pod grows with the nodes, and grows again with the pods where rules look at other pods. Nearly all of that work was done a
// moment ago, for a pod of the same ReplicaSet, in a cluster that differs by one pod on one node. This package keeps the answers
// and brings them up to date. What makes that bearable is that few kinds of pods exist, that most nodes are alike, and that
// placing a pod changes one node.
//
// # Words
//
// A shape is everything about a pod that matters to the placing of pods, itself or others: requests, selectors, tolerations,
// rules, labels, owner. The replicas of a ReplicaSet share one. Shapes are interned by a key that is written from the pod
// (keyWriter), so that different pods never have equal keys. Placed pods hold their shape.
//
// A pin is the one node that a pod names, as a DaemonSet's pods do. It is no part of the shape: a thousand pods pinned to a
// thousand nodes have one, and only the named node is looked at for each of them.
//
// A class is how to place pods of shapes that are the same to the scheduler. Two shapes of different namespaces or labels are of
// one class if no rule tells them apart. For its pods a class has every node in one of two places: in a group of candidates, or
// turned down with a verdict.
//
// A verdict is why a node was turned down: the filter, the reasons in Kubernetes' words, and whether taking pods off the node
// could help. A class counts the nodes of each, so that the message of a rejection costs as much as it has reasons.
//
// A group is the nodes that differ, for one class, only in the score of what they have left: everything else, and above all the
// rules about topology, says the same of each of them and is asked once for the group.
//
// A line is the nodes of a group with equal score, in order of how long no pod was placed there. Scores of room are whole numbers
// from 0 to 200, so the best node of a group is the head of its first line, and a node whose score changes moves between two
// lists.
//
// A counter counts, per node, the placed pods that a rule means; classes whose rules mean the same pods share it. A table sums a
// counter over the domains of a topology, as one class sees it (spreading leaves out nodes that the pod could not use).
//
// A [Filter] turns nodes down, a score prefers some of them. Each looks at one of four things, and is asked when that
// changes: the pod, the node alone, the room on a node, or the domains around a group. The hint of a filter is the set of
// [Events] after which it may decide differently ([HelpedBy]); who was rejected by others need not look again.
//
// A nomination keeps room on a node for a pod that preempted others there, until these are gone. Pods of a lower priority do not
// see that room.
//
// # How state stays equal to a full pass
//
// Whatever changes a node, or what is placed on it, appends the node's number to a log (State.touch). A class remembers up to
// which position it has read. When one of its pods comes, it reads on: of each node in between it asks the filters of room and
// the scores again, and those of the node alone if the log has that the node itself changed; tables move by the difference
// between what they counted of the node and what is there now; where a table has so many domains that nodes keep its value
// (hostnames), the other nodes of a domain that changed are looked at, too. A class that has fallen behind the beginning of the
// log looks at every node. So a class is brought up to date by the same steps that build it, from whatever it knew, and nothing
// is ever undone or patched in place.
//
// What is not in the log changes State.rulesGen or drops the classes: namespace labels, and terms of pods that act on others.
//
// Sums of resources have 128 bits (internal/amount): what was added can be taken out again, whatever a pod claims to need.
//
// # What it costs
//
//   - A pod: writing the key of its shape, the nodes changed since the last pod of its class (one for each pod placed in
//     between), and the groups of its class. Not the nodes: BenchmarkPlace/flat, and /pinned for pods that name their node.
//   - A class: one look at each node, when its first pod comes or after a long time without any (BenchmarkPlace/class), and some
//     hundred bytes for each node. Classes that were not used for longest go first (maxEntries).
//   - A rejection: the verdicts and groups of the class; then the nodes on which victims are looked for. Pods of a class share
//     it while nothing changes.
//
// # What must stay true
//
//   - A decision is the one that a plain implementation would make which looks at every node and every pod: the chosen node is
//     feasible, none has a higher score, and the reasons of a rejection are counted by node (TestAgreesWithReference, through
//     random histories; scores in topologies of more than 64 domains are estimates, see weighSpread).
//   - A node is never given more than it has. Pods that others put there, without asking, count all the same
//     (TestAgreesWithReference), and the agent that admits the pod comes to the same result (TestTheSchedulerAndTheLedgerAgree
//     in internal/node/ledger).
//   - Victims of preemption make room, have a lower priority, and none of them could have stayed
//     (TestVictimsAreEnoughAndNeeded).
//   - Messages are kube-scheduler's (TestTranscripts).
//
// Pods with spec.nodeName are assigned already, so there is no filter for the node's name.
package placement
