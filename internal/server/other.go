package server

import (
	"context"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"

	"github.com/knarr-io/knarr/internal/server/openapi"
	"github.com/knarr-io/knarr/internal/server/wire"
)

// health answers /healthz, /livez and /readyz, the only paths that need no user. It reports whether the path was one.
func (s *Server) health(x *exchange) bool {
	path := strings.Trim(x.r.URL.Path, "/")
	root, single, _ := strings.Cut(path, "/")
	if root != "healthz" && root != "livez" && root != "readyz" {
		return false
	}
	if x.r.Method != http.MethodGet && x.r.Method != http.MethodHead {
		x.fail(errMethod(x.t))
		return true
	}
	checks := []Check{{"ping", func(context.Context) error { return nil }}}
	if root != "livez" {
		checks = append(checks, s.cfg.Ready...)
	}
	excluded := x.q["exclude"]
	var out strings.Builder
	failed, found := 0, single == ""
	for _, c := range checks {
		if single != "" && c.Name != single {
			continue
		}
		found = true
		if slices.Contains(excluded, c.Name) {
			fmt.Fprintf(&out, "[+]%s excluded: ok\n", c.Name)
			continue
		}
		if err := c.Check(x.r.Context()); err != nil {
			failed++
			s.log.Warn("a health check fails", "check", c.Name, "err", err)
			fmt.Fprintf(&out, "[-]%s failed: reason withheld\n", c.Name)
			continue
		}
		fmt.Fprintf(&out, "[+]%s ok\n", c.Name)
	}
	if !found {
		x.fail(errNoPath())
		return true
	}
	x.healthText(root, out.String(), failed)
	return true
}

func (x *exchange) healthText(root, lines string, failed int) {
	h := x.w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache, private")
	_, verbose := x.q["verbose"]
	switch {
	case failed > 0:
		x.w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(x.w, "%s%s check failed\n", lines, root)
	case verbose:
		fmt.Fprintf(x.w, "%s%s check passed\n", lines, root)
	default:
		fmt.Fprint(x.w, "ok")
	}
}

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

var (
	versionsKind     = schema.GroupVersionKind{Kind: "APIVersions"}
	groupsKind       = schema.GroupVersionKind{Version: "v1", Kind: "APIGroupList"}
	groupKind        = schema.GroupVersionKind{Version: "v1", Kind: "APIGroup"}
	resourceListKind = schema.GroupVersionKind{Version: "v1", Kind: "APIResourceList"}
	aggregatedKind   = apidiscoveryv2.SchemeGroupVersion.WithKind("APIGroupDiscoveryList")
)

// discover answers the discovery paths.
func (x *exchange) discover(path string) error {
	parts := strings.Split(path, "/")
	root := len(parts) == 1 && (parts[0] == "api" || parts[0] == "apis")
	accept, ok := wire.Negotiate(x.r.Header.Get("Accept"), func(a wire.Accepted) bool { return root && a.As == aggregatedKind })
	if !ok {
		return errNotAcceptable()
	}
	x.accept = accept
	d := x.s.discovery
	switch {
	case path == "api" && accept.As == aggregatedKind:
		x.aggregated(d.Core, d.CoreETag)
	case path == "apis" && accept.As == aggregatedKind:
		x.aggregated(d.Named, d.NamedETag)
	case path == "api":
		x.document(http.StatusOK, d.Versions, versionsKind)
	case path == "apis":
		x.document(http.StatusOK, d.Groups, groupsKind)
	case len(parts) == 2 && parts[0] == "apis":
		g, ok := d.Group(parts[1])
		if !ok {
			return errNoPath()
		}
		x.document(http.StatusOK, g, groupKind)
	case len(parts) == 2 && parts[0] == "api", len(parts) == 3 && parts[0] == "apis":
		gv := schema.GroupVersion{Version: parts[len(parts)-1]}
		if parts[0] == "apis" {
			gv.Group = parts[1]
		}
		l, ok := d.Resources(gv)
		if !ok {
			return errNoPath()
		}
		x.document(http.StatusOK, l, resourceListKind)
	default:
		return errNoPath()
	}
	return nil
}

// aggregated answers with the whole of discovery, unless the client has it already.
func (x *exchange) aggregated(list *apidiscoveryv2.APIGroupDiscoveryList, tag string) {
	h := x.w.Header()
	h.Set("ETag", `"`+tag+`"`)
	h.Set("Cache-Control", "public")
	if match := x.r.Header.Get("If-None-Match"); strings.Trim(strings.TrimPrefix(match, "W/"), `"`) == tag {
		h.Set("Vary", "Accept")
		x.w.WriteHeader(http.StatusNotModified)
		return
	}
	f := x.accept.Format
	if f == wire.Protobuf && !wire.HasProtobuf(list) {
		f = wire.JSON
	}
	b, err := wire.Encode(list, aggregatedKind, f, false)
	if err != nil {
		x.fail(err)
		return
	}
	x.send(http.StatusOK, f.MediaType()+";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", b)
}

// openAPI answers the OpenAPI paths.
func (x *exchange) openAPI(path string) error {
	docs := x.s.openapi
	accept := x.r.Header.Get("Accept")
	switch path {
	case "openapi/v3":
		b, err := docs.Index()
		if err != nil {
			return err
		}
		x.send(http.StatusOK, wire.TypeJSON, b)
		return nil
	case "openapi/v2":
		doc, err := docs.V2()
		if err != nil {
			return err
		}
		if strings.Contains(accept, "proto-openapi.spec.v2") {
			return x.openAPIProto("application/com.github.proto-openapi.spec.v2.v1.0+protobuf", doc.ProtobufV2)
		}
		return x.openAPIJSON(doc)
	}
	rest := strings.Split(strings.TrimPrefix(path, "openapi/v3/"), "/")
	gv := schema.GroupVersion{Version: rest[len(rest)-1]}
	switch {
	case len(rest) == 3 && rest[0] == "apis":
		gv.Group = rest[1]
	case len(rest) == 2 && rest[0] == "api":
	default:
		return errNoPath()
	}
	doc, ok, err := docs.V3(gv)
	switch {
	case !ok:
		return errNoPath()
	case err != nil:
		return err
	}
	switch hash := x.q.Get("hash"); {
	case hash == doc.Hash:
		// The URL names the content: it can be kept for ever.
		x.w.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	case hash != "":
		u := *x.r.URL
		q := u.Query()
		q.Set("hash", doc.Hash)
		u.RawQuery = q.Encode()
		http.Redirect(x.w, x.r, u.String(), http.StatusMovedPermanently)
		return nil
	}
	if strings.Contains(accept, "proto-openapi.spec.v3") {
		return x.openAPIProto("application/com.github.proto-openapi.spec.v3.v1.0+protobuf", doc.ProtobufV3)
	}
	return x.openAPIJSON(doc)
}

func (x *exchange) openAPIProto(contentType string, make func() ([]byte, error)) error {
	b, err := make()
	if err != nil {
		return err
	}
	x.send(http.StatusOK, contentType, b)
	return nil
}

// openAPIJSON sends a document as it is kept, compressed, to clients that take it so.
func (x *exchange) openAPIJSON(doc *openapi.Document) error {
	h := x.w.Header()
	h.Set("ETag", `"`+doc.Hash+`"`)
	h.Set("Vary", "Accept, Accept-Encoding")
	if strings.Trim(x.r.Header.Get("If-None-Match"), `"`) == doc.Hash {
		x.w.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", wire.TypeJSON)
	if acceptsGzip(x.r.Header.Get("Accept-Encoding")) {
		h.Set("Content-Encoding", "gzip")
		x.w.WriteHeader(http.StatusOK)
		_, _ = x.w.Write(doc.Gzip) // a client that went away has no use for the error
		return nil
	}
	b, err := doc.JSON()
	if err != nil {
		return err
	}
	x.w.WriteHeader(http.StatusOK)
	_, _ = x.w.Write(b) // as above
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
