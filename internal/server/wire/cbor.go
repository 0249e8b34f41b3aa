package wire

import (
	"bytes"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
)

// Field is a field of a list beside its elements.
type Field struct {
	Name  string
	Value any
}

// CBORList returns what precedes and what follows the n elements of a list whose field named key holds them. Fields stand in the order of
// their encoded names (RFC 8949 section 4.2.1), as Kubernetes writes them.
func CBORList(key string, n int, fields []Field) (head, tail []byte, err error) {
	name, err := direct.Marshal(key)
	if err != nil {
		return nil, nil, err
	}
	type encoded struct{ name, value []byte }
	all := make([]encoded, len(fields))
	for i, f := range fields {
		if all[i].name, err = direct.Marshal(f.Name); err != nil {
			return nil, nil, err
		}
		if all[i].value, err = direct.Marshal(f.Value); err != nil {
			return nil, nil, err
		}
	}
	slices.SortFunc(all, func(a, b encoded) int { return bytes.Compare(a.name, b.name) })
	head = appendCBORHead(slices.Clone(cborTag), 5, len(fields)+1)
	for _, f := range all {
		if bytes.Compare(f.name, name) < 0 {
			head = append(append(head, f.name...), f.value...)
		} else {
			tail = append(append(tail, f.name...), f.value...)
		}
	}
	return appendCBORHead(append(head, name...), 4, n), tail, nil
}

// CBORPart makes a CBOR document a part of another.
func CBORPart(doc []byte) []byte { return bytes.TrimPrefix(doc, cborTag) }

// appendCBORHead appends the head of an array (major type 4) or a map (5) of n elements.
func appendCBORHead(b []byte, major byte, n int) []byte {
	major <<= 5
	switch {
	case n < 24:
		return append(b, major|byte(n))
	case n < 1<<8:
		return append(b, major|24, byte(n))
	case n < 1<<16:
		return append(b, major|25, byte(n>>8), byte(n))
	}
	return append(b, major|26, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
}
