// Package server is the Kubernetes API over HTTP: an http.Handler that an unmodified kubectl, client-go or Helm can talk
// to.
//
// What flows through it: [New] builds the server; a request becomes a call (package call), gets a user, the right to go on and
// a slot (serve.go, limit.go), and is handed to who answers it by the table in package route: stored resources are answered
// here by the file of their verb (read.go, watch.go, write.go, patch.go) or subresource (scale.go, binding.go, eviction.go,
// token.go), from the registry - the front door that defaults, admits, validates and stores; connect, review, usage and
// documents are the other rooms. What must stay true: nothing but health is given to someone who is not authenticated and
// authorized; lists and watches send each revision's shared bytes and never change shared objects; one goroutine per watch.
package server
