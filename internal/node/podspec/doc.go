// Package podspec translates a Pod into CRI messages: the sandbox's and the containers' configuration, their environment,
// security context, resources, DNS and hosts file.
//
// What flows through it: a v1.Pod plus the few facts about the node and the objects it refers to ([Node], [Lookup]) go in,
// messages of k8s.io/cri-api come out. What must stay true: no I/O but through Lookup, no clock; what cannot be translated is an
// error that names the container and the field, never a silent default. Tests: TestPlannersArePure (internal/laws),
// TestEnvErrorsNameWhatIsMissing.
package podspec
