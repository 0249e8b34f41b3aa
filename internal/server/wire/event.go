package wire

import (
	"encoding/binary"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// StreamType returns the Content-Type of a watch in format f; ok is false where the format cannot be streamed.
func StreamType(f Format) (contentType string, ok bool) {
	switch f {
	case JSON:
		return TypeJSON, true
	case Protobuf:
		return TypeProtobuf + ";stream=watch", true
	case CBOR:
		return TypeCBORSeq, true
	}
	return "", false
}

// AppendEvent appends one watch event, framed for its format, to b. item is the bytes of [Item].
func AppendEvent(b []byte, kind string, gvk schema.GroupVersionKind, item []byte, f Format) ([]byte, error) {
	switch f {
	case Protobuf:
		return appendEventProto(b, kind, gvk, item), nil
	case CBOR:
		ev, err := direct.Marshal(&metav1.WatchEvent{Type: kind, Object: runtime.RawExtension{Raw: item}})
		return append(b, ev...), err
	}
	b = append(append(b, `{"type":"`...), kind...)
	b = append(append(b, `","object":`...), item...)
	return append(b, "}\n"...), nil
}

// appendEventProto appends a length-prefixed metav1.WatchEvent{Type, Object: RawExtension{Raw: envelope}}. The lengths of
// the nested messages are known beforehand, so that the item is copied once.
func appendEventProto(b []byte, kind string, gvk schema.GroupVersionKind, item []byte) []byte {
	apiVersion := gvk.GroupVersion().String()
	meta := 1 + lenVarint(len(apiVersion)) + len(apiVersion) + 1 + lenVarint(len(gvk.Kind)) + len(gvk.Kind)
	doc := len(protoMagic) + 1 + lenVarint(meta) + meta + 1 + lenVarint(len(item)) + len(item) + 4
	ext := 1 + lenVarint(doc) + doc
	total := 1 + lenVarint(len(kind)) + len(kind) + 1 + lenVarint(ext) + ext
	b = binary.BigEndian.AppendUint32(b, uint32(total))
	b = appendBytes(b, 0x0a, kind)
	b = appendVarint(append(b, 0x12), ext)
	b = appendVarint(append(b, 0x0a), doc)
	b = append(b, protoMagic...)
	return appendUnknown(b, gvk, item)
}
