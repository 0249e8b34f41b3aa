// Package dns answers names of the cluster, from every node, and forwards the rest (Kubernetes DNS specification 1.1).
//
// What flows through it: Services and EndpointSlices come from the API as watch events and become entries of the [Index];
// a query for a name in the cluster's zone is answered from there without I/O, any other goes to the upstream servers of the
// node, through a small cache. What must stay true: no query waits for the API or a lock that a writer holds for long; before everything
// has been seen once, the server does not claim that a name does not exist; a query never comes back to us
// through an upstream. Tests: TestServerFollowsTheAPI, TestQueriesThatComeBackAreRefused.
package dns
