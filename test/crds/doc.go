// Package crds lets projects that ship custom resource definitions judge how Knarr serves them: the tests by which network-policy-api and
// Gateway API check their schemas and CEL rules run against a control plane over memory. It is a module of its own so that what those tests
// need is none of the product's dependencies: make crds-test.
package crds
