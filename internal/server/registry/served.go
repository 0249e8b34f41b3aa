package registry

import (
	"context"
	"fmt"
	"net/http"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// Specs declares a table of the store for each resource.
func Specs(resources []*api.Resource) []store.Spec {
	specs := make([]store.Spec, len(resources))
	for i, res := range resources {
		specs[i] = spec(res)
	}
	return specs
}

func spec(res *api.Resource) store.Spec {
	out := store.Spec{
		Prefix: res.Table(),
		Encode: func(o store.Object) ([]byte, error) { return res.Encode(o) },
		Decode: func(b []byte) (store.Object, error) {
			o, err := res.Decode(b)
			if err == nil {
				o.GetObjectKind().SetGroupVersionKind(res.GroupVersionKind)
			}
			return o, err
		},
		Indexes: map[string]func(store.Object) []string{},
		History: res.History,
	}
	for name, values := range res.Indexes {
		out.Indexes[name] = func(o store.Object) []string { return values(o) }
	}
	if res.Share != nil {
		out.Share = func(o store.Object) { res.Share(o) }
	}
	return out
}

// gone are the tables of resources that are no longer served, for requests that are under way: they read nothing or what there was
// last, and writes are refused.
type gone struct {
	mu     sync.Mutex
	tables map[*api.Resource]*store.Table
}

// Served returns the catalogue of what is served.
func (r *Registry) Served() *api.Served { return r.served }

// Serve begins to serve a resource: its table is there before anybody finds it in the catalogue.
func (r *Registry) Serve(ctx context.Context, res *api.Resource) error {
	if _, err := r.served.Now().With(res); err != nil {
		return err
	}
	if _, err := r.store.Open(ctx, spec(res)); err != nil {
		return fmt.Errorf("serving %s: %w", res.GroupResource(), err)
	}
	err := r.served.Change(func(c *api.Catalog) (*api.Catalog, error) { return c.With(res) })
	if err != nil {
		r.store.Drop(res.Table())
	}
	return err
}

// Retire ends to serve a resource: nobody finds it in the catalogue, then its table goes, and watches of it end. What is stored stays.
func (r *Registry) Retire(res *api.Resource) {
	r.gone.mu.Lock()
	if r.gone.tables == nil {
		r.gone.tables = map[*api.Resource]*store.Table{}
	}
	r.gone.tables[res] = r.store.Table(res.Table())
	r.gone.mu.Unlock()
	_ = r.served.Change(func(c *api.Catalog) (*api.Catalog, error) { return c.Without(res), nil }) // never fails
	r.store.Drop(res.Table())
}

func (r *Registry) table(res *api.Resource) *store.Table {
	if t := r.store.Table(res.Table()); t != nil {
		return t
	}
	r.gone.mu.Lock()
	defer r.gone.mu.Unlock()
	t := r.gone.tables[res]
	if t == nil {
		panic(fmt.Sprintf("registry: no table for %s", res.Plural))
	}
	return t
}

// notServed is the answer to a request for a resource that has left in the midst of it: what a path that nobody knows gets.
func notServed(res *api.Resource) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", res.GroupResource(), "", "404 page not found", 0, true)
}
