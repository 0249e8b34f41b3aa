// Package server is the Kubernetes API over HTTP: an http.Handler that an unmodified kubectl, client-go or Helm can talk
// to.
//
// What flows through it, in the order of the files: [New] builds the server; a request gets its place in the API (route.go),
// a user, the right to go on and a slot (serve.go, limit.go), and is handed to the file of its verb (read.go, watch.go,
// write.go, patch.go) or of its subresource (scale.go, binding.go, eviction.go, token.go, logs.go, connect.go, proxy.go), which
// decodes it with package wire (options.go), calls the registry - the front door that defaults, admits, validates and
// stores - and writes the answer (respond.go, table.go). review.go answers what is asked but not stored; discover.go,
// health.go and other.go what is no resource, from documents that packages discovery and openapi make. What must stay
// true: every answer to a failed request is a metav1.Status; nothing but health is given to someone who is not
// authenticated and authorized; lists and watches send each revision's shared bytes and never change shared objects; one
// goroutine per watch.
package server
