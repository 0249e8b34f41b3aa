package store

import (
	"maps"
	"reflect"
	"strconv"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Object is one API object.
type Object interface {
	runtime.Object
	metav1.Object
}

// Encoding numbers a wire format whose bytes a [Revision] can keep.
type Encoding int

// Wire formats that are kept. Others are made anew each time.
const (
	JSON Encoding = iota
	Protobuf
	encodings
)

// Revision is one object as it was at one revision of the store. It is immutable and shared.
type Revision struct {
	// Key is the object's key below its table's prefix: NAME or NAMESPACE/NAME.
	Key string
	// Rev is the revision of the store at which the object became so; the object carries it as its resourceVersion.
	Rev    int64
	Object Object

	encoded [encodings]atomic.Pointer[[]byte]
	record  *record // in the history, from the first time that it is needed there
}

// recorded returns the revision's record. The store's lock is held.
func (r *Revision) recorded() *record {
	if r.record == nil {
		r.record = &record{revision: r, key: r.Key, rev: r.Rev}
	}
	return r.record
}

// Bytes returns the object in wire format e, made by encode at most once a revision and format and then shared: the caller
// must not change them.
func (r *Revision) Bytes(e Encoding, encode func(Object) ([]byte, error)) ([]byte, error) {
	if b := r.encoded[e].Load(); b != nil {
		return *b, nil
	}
	b, err := encode(r.Object)
	if err != nil {
		return nil, err
	}
	r.encoded[e].Store(&b)
	return b, nil
}

// forget drops kept encodings, when a newer revision has taken this one's place.
func (r *Revision) forget() {
	for i := range r.encoded {
		r.encoded[i].Store(nil)
	}
}

// FormatRevision writes a revision as a resourceVersion.
func FormatRevision(rev int64) string { return strconv.FormatInt(rev, 10) }

// deletedAt returns obj as the last state of an object deleted at rev: the same content, with the revision of its deletion as
// resourceVersion (what a DELETED watch event carries).
func deletedAt(obj Object, rev int64) Object {
	c := Shallow(obj)
	c.SetResourceVersion(FormatRevision(rev))
	return c
}

// Shallow returns a copy of obj that shares everything below its top-level fields; metadata's scalar fields (such as the
// resourceVersion) can be set on it without touching obj.
func Shallow(obj Object) Object {
	if u, ok := obj.(*unstructured.Unstructured); ok {
		content := maps.Clone(u.Object)
		if meta, ok := content["metadata"].(map[string]any); ok {
			content["metadata"] = maps.Clone(meta)
		}
		return &unstructured.Unstructured{Object: content}
	}
	v := reflect.ValueOf(obj)
	c := reflect.New(v.Type().Elem())
	c.Elem().Set(v.Elem())
	return c.Interface().(Object)
}
