package wire

import (
	"mime"
	"strings"
)

// Format is one of the serialisations that the API speaks.
type Format int

// Formats.
const (
	JSON Format = iota
	YAML
	Protobuf
	CBOR
)

// Media types of the formats, and of the patches that only requests use.
const (
	TypeJSON     = "application/json"
	TypeYAML     = "application/yaml"
	TypeProtobuf = "application/vnd.kubernetes.protobuf"
	TypeCBOR     = "application/cbor"
	TypeCBORSeq  = "application/cbor-seq"
)

// MediaType returns the format's Content-Type.
func (f Format) MediaType() string {
	switch f {
	case YAML:
		return TypeYAML
	case Protobuf:
		return TypeProtobuf
	case CBOR:
		return TypeCBOR
	}
	return TypeJSON
}

// String returns the format's short name, which also keys cached encodings.
func (f Format) String() string {
	switch f {
	case YAML:
		return "yaml"
	case Protobuf:
		return "protobuf"
	case CBOR:
		return "cbor"
	}
	return "json"
}

// FormatOf returns the format that a request's Content-Type names. An absent one means JSON, as in Kubernetes.
func FormatOf(contentType string) (Format, bool) {
	switch contentType {
	case "", TypeJSON:
		return JSON, true
	case TypeProtobuf:
		return Protobuf, true
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		media, _, _ = strings.Cut(contentType, ";")
		media = strings.ToLower(strings.TrimSpace(media))
	}
	switch media {
	case TypeJSON:
		return JSON, true
	case TypeYAML:
		return YAML, true
	case TypeProtobuf:
		return Protobuf, true
	case TypeCBOR:
		return CBOR, true
	}
	return JSON, false
}
