// Package crd makes resources of custom resource definitions, and serves those that are in the store.
//
// What flows through it: [Declare] turns a definition into one api.Resource for each of its versions: a pure function, and a cheap
// one, since a schema is compiled when the first object or document needs it ([Forms]). [Server] follows the definitions in the
// store and puts what they declare into the registry's catalogue, on every server; their status is written by the leader
// (internal/controller/crd).
//
// What must stay true: versions whose schemas say the same share one compiled form; a definition that cannot be served, or whose
// schema does not compile, is an answer to those who ask for its objects, and never stops the server or the deletion of the
// definition (TestObjectsFollowTheirSchema, TestVersionsOfOneKind, TestBadDefinitionsAreRefused).
package crd
