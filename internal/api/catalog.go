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
	stored []*Resource                // those that have a table: versions that are stored in another one have not
	types  map[reflect.Type]*Resource // by the Go type of their objects, but for unstructured ones
	shared map[string][]*Resource     // by table: those whose objects are the same, in several versions
}

// NewCatalog returns a Catalog of resources, no two of which may have the same name, kind or table.
func NewCatalog(resources ...*Resource) (*Catalog, error) { return (&Catalog{}).With(resources...) }

// With returns a Catalog that has more resources, or an error if a name, kind or table of theirs is taken.
func (c *Catalog) With(more ...*Resource) (*Catalog, error) {
	out := &Catalog{
		all: slices.Concat(c.all, more), stored: slices.Clone(c.stored), kinds: cloned(c.kinds), served: cloned(c.served), tables: cloned(c.tables), types: cloned(c.types),
		shared: cloned(c.shared),
	}
	for _, r := range more {
		if err := out.add(r); err != nil {
			return nil, err
		}
	}
	for _, r := range more {
		if s := r.StoredAs(); out.tables[r.Table()] != s {
			return nil, fmt.Errorf("%s in %s: the version in which its objects are stored is not there", r.GroupResource(), r.GroupVersion())
		}
	}
	return out, nil
}

// add adds r to a catalogue that nobody has yet.
func (c *Catalog) add(r *Resource) error {
	if r.StoredAs() == r {
		if taken := c.tables[r.Table()]; taken != nil {
			return fmt.Errorf("%s: the table %s is that of %s", r.GroupResource(), r.Table(), taken.GroupResource())
		}
		c.tables[r.Table()] = r
		c.stored = append(c.stored, r)
	}
	if have := c.shared[r.Table()]; !r.Hidden {
		c.shared[r.Table()] = append(have[:len(have):len(have)], r)
	}
	for _, gv := range r.GroupVersions() {
		if taken := c.kinds[gv.WithKind(r.Kind)]; taken != nil {
			return fmt.Errorf("%s: the kind %s is that of %s", r.GroupResource(), gv.WithKind(r.Kind), taken.GroupResource())
		}
		if taken := c.served[gv.WithResource(r.Plural)]; taken != nil {
			return fmt.Errorf("%s in %s is there already", r.GroupResource(), gv)
		}
		c.kinds[gv.WithKind(r.Kind)] = r
		if !r.Hidden {
			c.served[gv.WithResource(r.Plural)] = r
		}
	}
	if !r.Unstructured {
		if t := reflect.TypeOf(r.New()); c.types[t] == nil {
			c.types[t] = r
		}
	}
	return nil
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

// All returns the resources in the order of discovery, each version of a custom resource on its own. The slice is not to be changed.
func (c *Catalog) All() []*Resource { return c.all }

// Stored returns the resources that have a table: each resource once, in the version in which its objects are stored. The slice is not to be changed.
func (c *Catalog) Stored() []*Resource { return c.stored }

// Has reports whether r itself, not only its name, is in c.
func (c *Catalog) Has(r *Resource) bool { return c.kinds[r.GroupVersionKind] == r }

// Kind returns the resource that serves objects of kind gvk, in its stored version or a further one, or nil.
func (c *Catalog) Kind(gvk schema.GroupVersionKind) *Resource { return c.kinds[gvk] }

// Versions returns the resources under which the objects of r are served: r, and further versions of it. The slice is not to be changed.
func (c *Catalog) Versions(r *Resource) []*Resource { return c.shared[r.Table()] }

// Find returns the resource that is served as gvr, in its stored version or a further one. Hidden ones are not.
func (c *Catalog) Find(gvr schema.GroupVersionResource) (*Resource, bool) {
	r, ok := c.served[gvr]
	return r, ok
}

// Type returns the resource whose objects have Go type t (a pointer type such as *corev1.Pod), or nil.
func (c *Catalog) Type(t reflect.Type) *Resource { return c.types[t] }

// Of returns the resource of an object, by its Go type or, where it is unstructured, by the kind that it says. nil if there is none.
func (c *Catalog) Of(obj Object) *Resource {
	if r := c.types[reflect.TypeOf(obj)]; r != nil {
		return r
	}
	return c.kinds[obj.GetObjectKind().GroupVersionKind()]
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
