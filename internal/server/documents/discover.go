package documents

import (
	"net/http"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/server/call"
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
func (l *Library) discover(c *call.Call, path string) error {
	parts := strings.Split(path, "/")
	root := len(parts) == 1 && (parts[0] == "api" || parts[0] == "apis")
	if err := c.Negotiate(func(a wire.Accepted) bool { return root && a.As == aggregatedKind }); err != nil {
		return err
	}
	accept, d := c.Accept, l.present().discovery
	switch {
	case path == "api" && accept.As == aggregatedKind:
		aggregated(c, d.Core, d.CoreETag)
	case path == "apis" && accept.As == aggregatedKind:
		aggregated(c, d.Named, d.NamedETag)
	case path == "api":
		c.Document(http.StatusOK, d.Versions, versionsKind)
	case path == "apis":
		c.Document(http.StatusOK, d.Groups, groupsKind)
	case len(parts) == 2 && parts[0] == "apis":
		g, ok := d.Group(parts[1])
		if !ok {
			return call.ErrNoPath()
		}
		c.Document(http.StatusOK, g, groupKind)
	case len(parts) == 2 && parts[0] == "api", len(parts) == 3 && parts[0] == "apis":
		gv := schema.GroupVersion{Version: parts[len(parts)-1]}
		if parts[0] == "apis" {
			gv.Group = parts[1]
		}
		l, ok := d.Resources(gv)
		if !ok {
			return call.ErrNoPath()
		}
		c.Document(http.StatusOK, l, resourceListKind)
	default:
		return call.ErrNoPath()
	}
	return nil
}

// aggregated answers with the whole of discovery, unless the client has it already.
func aggregated(c *call.Call, list *apidiscoveryv2.APIGroupDiscoveryList, tag string) {
	h := c.W.Header()
	h.Set("ETag", `"`+tag+`"`)
	h.Set("Cache-Control", "public")
	if match := c.R.Header.Get("If-None-Match"); strings.Trim(strings.TrimPrefix(match, "W/"), `"`) == tag {
		h.Set("Vary", "Accept")
		c.W.WriteHeader(http.StatusNotModified)
		return
	}
	f := c.Accept.Format
	if f == wire.Protobuf && !wire.HasProtobuf(list) {
		f = wire.JSON
	}
	b, err := wire.Encode(list, aggregatedKind, f, false)
	if err != nil {
		c.Fail(err)
		return
	}
	c.Send(http.StatusOK, f.MediaType()+";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", b)
}

// openAPI answers the OpenAPI paths.
func (l *Library) openAPI(c *call.Call, path string) error {
	docs := l.present().openapi
	accept := c.R.Header.Get("Accept")
	switch path {
	case "openapi/v3":
		b, err := docs.Index()
		if err != nil {
			return err
		}
		c.Send(http.StatusOK, wire.TypeJSON, b)
		return nil
	case "openapi/v2":
		doc, err := docs.V2()
		if err != nil {
			return err
		}
		if strings.Contains(accept, "proto-openapi.spec.v2") {
			return openAPIProto(c, "application/com.github.proto-openapi.spec.v2.v1.0+protobuf", doc.ProtobufV2)
		}
		return openAPIJSON(c, doc)
	}
	if l.cfg.PassDocument != nil && l.cfg.PassDocument(c, path) {
		return nil
	}
	rest := strings.Split(strings.TrimPrefix(path, "openapi/v3/"), "/")
	gv := schema.GroupVersion{Version: rest[len(rest)-1]}
	switch {
	case len(rest) == 3 && rest[0] == "apis":
		gv.Group = rest[1]
	case len(rest) == 2 && rest[0] == "api":
	default:
		return call.ErrNoPath()
	}
	doc, ok, err := docs.V3(gv)
	switch {
	case !ok:
		return call.ErrNoPath()
	case err != nil:
		return err
	}
	switch hash := c.Query.Get("hash"); {
	case hash == doc.Hash:
		// The URL names the content: it can be kept for ever.
		c.W.Header().Set("Expires", time.Now().AddDate(1, 0, 0).UTC().Format(http.TimeFormat))
	case hash != "":
		u := *c.R.URL
		q := u.Query()
		q.Set("hash", doc.Hash)
		u.RawQuery = q.Encode()
		http.Redirect(c.W, c.R, u.String(), http.StatusMovedPermanently)
		return nil
	}
	if strings.Contains(accept, "proto-openapi.spec.v3") {
		return openAPIProto(c, "application/com.github.proto-openapi.spec.v3.v1.0+protobuf", doc.ProtobufV3)
	}
	return openAPIJSON(c, doc)
}

func openAPIProto(c *call.Call, contentType string, make func() ([]byte, error)) error {
	b, err := make()
	if err != nil {
		return err
	}
	c.Send(http.StatusOK, contentType, b)
	return nil
}

// openAPIJSON sends a document as it is kept, compressed, to clients that take it so.
func openAPIJSON(c *call.Call, doc *openapi.Document) error {
	h := c.W.Header()
	h.Set("ETag", `"`+doc.Hash+`"`)
	h.Set("Vary", "Accept, Accept-Encoding")
	if strings.Trim(c.R.Header.Get("If-None-Match"), `"`) == doc.Hash {
		c.W.WriteHeader(http.StatusNotModified)
		return nil
	}
	h.Set("Content-Type", wire.TypeJSON)
	if c.AcceptsGzip() {
		h.Set("Content-Encoding", "gzip")
		c.W.WriteHeader(http.StatusOK)
		_, _ = c.W.Write(doc.Gzip) // a client that went away has no use for the error
		return nil
	}
	b, err := doc.JSON()
	if err != nil {
		return err
	}
	c.W.WriteHeader(http.StatusOK)
	_, _ = c.W.Write(b) // as above
	return nil
}
