// Package policy applies admission policies in CEL: ValidatingAdmissionPolicy (KEP-3488) refuses, warns of or records writes,
// MutatingAdmissionPolicy (KEP-3962) changes them.
//
// What flows through it: the policies and bindings of the shared copy become rules (follow.go), made again only when one of them has changed. A
// write is compared with each rule and each of its bindings (write.go); for each parameter of a binding that is meant (params.go) the
// policy's expressions are evaluated by server/cel. What they say becomes one outcome: warnings, audit annotations, figures, and whether the write
// is refused (decide.go, pure). What must stay true: where there are no policies a write pays two comparisons; a policy that has been
// stored judges the next write; policies and their bindings are never judged by policies, so that a bad one can be mended (TestNothingStopsRepair);
// messages are Kubernetes' own (TestRefusals, TestParams, TestMutations).
package policy
