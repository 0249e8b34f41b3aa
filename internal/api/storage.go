package api

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"google.golang.org/protobuf/encoding/protowire"
)

// storageMagic begins every protobuf value in Kubernetes' etcd. What follows is a runtime.Unknown.
const storageMagic = "k8s\x00"

// message is what the generated protobuf code of k8s.io/api gives.
type message interface {
	runtime.ProtobufMarshaller
	Unmarshal(data []byte) error
}

// encodeStorage returns obj as Kubernetes writes it to etcd: "k8s\0", then a runtime.Unknown that names the stored
// version and holds the object's protobuf. metadata.resourceVersion is left out, because etcd's revision is the truth (and
// selfLink, which is history). obj is not changed.
func encodeStorage(res *Resource, obj Object) ([]byte, error) {
	if obj.GetResourceVersion() != "" || obj.GetSelfLink() != "" {
		obj = res.shallow(obj)
		obj.SetResourceVersion("")
		obj.SetSelfLink("")
	}
	m, ok := obj.(message)
	if !ok {
		return nil, fmt.Errorf("encode %T: it has no protobuf form", obj)
	}
	apiVersion, kind := res.GroupVersionKind.ToAPIVersionAndKind()
	unknown := runtime.Unknown{TypeMeta: runtime.TypeMeta{APIVersion: apiVersion, Kind: kind}}
	size := m.Size()
	// The envelope's fields, and at most 11 bytes for the tag and length of Raw.
	buf := make([]byte, len(storageMagic)+unknown.Size()+size+11)
	copy(buf, storageMagic)
	n, err := unknown.NestedMarshalTo(buf[len(storageMagic):], m, uint64(size))
	if err != nil {
		return nil, fmt.Errorf("encode %s %s: %w", kind, KeyOf(obj), err)
	}
	return buf[:len(storageMagic)+n], nil
}

// decodeStorage reads what encodeStorage, or Kubernetes itself, wrote for resource res: the protobuf envelope or JSON, in
// the stored version or another one of the scheme. Defaults are applied, as there may be fields newer than the stored
// bytes. The object does not share memory with data.
func decodeStorage(res *Resource, data []byte) (Object, error) {
	rest, ok := bytes.CutPrefix(data, []byte(storageMagic))
	if !ok {
		return decodeForeign(res, data)
	}
	apiVersion, kind, raw, err := openEnvelope(rest)
	if err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", res.Kind, err)
	}
	if schema.FromAPIVersionAndKind(apiVersion, kind) != res.GroupVersionKind {
		return decodeForeign(res, data)
	}
	obj := res.New()
	if err := obj.(message).Unmarshal(raw); err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", res.Kind, err)
	}
	res.Default(obj)
	return obj, nil
}

// decodeForeign reads JSON or another version than the one res is stored in.
func decodeForeign(res *Resource, data []byte) (Object, error) {
	if len(data) == 0 {
		return nil, fmt.Errorf("decode stored %s: no data", res.Kind)
	}
	obj, gvk, err := Codecs.UniversalDeserializer().Decode(data, &res.GroupVersionKind, nil)
	if err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", res.Kind, err)
	}
	obj, err = Convert(obj, res.GroupVersion())
	if err != nil {
		return nil, fmt.Errorf("decode stored %s: %w", res.Kind, err)
	}
	if reflect.TypeOf(obj) != reflect.TypeOf(res.New()) {
		return nil, fmt.Errorf("decode stored %s: found a %s", res.Kind, gvk)
	}
	obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
	return obj.(Object), nil
}

var errEnvelope = errors.New("malformed protobuf envelope")

// openEnvelope takes a serialised runtime.Unknown apart without copying: typeMeta is field 1, raw field 2.
func openEnvelope(b []byte) (apiVersion, kind string, raw []byte, err error) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 || typ != protowire.BytesType {
			return "", "", nil, errEnvelope
		}
		value, m := protowire.ConsumeBytes(b[n:])
		if m < 0 {
			return "", "", nil, errEnvelope
		}
		b = b[n+m:]
		switch num {
		case 1:
			var meta runtime.TypeMeta
			if err := meta.Unmarshal(value); err != nil {
				return "", "", nil, errEnvelope
			}
			apiVersion, kind = meta.APIVersion, meta.Kind
		case 2:
			raw = value
		case 3:
			if len(value) > 0 {
				return "", "", nil, fmt.Errorf("%w: content encoding %q", errEnvelope, value)
			}
		}
	}
	return apiVersion, kind, raw, nil
}
