// Package documents serves what tells clients about the server itself: discovery, OpenAPI, the version, and fixed documents
// such as the keys of service account tokens.
//
// What flows through it: a call for a path that is not below a group-version finds its document; package discovery and
// package openapi make those of the API from the present catalogue. What must stay true: documents carry a hash of
// themselves, and who has one already is not sent it again. Tests: TestDiscoveryClient, TestOtherPaths
// (internal/server).
package documents

import (
	"net/http"
	"slices"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/authn"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/server/discovery"
	"github.com/knarr-io/knarr/internal/server/openapi"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// Config is what a Library is made of.
type Config struct {
	// Served is the catalogue, whose resources come and go.
	Served *api.Served
	// Foreign returns what other servers serve and document, and a value that is another one when that changes; nil: there are none.
	Foreign func() (edition any, served []discovery.Foreign, documented []openapi.Foreign)
	// PassDocument hands a call for an OpenAPI document of version 3 to the server that has it, and reports whether there is one; nil: there is none.
	PassDocument func(c *call.Call, path string) bool
	// Reviews are kinds that are not stored, and Others those that discovery names beside them.
	Reviews, Others []discovery.Review
	Version         version.Info
	// Address is the host:port that /api names.
	Address string
	// Fixed are further paths with JSON content, such as /openid/v1/jwks.
	Fixed map[string]func() ([]byte, error)
	// Paths are those that somebody else answers, for the list at /.
	Paths []string
}

// Library answers requests for documents.
type Library struct {
	cfg   Config
	fixed map[string]func() ([]byte, error)

	mu  sync.Mutex
	now edition
	own *openapi.Documents // those of now without what other servers document
}

// edition is what is told of one catalogue and of other servers.
type edition struct {
	catalog   *api.Catalog
	foreign   any
	discovery *discovery.Documents
	openapi   *openapi.Documents
}

// New returns a Library.
func New(cfg Config) *Library {
	l := &Library{cfg: cfg, fixed: map[string]func() ([]byte, error){}}
	l.own = openapi.New(nil, cfg.Reviews, cfg.Version.GitVersion)
	if cfg.Foreign == nil {
		l.cfg.Foreign = func() (any, []discovery.Foreign, []openapi.Foreign) { return nil, nil, nil }
	}
	for path, content := range cfg.Fixed {
		l.fixed[strings.Trim(path, "/")] = content
	}
	return l
}

// present returns what is told of the present catalogue, made at the first question after a change.
func (l *Library) present() edition {
	l.mu.Lock()
	defer l.mu.Unlock()
	catalog := l.cfg.Served.Now()
	foreign, served, documented := l.cfg.Foreign()
	if catalog != l.now.catalog || foreign != l.now.foreign {
		if catalog != l.now.catalog {
			l.own = l.own.With(catalog.All())
		}
		l.now = edition{
			catalog: catalog, foreign: foreign,
			discovery: discovery.New(catalog.All(), slices.Concat(l.cfg.Reviews, l.cfg.Others), served, l.cfg.Address),
			openapi:   l.own.Beside(documented),
		}
	}
	return l.now
}

// Serve answers a call for a path that is not below a group-version.
func (l *Library) Serve(c *call.Call) error {
	path := strings.Trim(c.R.URL.Path, "/")
	if c.R.Method != http.MethodGet && c.R.Method != http.MethodHead {
		return apierrors.NewMethodNotSupported(schema.GroupResource{Resource: path}, strings.ToLower(c.R.Method))
	}
	if content := l.fixed[path]; content != nil {
		return l.document(c, path, content)
	}
	switch {
	case path == "":
		return c.JSON(metav1.RootPaths{Paths: l.rootPaths()})
	case path == "version":
		return c.JSON(l.cfg.Version)
	case path == "openapi/v2" || path == "openapi/v3" || strings.HasPrefix(path, "openapi/v3/"):
		return l.openAPI(c, path)
	}
	return l.discover(c, path)
}

// document sends a fixed document.
func (l *Library) document(c *call.Call, path string, content func() ([]byte, error)) error {
	b, err := content()
	if err != nil {
		c.Log.Error("a document could not be made", "path", path, "err", err)
		http.Error(c.W, "internal error", http.StatusInternalServerError)
		return nil
	}
	kind := wire.TypeJSON
	if strings.HasSuffix(path, "/jwks") {
		kind = authn.JWKSContentType
	}
	c.W.Header().Set("Content-Type", kind)
	_, _ = c.W.Write(b) // a client that went away has no use for the error
	return nil
}

// rootPaths lists what there is, for people.
func (l *Library) rootPaths() []string {
	paths := []string{"/api", "/api/v1", "/apis", "/version", "/openapi/v2", "/openapi/v3"}
	for _, g := range l.present().discovery.Groups.Groups {
		paths = append(paths, "/apis/"+g.Name)
		for _, v := range g.Versions {
			paths = append(paths, "/apis/"+v.GroupVersion)
		}
	}
	for p := range l.fixed {
		paths = append(paths, "/"+p)
	}
	paths = append(paths, l.cfg.Paths...)
	slices.Sort(paths)
	return paths
}
