// Package clients runs what others wrote against Knarr, unmodified: Helm, and an operator on controller-runtime with a definition in two versions,
// a conversion webhook and admission webhooks. Knarr runs as its users run it, a process of bin/knarr with nodes that only pretend
// (make build); other versions of the client library and whole foreign operators are modules of their own below.
package clients
