// Package report tells the API how a node and its pods are: Node object, lease and heartbeat ([Node]), and pods' statuses ([Statuses]).
//
// What flows through it: the machine's and the runtime's health become the node's conditions; workers whose pod's status has changed hand
// themselves in, and many statuses are written at once. What must stay true: a node that lives renews its lease whatever else is slow or
// fails (TestNodeIsRegisteredAndAlive); a status that could not be written is written once the API is back
// (TestStatusIsWrittenWhenTheAPIIsBack), and conditions of others are left alone (TestOthersConditionsSurvive).
package report
