// Package request carries who asks for what through a context: the user whom authentication found and the parts
// of the API path. It is filled by the HTTP server, or by internal/client for callers in the same process, and read by
// authorization, admission and the registry.
package request

import (
	"context"

	"k8s.io/apiserver/pkg/authentication/user"
)

// Info is one request, taken apart.
type Info struct {
	User user.Info
	// Manager is who is recorded in metadata.managedFields as the writer, where the options of a write name nobody.
	Manager string
	// InProcess says that the caller is a part of this server, and comes again by itself when it is turned away.
	InProcess bool

	// IsResource is false for paths outside /api and /apis, and for discovery.
	IsResource  bool
	Path        string // the URL's path
	Verb        string // get list watch create update patch delete deletecollection; the lower-case HTTP method outside resources
	Group       string
	Version     string
	Resource    string // plural
	Subresource string // "" or "status", "log", ...
	Namespace   string
	Name        string
}

type key struct{}

// With returns ctx carrying info.
func With(ctx context.Context, info *Info) context.Context {
	return context.WithValue(ctx, key{}, info)
}

// From returns the request that ctx carries, or an empty Info.
func From(ctx context.Context) *Info {
	if i, ok := ctx.Value(key{}).(*Info); ok {
		return i
	}
	return &Info{}
}
