package definition

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"sync"

	"github.com/klauspost/compress/zstd"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	kjson "sigs.k8s.io/json"
)

// Schemas are most of a definition and are seldom looked at: of a thousand definitions that operators ship, few have objects. As Go
// types they take three times the bytes that were sent, packed a tenth of them.
//
// A packed schema is one whose Default begins with packedMark and goes on with the compressed JSON of the whole schema; its Title names the
// content. No JSON begins with that mark, so that nobody can send one.
const packedMark = 0xFF

// IsPacked reports whether a schema is packed.
func IsPacked(s *apiextensionsv1.JSONSchemaProps) bool {
	return s != nil && s.Default != nil && len(s.Default.Raw) > 0 && s.Default.Raw[0] == packedMark
}

// Name names the content of a schema. Only the same content has the same name; what differs in the order of its fields alone may have
// another one.
func Name(s *apiextensionsv1.JSONSchemaProps) (string, error) {
	if IsPacked(s) {
		return s.Title, nil
	}
	text, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("writing a schema: %w", err)
	}
	return nameOf(text), nil
}

func nameOf(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// pack returns the packed form of a schema's JSON.
func pack(text []byte) *apiextensionsv1.JSONSchemaProps {
	packed := compressor().EncodeAll(text, []byte{packedMark})
	return &apiextensionsv1.JSONSchemaProps{Title: nameOf(text), Default: &apiextensionsv1.JSON{Raw: bytes.Clone(packed)}}
}

// Text returns the JSON of a schema.
func Text(s *apiextensionsv1.JSONSchemaProps) ([]byte, error) {
	if !IsPacked(s) {
		return json.Marshal(s)
	}
	text, err := decompressor().DecodeAll(s.Default.Raw[1:], nil)
	if err != nil {
		return nil, fmt.Errorf("unpacking a schema: %w", err)
	}
	return text, nil
}

// Schema returns a schema as it is when it is not packed: s itself where it is not.
func Schema(s *apiextensionsv1.JSONSchemaProps) (*apiextensionsv1.JSONSchemaProps, error) {
	if !IsPacked(s) {
		return s, nil
	}
	text, err := Text(s)
	if err != nil {
		return nil, err
	}
	out := &apiextensionsv1.JSONSchemaProps{}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(text, out); err != nil {
		return nil, fmt.Errorf("reading a packed schema: %w", err)
	}
	return out, nil
}

// Pack packs the schemas of a definition. It replaces what the definition's slices hold and changes nothing that others may share.
func Pack(def *apiextensionsv1.CustomResourceDefinition) error {
	return eachSchema(def, func(s *apiextensionsv1.JSONSchemaProps) (*apiextensionsv1.JSONSchemaProps, error) {
		if IsPacked(s) {
			return s, nil
		}
		text, err := json.Marshal(s)
		if err != nil {
			return nil, fmt.Errorf("packing a schema: %w", err)
		}
		return pack(text), nil
	})
}

// Whole returns a definition with its schemas as they were sent: def itself where none is packed.
func Whole(def *apiextensionsv1.CustomResourceDefinition) (*apiextensionsv1.CustomResourceDefinition, error) {
	if !anyPacked(def) {
		return def, nil
	}
	out := *def
	return &out, eachSchema(&out, Schema)
}

// Outline returns a definition whose schemas say nothing but their names. Those who ask only whether a schema has changed compare outlines.
func Outline(def *apiextensionsv1.CustomResourceDefinition) (*apiextensionsv1.CustomResourceDefinition, error) {
	out := *def
	return &out, eachSchema(&out, func(s *apiextensionsv1.JSONSchemaProps) (*apiextensionsv1.JSONSchemaProps, error) {
		name, err := Name(s)
		return &apiextensionsv1.JSONSchemaProps{Title: name}, err
	})
}

func anyPacked(def *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.ContainsFunc(def.Spec.Versions, func(v apiextensionsv1.CustomResourceDefinitionVersion) bool {
		return v.Schema != nil && IsPacked(v.Schema.OpenAPIV3Schema)
	})
}

// eachSchema replaces each schema of def by what f makes of it. The slice of versions becomes one of def's own.
func eachSchema(def *apiextensionsv1.CustomResourceDefinition, f func(*apiextensionsv1.JSONSchemaProps) (*apiextensionsv1.JSONSchemaProps, error)) error {
	def.Spec.Versions = slices.Clone(def.Spec.Versions)
	for i := range def.Spec.Versions {
		v := &def.Spec.Versions[i]
		if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
			continue
		}
		s, err := f(v.Schema.OpenAPIV3Schema)
		if err != nil {
			return fmt.Errorf("version %s: %w", v.Name, err)
		}
		v.Schema = &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: s}
	}
	return nil
}

// compressor and decompressor are safe for concurrent use. Their options are valid, so that making them cannot fail.
var (
	compressor = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(256<<10))
		if err != nil {
			panic(err)
		}
		return e
	})
	decompressor = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true))
		if err != nil {
			panic(err)
		}
		return d
	})
)
