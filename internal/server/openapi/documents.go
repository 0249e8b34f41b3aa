package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"

	openapiv2 "github.com/google/gnostic-models/openapiv2"
	openapiv3 "github.com/google/gnostic-models/openapiv3"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/discovery"
)

// Document is one document in JSON, compressed, with the hash of its content.
type Document struct {
	Gzip []byte
	Hash string
}

// Documents makes documents when they are first asked for.
type Documents struct {
	resources []*api.Resource
	reviews   []discovery.Review
	version   string
	v2        func() (*Document, error)
	v3        map[schema.GroupVersion]func() (*Document, error)
	versions  []schema.GroupVersion
}

// New returns the documents of the declared resources and reviews. version is the server's.
func New(resources []*api.Resource, reviews []discovery.Review, version string) *Documents {
	d := &Documents{resources: resources, reviews: reviews, version: version, v3: map[schema.GroupVersion]func() (*Document, error){}}
	for _, r := range resources {
		d.addVersion(r.GroupVersion())
		for _, gv := range r.Versions {
			d.addVersion(gv)
		}
	}
	for _, r := range reviews {
		d.addVersion(r.GroupVersion())
	}
	d.v2 = sync.OnceValues(func() (*Document, error) { return pack(d.buildV2()) })
	return d
}

func (d *Documents) addVersion(gv schema.GroupVersion) {
	if d.v3[gv] == nil {
		d.v3[gv] = sync.OnceValues(func() (*Document, error) { return pack(d.buildV3(gv)) })
		d.versions = append(d.versions, gv)
	}
}

// V2 returns the document of everything.
func (d *Documents) V2() (*Document, error) { return d.v2() }

// V3 returns the document of one group-version; ok is false where it is not served.
func (d *Documents) V3(gv schema.GroupVersion) (doc *Document, ok bool, err error) {
	make, ok := d.v3[gv]
	if !ok {
		return nil, false, nil
	}
	doc, err = make()
	return doc, true, err
}

// Index returns the answer to /openapi/v3: where the document of each group-version is, by its hash.
func (d *Documents) Index() ([]byte, error) {
	paths := object{}
	for _, gv := range d.versions {
		doc, err := d.v3[gv]()
		if err != nil {
			return nil, err
		}
		p := pathOf(gv)
		paths[p] = object{"serverRelativeURL": "/openapi/v3/" + p + "?hash=" + doc.Hash}
	}
	return json.Marshal(object{"paths": paths})
}

func pathOf(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.String()
}

func (d *Documents) buildV3(gv schema.GroupVersion) object {
	b := newBuilder(true)
	paths := b.add(d, gv)
	return object{
		"openapi": "3.0.0",
		"info":    object{"title": "Kubernetes", "version": d.version},
		"paths":   paths,
		"components": object{"schemas": b.schemas, "securitySchemes": object{
			"BearerToken": object{"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication"}}},
	}
}

func (d *Documents) buildV2() object {
	b := newBuilder(false)
	paths := object{}
	for _, gv := range d.versions {
		for p, item := range b.add(d, gv) {
			paths[p] = item
		}
	}
	return object{
		"swagger":     "2.0",
		"info":        object{"title": "Kubernetes", "version": d.version},
		"paths":       paths,
		"definitions": b.schemas,
		"securityDefinitions": object{
			"BearerToken": object{"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication"}},
		"security": []any{object{"BearerToken": []any{}}},
	}
}

// add adds the kinds of gv and returns its paths.
func (b *builder) add(d *Documents, gv schema.GroupVersion) object {
	paths := object{}
	mark := func(k kind) {
		if t := typeOf(k); t != nil {
			b.addKind(t, k.extension())
		}
	}
	for _, rt := range routes(d.resources, d.reviews, gv) {
		if len(rt.verbs) == 0 {
			continue
		}
		paths[rt.path] = b.item(rt)
		mark(rt.kind)
		if slices.Contains(rt.verbs, "list") {
			mark(kind{gv.WithKind(rt.kind.Kind + "List")})
		}
	}
	for _, k := range []string{"APIResourceList", "DeleteOptions", "Status", "WatchEvent"} { // of every group's paths
		mark(kind{schema.GroupVersionKind{Version: "v1", Kind: k}})
	}
	return paths
}

// pack compresses a document. encoding/json sorts keys, so the bytes follow from the content.
func pack(doc object) (*Document, error) {
	b, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("making the OpenAPI document: %w", err)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	if _, err := w.Write(b); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return &Document{Gzip: z.Bytes(), Hash: fmt.Sprintf("%X", sha256.Sum256(b))}, nil
}

// JSON returns the document's bytes.
func (d *Document) JSON() ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(d.Gzip))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// ProtobufV2 returns a version 2 document as gnostic's protobuf, which client-go asks for.
func (d *Document) ProtobufV2() ([]byte, error) {
	b, err := d.JSON()
	if err != nil {
		return nil, err
	}
	doc, err := openapiv2.ParseDocument(b)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(doc)
}

// ProtobufV3 does the same for a version 3 document.
func (d *Document) ProtobufV3() ([]byte, error) {
	b, err := d.JSON()
	if err != nil {
		return nil, err
	}
	doc, err := openapiv3.ParseDocument(b)
	if err != nil {
		return nil, err
	}
	return proto.Marshal(doc)
}
