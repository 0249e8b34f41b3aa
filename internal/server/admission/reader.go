package admission

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// StoreReader is a Reader of the store's copy. It is also what the Node authorizer reads (authz.Cluster).
type StoreReader struct{ Store *store.Store }

var _ Reader = StoreReader{}

func (r StoreReader) table(res *api.Resource) *store.Table {
	return r.Store.Table("/registry/" + res.Prefix + "/")
}

// Get implements Reader. A resource that has no table has no objects.
func (r StoreReader) Get(res *api.Resource, key api.Key) (api.Object, bool) {
	t := r.table(res)
	if t == nil {
		return nil, false
	}
	k := key.Name
	if res.Namespaced {
		k = key.Namespace + "/" + key.Name
	}
	rev, ok := t.Get(k)
	if !ok {
		return nil, false
	}
	return rev.Object, true
}

// List implements Reader.
func (r StoreReader) List(res *api.Resource, namespace string, visit func(api.Object) bool) {
	t := r.table(res)
	if t == nil {
		return
	}
	prefix := ""
	if res.Namespaced && namespace != "" {
		prefix = namespace + "/"
	}
	t.Snapshot().Ascend(prefix, "", func(rev *store.Revision) bool { return visit(rev.Object) })
}

// PodsOn visits the pods bound to a node, by the store's index, until visit returns false.
func (r StoreReader) PodsOn(node string, visit func(*corev1.Pod) bool) {
	for _, rev := range r.table(api.Pods).Lookup("node", node) {
		if !visit(rev.Object.(*corev1.Pod)) {
			return
		}
	}
}
