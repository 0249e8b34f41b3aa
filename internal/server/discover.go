package server

import (
	"net/http"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/server/openapi"
	"github.com/knarr-io/knarr/internal/server/wire"
)

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

// noDefinitions answers who asks which kinds custom resource definitions add: none. kubectl apply asks for a kind that it does not
// find, and tells that nobody knows the kind if there is an answer.
func (x *exchange) noDefinitions() error {
	accept, ok := wire.Negotiate(x.r.Header.Get("Accept"), nil)
	if !ok {
		return errNotAcceptable()
	}
	x.accept = wire.Accepted{Format: accept.Format}
	return x.json(map[string]any{"kind": "CustomResourceDefinitionList", "apiVersion": "apiextensions.k8s.io/v1",
		"metadata": metav1.ListMeta{ResourceVersion: x.s.cfg.Registry.Revision()}, "items": []any{}})
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
