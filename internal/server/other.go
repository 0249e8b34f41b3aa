package server

import (
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/server/wire"
)

// specialPaths are the exact paths outside resources, and what answers them.
func (s *Server) specialPaths() map[string]http.HandlerFunc {
	m := map[string]http.HandlerFunc{
		"metrics":             s.metrics.handler().ServeHTTP,
		"debug/pprof":         pprof.Index,
		"debug/pprof/cmdline": pprof.Cmdline,
		"debug/pprof/profile": pprof.Profile,
		"debug/pprof/symbol":  pprof.Symbol,
		"debug/pprof/trace":   pprof.Trace,
	}
	for path, content := range s.cfg.Documents {
		m[strings.Trim(path, "/")] = func(w http.ResponseWriter, _ *http.Request) {
			b, err := content()
			if err != nil {
				s.log.Error("a document could not be made", "path", path, "err", err)
				http.Error(w, "internal error", http.StatusInternalServerError)
				return
			}
			kind := wire.TypeJSON
			if strings.HasSuffix(path, "/jwks") {
				kind = "application/jwk-set+json"
			}
			w.Header().Set("Content-Type", kind)
			_, _ = w.Write(b) // a client that went away has no use for the error
		}
	}
	return m
}

// serveOther answers paths that are not below a group-version: discovery, OpenAPI, version, metrics, profiles.
func (s *Server) serveOther(x *exchange) error {
	path := strings.Trim(x.r.URL.Path, "/")
	for p, h := range s.cfg.Handlers {
		if x.r.URL.Path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(x.r.URL.Path, p) {
			return h(x.w, x.r)
		}
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead && path != "debug/pprof/symbol" {
		return apierrors.NewMethodNotSupported(schema.GroupResource{Resource: path}, strings.ToLower(x.r.Method))
	}
	if h := s.special[path]; h != nil {
		h(x.w, x.r)
		return nil
	}
	switch {
	case path == "":
		return x.json(metav1.RootPaths{Paths: s.rootPaths()})
	case path == "version":
		return x.json(s.cfg.Version)
	case strings.HasPrefix(path, "debug/pprof/"):
		pprof.Index(x.w, x.r)
		return nil
	case path == "openapi/v2" || path == "openapi/v3" || strings.HasPrefix(path, "openapi/v3/"):
		return x.openAPI(path)
	}
	return x.discover(path)
}

// json answers with a value that is no API object.
func (x *exchange) json(v any) error {
	b, err := marshalIndent(v)
	if err != nil {
		return err
	}
	x.send(http.StatusOK, wire.TypeJSON, b)
	return nil
}

// rootPaths lists what there is, for people.
func (s *Server) rootPaths() []string {
	paths := []string{"/api", "/api/v1", "/apis", "/healthz", "/livez", "/readyz", "/version", "/openapi/v2", "/openapi/v3"}
	for _, g := range s.discovery.Groups.Groups {
		paths = append(paths, "/apis/"+g.Name)
		for _, v := range g.Versions {
			paths = append(paths, "/apis/"+v.GroupVersion)
		}
	}
	for p := range s.special {
		paths = append(paths, "/"+p)
	}
	slices.Sort(paths)
	return paths
}
