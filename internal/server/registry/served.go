package registry

import (
	"context"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

// Specs declares a table of the store for each resource that has one.
func Specs(resources []*api.Resource) []store.Spec {
	var specs []store.Spec
	for _, res := range resources {
		if res.StoredAs() == res {
			specs = append(specs, spec(res))
		}
	}
	return specs
}

func spec(res *api.Resource) store.Spec {
	out := store.Spec{
		Prefix: res.Table(),
		Encode: func(o store.Object) ([]byte, error) { return res.Encode(o) },
		Decode: func(b []byte) (store.Object, error) {
			o, err := res.Decode(b)
			if err == nil && !res.Unstructured { // those say which version they are of
				o.GetObjectKind().SetGroupVersionKind(res.GroupVersionKind)
			}
			return o, err
		},
		Indexes: map[string]func(store.Object) []string{},
		History: res.History, Compact: res.Packing != nil,
	}
	for name, values := range res.Indexes {
		out.Indexes[name] = func(o store.Object) []string { return values(o) }
	}
	if res.Share != nil {
		out.Share = func(o store.Object) { res.Share(o) }
	}
	return out
}

// Served returns the catalogue of what is served.
func (r *Registry) Served() *api.Served { return r.served }

// Serve begins to serve resources: their tables are there before anybody finds them in the catalogue.
func (r *Registry) Serve(ctx context.Context, more ...*api.Resource) error {
	return r.Exchange(ctx, nil, more)
}

// Retire ends to serve resources: nobody finds them in the catalogue, then their tables go, and watches of them end. What is stored stays.
func (r *Registry) Retire(less ...*api.Resource) {
	_ = r.Exchange(context.Background(), less, nil) // only what comes can fail
}

// Exchange serves more in place of less, in one step of the catalogue. A table that both have stays, and its watches go on, where both read
// it in the same way (api.Dynamic); otherwise a new one takes its place and its watches end. If it returns an error nothing has changed but
// that some tables may have been read anew.
func (r *Registry) Exchange(ctx context.Context, less, more []*api.Resource) error {
	r.exchanging.Lock()
	defer r.exchanging.Unlock()
	now := r.served.Now()
	next, err := now.Without(less...).With(more...)
	if err != nil {
		return err
	}
	before, after := tablesOf(now.Stored()), tablesOf(next.Stored())
	var opened []string
	for _, res := range more {
		if res.StoredAs() != res {
			continue
		}
		old := before[res.Table()]
		switch {
		case old == nil:
			_, err = r.store.Open(ctx, spec(res))
			opened = append(opened, res.Table())
		case old.Reading != res.Reading:
			_, err = r.store.Reopen(ctx, spec(res))
		}
		if err != nil {
			for _, table := range opened {
				r.store.Drop(table)
			}
			return fmt.Errorf("serving %s: %w", res.GroupResource(), err)
		}
	}
	_ = r.served.Change(func(*api.Catalog) (*api.Catalog, error) { return next, nil }) // exchanges are the only changes
	r.managers.Forget(less...)
	for _, res := range less {
		if after[res.Table()] == nil {
			r.store.Drop(res.Table())
		}
	}
	return nil
}

func tablesOf(resources []*api.Resource) map[string]*api.Resource {
	out := make(map[string]*api.Resource, len(resources))
	for _, res := range resources {
		out[res.Table()] = res
	}
	return out
}

// Table returns the table of a resource. A request may be under way for one that has just left: it finds nothing, and writes are refused.
func (r *Registry) Table(res *api.Resource) *store.Table {
	if t := r.store.Table(res.Table()); t != nil {
		return t
	}
	return r.store.Dropped(spec(res))
}

// notServed is the answer to a request for a resource that has left in the midst of it: what a path that nobody knows gets.
func notServed(res *api.Resource) error {
	return apierrors.NewGenericServerResponse(http.StatusNotFound, "", res.GroupResource(), "", "404 page not found", 0, true)
}
