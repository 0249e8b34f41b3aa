package registry

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// Reader reads the shared copy without statuses and selections, for admission, authentication and authorization. It needs no Registry.
type Reader struct{ store *store.Store }

// NewReader returns a Reader of s, which must have been made with Specs.
func NewReader(s *store.Store) Reader { return Reader{s} }

// Reader returns a Reader of what r reads.
func (r *Registry) Reader() Reader { return Reader{r.store} }

// Get returns the stored object, shared and immutable.
func (r Reader) Get(res *api.Resource, key api.Key) (api.Object, bool) {
	t := r.store.Table(res.Table())
	if t == nil { // it is no longer served
		return nil, false
	}
	rev, ok := t.Get(res.Key(key))
	if !ok {
		return nil, false
	}
	return rev.Object, true
}

// Changed returns a revision that is another one whenever the objects of res have changed.
func (r Reader) Changed(res *api.Resource) int64 {
	t := r.store.Table(res.Table())
	if t == nil {
		return 0
	}
	return t.Changed()
}

// List visits the objects of a namespace ("" for all) in order until visit returns false.
func (r Reader) List(res *api.Resource, namespace string, visit func(api.Object) bool) {
	prefix := ""
	if namespace != "" && res.Namespaced {
		prefix = namespace + "/"
	}
	t := r.store.Table(res.Table())
	if t == nil {
		return
	}
	t.Snapshot().Ascend(prefix, "", func(rev *store.Revision) bool { return visit(rev.Object) })
}

// PodsOn visits the pods bound to a node until visit returns false.
func (r Reader) PodsOn(node string, visit func(*corev1.Pod) bool) {
	for _, rev := range r.store.Table(api.Pods.Table()).Lookup(api.IndexNode, node) {
		if !visit(rev.Object.(*corev1.Pod)) {
			return
		}
	}
}
