package openapi

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
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
	v3        map[schema.GroupVersion]*part
	versions  []schema.GroupVersion
	foreign   map[schema.GroupVersion]string // what other servers serve, and where they document it
}

// part is the document of one group-version.
type part struct {
	resources []*api.Resource // of the group-version
	hash      string          // of what it is made from, where all resources have an edition: it need not be made to be named
	make      func() (*Document, error)
}

// New returns the documents of resources and reviews. version is the server's.
func New(resources []*api.Resource, reviews []discovery.Review, version string) *Documents {
	return (&Documents{reviews: reviews, version: version}).With(resources)
}

// With returns the documents of other resources. Group-versions that are as before keep theirs.
func (d *Documents) With(resources []*api.Resource) *Documents {
	out := &Documents{resources: resources, reviews: d.reviews, version: d.version, v3: map[schema.GroupVersion]*part{}}
	for _, r := range resources {
		for _, gv := range r.GroupVersions() {
			if !r.Hidden {
				out.addVersion(gv)
				out.v3[gv].resources = append(out.v3[gv].resources, r)
			}
		}
	}
	for _, r := range d.reviews {
		out.addVersion(r.GroupVersion())
	}
	for gv, p := range out.v3 {
		p.hash = hashOf(gv, p.resources, d.version)
		if old := d.v3[gv]; old != nil && (p.hash != "" && old.hash == p.hash || slices.Equal(old.resources, p.resources)) {
			out.v3[gv] = old
			continue
		}
		p.make = sync.OnceValues(func() (*Document, error) { return pack(buildV3(p.resources, d.reviews, d.version, gv), p.hash) })
	}
	out.v2 = sync.OnceValues(func() (*Document, error) { return pack(out.buildV2(), "") })
	return out
}

func (d *Documents) addVersion(gv schema.GroupVersion) {
	if d.v3[gv] == nil {
		d.v3[gv] = &part{}
		d.versions = append(d.versions, gv)
	}
}

// hashOf names what the document of a group-version is made from; empty where a resource does not name its edition.
func hashOf(gv schema.GroupVersion, resources []*api.Resource, version string) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%s\x00%s\x00", gv, version) // a hash takes everything
	for _, r := range resources {
		if r.Edition == "" {
			return ""
		}
		_, _ = fmt.Fprintf(h, "%s\x00%s\x00", r.Plural, r.Edition)
	}
	if len(resources) == 0 {
		return ""
	}
	return fmt.Sprintf("%X", h.Sum(nil))
}

// V2 returns the document of everything.
func (d *Documents) V2() (*Document, error) { return d.v2() }

// V3 returns the document of one group-version; ok is false where it is not served.
func (d *Documents) V3(gv schema.GroupVersion) (doc *Document, ok bool, err error) {
	p, ok := d.v3[gv]
	if !ok {
		return nil, false, nil
	}
	doc, err = p.make()
	return doc, true, err
}

// Index returns the answer to /openapi/v3: where the document of each group-version is, by its hash.
func (d *Documents) Index() ([]byte, error) {
	paths := object{}
	for gv, location := range d.foreign {
		if location != "" {
			paths[pathOf(gv)] = object{"serverRelativeURL": location}
		}
	}
	for _, gv := range d.versions {
		if _, elsewhere := d.foreign[gv]; elsewhere {
			continue
		}
		hash := d.v3[gv].hash
		if hash == "" {
			doc, err := d.v3[gv].make()
			if err != nil {
				return nil, err
			}
			hash = doc.Hash
		}
		p := pathOf(gv)
		paths[p] = object{"serverRelativeURL": "/openapi/v3/" + p + "?hash=" + hash}
	}
	return json.Marshal(object{"paths": paths})
}

func pathOf(gv schema.GroupVersion) string {
	if gv.Group == "" {
		return "api/" + gv.Version
	}
	return "apis/" + gv.String()
}

func buildV3(resources []*api.Resource, reviews []discovery.Review, version string, gv schema.GroupVersion) object {
	b := newBuilder(true)
	paths := b.add(resources, reviews, gv)
	return object{
		"openapi": "3.0.0",
		"info":    object{"title": "Kubernetes", "version": version},
		"paths":   paths,
		"components": object{"schemas": b.schemas, "securitySchemes": object{
			"BearerToken": object{"type": "apiKey", "name": "authorization", "in": "header", "description": "Bearer Token authentication"}}},
	}
}

func (d *Documents) buildV2() object {
	b := newBuilder(false)
	paths := object{}
	for _, gv := range d.versions {
		for p, item := range b.add(d.v3[gv].resources, d.reviews, gv) {
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
func (b *builder) add(resources []*api.Resource, reviews []discovery.Review, gv schema.GroupVersion) object {
	paths := object{}
	for _, r := range resources {
		if r.Unstructured {
			b.addCustom(r)
		}
	}
	mark := func(k kind) {
		if t := typeOf(k); t != nil {
			b.addKind(t, k.extension())
		}
	}
	for _, rt := range routes(resources, reviews, gv) {
		if len(rt.verbs) == 0 {
			continue
		}
		paths[rt.path] = b.item(rt)
		mark(rt.kind)
		if slices.Contains(rt.verbs, "list") {
			mark(rt.list())
		}
	}
	for _, k := range []string{"APIResourceList", "DeleteOptions", "Status", "WatchEvent"} { // of every group's paths
		mark(kind{schema.GroupVersionKind{Version: "v1", Kind: k}})
	}
	for _, r := range api.Builtin { // kinds that others hold (the claims of a stateful set) are kinds there, too
		if _, held := b.schemas[modelName(reflect.TypeOf(r.New()).Elem())]; held {
			mark(kind{r.GroupVersionKind})
		}
	}
	return paths
}

// pack compresses a document; hash names it, or empty for that of its content. encoding/json sorts keys, so the bytes follow from the content.
func pack(doc object, hash string) (*Document, error) {
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
	if hash == "" {
		hash = fmt.Sprintf("%X", sha256.Sum256(b))
	}
	return &Document{Gzip: z.Bytes(), Hash: hash}, nil
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
