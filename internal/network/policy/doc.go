// Package policy decides what NetworkPolicies mean on one node: which of its pods are guarded, and by which rules over which sets.
//
// What flows through it: a [Model] is told of policies, namespaces, pods and of the addresses that pods have on this node; it answers with
// [Changes], the difference between what the kernel is to have and what it has. A selector is a set of addresses, shared by all rules that
// use it; the rules of a policy are a chain, shared by all pods that it selects; the policies of a pod and direction are a chain of jumps,
// shared by all pods that the same ones select. So a pod that comes, goes or changes costs one element for each selector that chooses it.
// Only policies that select pods of this node have chains and sets.
//
// What must stay true: it does no I/O and knows no clock; what a changed pod costs does not depend on how many policies and pods there are;
// a pod that is not known is closed; names say what is in a chain, so that none is ever changed. Tests: TestPlanAgreesWithTheOracle,
// TestChangesAddUp, TestOneChangedPodCostsOneElement, TestUnknownPodsAreClosed.
package policy
