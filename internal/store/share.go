package store

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime"
)

// Most objects say what another one says: a pod's next state differs from the last in its status alone, and the pods of one
// ReplicaSet in little but their names. What is equal is kept once.

// share makes obj, which nobody else has yet, refer to the parts of an object in the copy that are equal to its own: of its present
// state or else of a neighbour, for the names of objects that are alike begin alike.
func (t *Table) share(key string, obj Object) {
	t.store.mu.RLock()
	like := t.like(key, obj)
	t.store.mu.RUnlock()
	if like != nil {
		t.shareWith(obj, like)
	}
}

// like returns the object to share with; the store's lock is held.
func (t *Table) like(key string, obj Object) Object {
	pivot := &Revision{Key: key}
	if old, ok := t.tree.Get(pivot); ok {
		return old.Object
	}
	gen := obj.GetGenerateName()
	if gen == "" {
		return nil
	}
	var found Object
	visit := func(r *Revision) bool {
		if r.Object.GetGenerateName() == gen && r.Object.GetNamespace() == obj.GetNamespace() {
			found = r.Object
		}
		return false
	}
	for _, scan := range []func(*Revision, func(*Revision) bool){t.tree.Descend, t.tree.Ascend} {
		if found == nil {
			scan(pivot, visit)
		}
	}
	return found
}

func (t *Table) shareWith(obj, like Object) {
	if u, ok := obj.(runtime.Unstructured); ok {
		if v, ok := like.(runtime.Unstructured); ok {
			shareContent(u.UnstructuredContent(), v.UnstructuredContent())
		}
		return
	}
	mine, theirs := reflect.ValueOf(obj).Elem(), reflect.ValueOf(like).Elem()
	if mine.Kind() != reflect.Struct || mine.Type() != theirs.Type() {
		return
	}
	shareFields(mine, theirs)
	if t.spec.Share != nil {
		t.spec.Share(obj)
	}
}

// shareContent replaces the top-level fields of an unstructured object by equal ones of another.
func shareContent(mine, theirs map[string]any) {
	for name, m := range mine {
		if t, has := theirs[name]; has && reflect.DeepEqual(m, t) {
			mine[name] = t
		}
	}
}

// shareFields replaces fields of mine by equal ones of theirs. It writes nothing but the object itself and the structures in it: what
// is behind its pointers, maps and slices may be shared with others already.
func shareFields(mine, theirs reflect.Value) {
	for i := range mine.NumField() {
		m, t := mine.Field(i), theirs.Field(i)
		if !m.CanSet() { // a time's, a quantity's
			continue
		}
		switch m.Kind() {
		case reflect.Struct:
			shareFields(m, t)
		case reflect.String:
			if m.Len() > 0 && m.String() == t.String() {
				m.Set(t)
			}
		case reflect.Slice:
			n := m.Len()
			if n > 0 && n == t.Len() && m.Pointer() != t.Pointer() && reflect.DeepEqual(m.Interface(), t.Interface()) {
				m.Set(t.Slice3(0, n, n)) // who appends to one must not write into what the other has
			}
		case reflect.Map, reflect.Pointer:
			if !m.IsNil() && !t.IsNil() && m.Pointer() != t.Pointer() && reflect.DeepEqual(m.Interface(), t.Interface()) {
				m.Set(t)
			}
		}
	}
}
