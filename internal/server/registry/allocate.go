package registry

import (
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// allocator gives objects of one resource what no two objects may have. What is taken stands in the store, and is taken and given back
// in the transaction that writes the object.
type allocator interface {
	// fill gives obj what it needs and does not have, and refuses what it names and cannot have. It goes before obj is prepared and
	// validated; nothing is taken yet. old is what is stored, nil for a new object.
	fill(obj, old api.Object) error
	// exchange returns the mutations that take what obj has and old had not, and give back what old had and obj no longer has; either
	// may be nil.
	exchange(old, obj api.Object) []store.Mutation
}

// exchange returns the mutations that go with one of an object of res.
func (r *Registry) exchange(res *api.Resource, old, obj api.Object) []store.Mutation {
	if a := r.allocators[res]; a != nil {
		return a.exchange(old, obj)
	}
	return nil
}
