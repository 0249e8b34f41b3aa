package api

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Catalog is a set of resources, as of one moment. It never changes: With and Without return another one.
type Catalog struct {
	all    []*Resource // in the order of discovery
	kinds  map[schema.GroupVersionKind]*Resource
	served map[schema.GroupVersionResource]*Resource
	tables map[string]*Resource
	types  map[reflect.Type]*Resource // by the Go type of their objects: the first that has it
	shared map[reflect.Type]bool      // types that several resources have
}

// NewCatalog returns a Catalog of resources, no two of which may have the same name, kind or table.
func NewCatalog(resources ...*Resource) (*Catalog, error) { return (&Catalog{}).With(resources...) }

// With returns a Catalog that has more resources, or an error if a name, kind or table of theirs is taken.
func (c *Catalog) With(more ...*Resource) (*Catalog, error) {
	out := &Catalog{
		all: slices.Concat(c.all, more), kinds: cloned(c.kinds), served: cloned(c.served), tables: cloned(c.tables), types: cloned(c.types), shared: cloned(c.shared),
	}
	for _, r := range more {
		if taken := out.tables[r.Table()]; taken != nil {
			return nil, fmt.Errorf("%s: the table %s is that of %s", r.GroupResource(), r.Table(), taken.GroupResource())
		}
		out.tables[r.Table()] = r
		for _, gv := range append([]schema.GroupVersion{r.GroupVersion()}, r.Versions...) {
			if taken := out.kinds[gv.WithKind(r.Kind)]; taken != nil {
				return nil, fmt.Errorf("%s: the kind %s is that of %s", r.GroupResource(), gv.WithKind(r.Kind), taken.GroupResource())
			}
			if taken := out.served[gv.WithResource(r.Plural)]; taken != nil {
				return nil, fmt.Errorf("%s in %s is there already", r.GroupResource(), gv)
			}
			out.kinds[gv.WithKind(r.Kind)], out.served[gv.WithResource(r.Plural)] = r, r
		}
		t := reflect.TypeOf(r.New())
		if out.types[t] == nil {
			out.types[t] = r
		} else {
			out.shared[t] = true
		}
	}
	return out, nil
}

func cloned[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return maps.Clone(m)
}

// Without returns a Catalog that lacks resources.
func (c *Catalog) Without(less ...*Resource) *Catalog {
	kept := slices.DeleteFunc(slices.Clone(c.all), func(r *Resource) bool { return slices.Contains(less, r) })
	out, err := NewCatalog(kept...)
	if err != nil {
		panic(err) // what is in one catalogue goes together
	}
	return out
}

// All returns the resources in the order of discovery. The slice is not to be changed.
func (c *Catalog) All() []*Resource { return c.all }

// Has reports whether r itself, not only its name, is in c.
func (c *Catalog) Has(r *Resource) bool { return c.kinds[r.GroupVersionKind] == r }

// Kind returns the resource that serves objects of kind gvk, in its stored version or a further one, or nil.
func (c *Catalog) Kind(gvk schema.GroupVersionKind) *Resource { return c.kinds[gvk] }

// Find returns the resource that is served as gvr, in its stored version or a further one.
func (c *Catalog) Find(gvr schema.GroupVersionResource) (*Resource, bool) {
	r, ok := c.served[gvr]
	return r, ok
}

// Type returns the resource whose objects have Go type t (a pointer type such as *corev1.Pod), or nil: of several, the first.
func (c *Catalog) Type(t reflect.Type) *Resource { return c.types[t] }

// Of returns the resource of an object: by its Go type, and by the kind that it says where several resources have objects of that type
// (those that custom resource definitions add). nil if there is none.
func (c *Catalog) Of(obj Object) *Resource {
	t := reflect.TypeOf(obj)
	if c.shared[t] {
		if r := c.kinds[obj.GetObjectKind().GroupVersionKind()]; r != nil {
			return r
		}
	}
	return c.types[t]
}

// Served is the catalogue of the moment: what joins and leaves while the server runs, as custom resource definitions do.
type Served struct {
	mu      sync.Mutex
	catalog *Catalog
	changed chan struct{}
}

// NewServed returns a Served that begins with c.
func NewServed(c *Catalog) *Served { return &Served{catalog: c, changed: make(chan struct{})} }

// Catalog returns the present catalogue, and a channel that is closed when another one takes its place.
func (s *Served) Catalog() (*Catalog, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.catalog, s.changed
}

// Now returns the present catalogue.
func (s *Served) Now() *Catalog {
	c, _ := s.Catalog()
	return c
}

// Change puts what f makes of the present catalogue in its place.
func (s *Served) Change(f func(*Catalog) (*Catalog, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, err := f(s.catalog)
	if err != nil {
		return err
	}
	s.catalog = next
	close(s.changed)
	s.changed = make(chan struct{})
	return nil
}
