package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"sigs.k8s.io/yaml"
)

// protoMagic begins every object in Kubernetes' protobuf: the rest is a runtime.Unknown.
var protoMagic = []byte("k8s\x00")

// unknownTail ends an envelope: two empty strings, which Kubernetes writes too.
var unknownTail = []byte{0x1a, 0, 0x22, 0}

// cborTag begins every CBOR document (RFC 8949 section 3.4.6), and none of its parts.
var cborTag = []byte{0xd9, 0xd9, 0xf7}

// marshaler is what the generated protobuf code gives.
type marshaler interface {
	Size() int
	MarshalToSizedBuffer(data []byte) (int, error)
}

// HasProtobuf reports whether obj can be written as protobuf; metav1.Table, for one, cannot.
func HasProtobuf(obj runtime.Object) bool {
	_, ok := obj.(marshaler)
	return ok
}

// Named returns obj with its kind and version set to gvk: obj itself where they are, else a shallow copy, because
// objects are shared.
func Named(obj runtime.Object, gvk schema.GroupVersionKind) runtime.Object {
	if obj.GetObjectKind().GroupVersionKind() == gvk {
		return obj
	}
	if u, ok := obj.(*unstructured.Unstructured); ok {
		u = &unstructured.Unstructured{Object: maps.Clone(u.Object)}
		u.SetGroupVersionKind(gvk)
		return u
	}
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return obj
	}
	c := reflect.New(v.Elem().Type())
	c.Elem().Set(v.Elem())
	out := c.Interface().(runtime.Object)
	out.GetObjectKind().SetGroupVersionKind(gvk)
	return out
}

// Encode returns obj, of kind gvk, as a complete document.
func Encode(obj runtime.Object, gvk schema.GroupVersionKind, f Format, pretty bool) ([]byte, error) {
	if f == JSON && pretty {
		b, err := json.MarshalIndent(Named(obj, gvk), "", "  ")
		return append(b, '\n'), err
	}
	b, err := Item(obj, gvk, f)
	if err != nil {
		return nil, err
	}
	return Document(b, gvk, f, false)
}

// Item returns the bytes of obj that documents, lists and watch events are made of: JSON and YAML without a final
// newline, protobuf without its envelope.
func Item(obj runtime.Object, gvk schema.GroupVersionKind, f Format) ([]byte, error) {
	switch f {
	case YAML:
		b, err := json.Marshal(Named(obj, gvk))
		if err != nil {
			return nil, err
		}
		return yaml.JSONToYAML(b)
	case Protobuf:
		m, ok := obj.(marshaler)
		if !ok {
			return nil, fmt.Errorf("%T cannot be written as protobuf", obj)
		}
		b := make([]byte, m.Size())
		n, err := m.MarshalToSizedBuffer(b)
		if err != nil {
			return nil, err
		}
		return b[len(b)-n:], nil
	case CBOR:
		var b bytes.Buffer
		err := cborEncoder().Encode(Named(obj, gvk), &b)
		return b.Bytes(), err
	}
	obj = Named(obj, gvk)
	if u, ok := obj.(*unstructured.Unstructured); ok {
		return json.Marshal(u.Object) // its own method marshals twice
	}
	return json.Marshal(obj)
}

// Document makes the bytes of one item a document of its own. The item is not changed.
func Document(item []byte, gvk schema.GroupVersionKind, f Format, pretty bool) ([]byte, error) {
	switch f {
	case Protobuf:
		b := append(make([]byte, 0, len(item)+unknownOverhead(gvk)), protoMagic...)
		return appendUnknown(b, gvk, item), nil
	case JSON:
		if pretty {
			var b bytes.Buffer
			if err := json.Indent(&b, item, "", "  "); err != nil {
				return nil, err
			}
			return append(b.Bytes(), '\n'), nil
		}
		return append(append(make([]byte, 0, len(item)+1), item...), '\n'), nil
	}
	return item, nil
}

// unknownOverhead bounds what an envelope adds to an item.
func unknownOverhead(gvk schema.GroupVersionKind) int {
	return len(gvk.Group) + len(gvk.Version) + len(gvk.Kind) + 40
}

// appendUnknown appends a runtime.Unknown{TypeMeta: gvk, Raw: raw}.
func appendUnknown(b []byte, gvk schema.GroupVersionKind, raw []byte) []byte {
	apiVersion := gvk.GroupVersion().String()
	size := 1 + lenVarint(len(apiVersion)) + len(apiVersion) + 1 + lenVarint(len(gvk.Kind)) + len(gvk.Kind)
	b = appendVarint(append(b, 0x0a), size)
	b = appendBytes(b, 0x0a, apiVersion)
	b = appendBytes(b, 0x12, gvk.Kind)
	b = appendBytes(b, 0x12, raw)
	return append(b, unknownTail...)
}

// appendBytes appends a length-delimited protobuf field with the given tag byte.
func appendBytes[T string | []byte](b []byte, tag byte, v T) []byte {
	return append(appendVarint(append(b, tag), len(v)), v...)
}

func appendVarint(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func lenVarint(n int) int {
	l := 1
	for ; n >= 0x80; n >>= 7 {
		l++
	}
	return l
}

// cborEncoder writes any object: kinds are set by Named, so no scheme is needed.
func cborEncoder() runtime.Serializer { return cbor.NewSerializer(nil, nil) }
