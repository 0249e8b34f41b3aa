// Package server is the Kubernetes API over HTTP: an http.Handler that an unmodified kubectl, client-go or Helm can talk
// to.
//
// What flows through it: [New] wires the rooms up (routes.go) and nothing else. A request passes the gate, which makes a call of
// it (package call) and finds its user, right and slot; the table of package route hands it to the room that answers it: verbs
// (stored resources), connect (exec, logs, proxies), review, usage (metrics.k8s.io) or documents (discovery, OpenAPI). Writes go
// through the registry, the front door that defaults, admits, validates and stores. What must stay true: these rooms do not
// import each other; what they share is call and below. Tests: TestServerRoomsAreNeighbours (internal/laws).
package server
