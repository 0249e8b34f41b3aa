// Package authority compares Knarr's default roles and bindings with those that kube-apiserver makes, in a module of its own because
// these bring a large part of Kubernetes with them.
//
// What flows through it: both sets, taken apart into single rights. What must stay true: whoever has a right by default in Kubernetes
// has it here, and what is more than that is Knarr's own and stands in a table. Tests: TestDefaultRoles, TestDefaultBindings.
package authority
