// Package apiservice keeps APIServices: those of the group-versions that this server answers, and the condition of those that others do.
//
// What flows through it: [NewRegistration] reconciles an APIService by its name: what is built in is registered once after a start, what
// custom resource definitions serve is registered as long as they do, and what is no longer served is no longer registered.
// [NewAvailability] reconciles the condition Available: of those with a Service it is what an endpoint that is asked answers. What must stay
// true: an APIService without the label of automatic management is its owner's, and so is that of metrics.k8s.io as soon as it is there, for
// another server may take its place. Tests: TestBuiltInGroupVersionsAreRegistered, TestDefinitionsAreRegistered,
// TestSomebodyElsesAPIServicesAreLeftAlone, TestAvailability.
package apiservice
