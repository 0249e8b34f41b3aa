// Package server is the Kubernetes API over HTTP: an http.Handler that an unmodified kubectl, client-go or Helm can talk
// to.
//
// What flows through it, in the order of the files: [New] builds the chain; a request gets its place in the API
// (route.go), a user (auth.go), a slot (limit.go), and is handed to the file of its verb (get.go, list.go, watch.go,
// create.go, update.go, patch.go, apply.go, delete.go) or of its subresource (scale.go, binding.go, eviction.go, token.go,
// logs.go, connect.go), which decodes it with package wire, calls the registry - the front door that defaults, admits,
// validates and stores - and writes the answer (respond.go, table.go). Discovery and OpenAPI are documents made
// by packages discovery and openapi. What must stay true: every answer to a failed request is a metav1.Status; nothing but
// health is given to someone who is not authenticated and authorized; lists and watches send each revision's shared bytes
// and never change shared objects; one goroutine per watch.
package server
