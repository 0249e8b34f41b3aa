package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"
)

// Left is what other servers still hold in a namespace.
type Left struct {
	Objects    map[string]int // by RESOURCE.GROUP
	Finalizers map[string]int // by name
	// Undiscovered are group-versions of which nobody says what they hold.
	Undiscovered []string
	Errs         []error
}

// Empty deletes, as who, what other servers hold in a namespace, and returns what is left.
func (a *Aggregator) Empty(ctx context.Context, who user.Info, namespace string) Left {
	left := Left{Objects: map[string]int{}, Finalizers: map[string]int{}}
	done := map[string]bool{} // the same objects may be served in several versions
	for _, b := range a.all() {
		d := b.discovered.Load()
		if d == nil || !d.current || !b.available {
			left.Undiscovered = append(left.Undiscovered, b.gv.String())
			continue
		}
		for i := range d.version.Resources {
			r := &d.version.Resources[i]
			name := r.Resource + "." + b.gv.Group
			if r.Scope != apidiscoveryv2.ScopeNamespace || !can(r, "list", "delete") || done[name] {
				continue
			}
			done[name] = true
			objs, err := b.empty(ctx, who, r, namespace)
			if err != nil {
				left.Errs = append(left.Errs, fmt.Errorf("deleting %s: %w", name, err))
			}
			if len(objs) > 0 {
				left.Objects[name] = len(objs)
			}
			for _, o := range objs {
				for _, f := range o.Finalizers {
					left.Finalizers[f]++
				}
			}
		}
	}
	return left
}

// empty deletes the objects of one resource and returns those that are left.
func (b *backend) empty(ctx context.Context, who user.Info, r *apidiscoveryv2.APIResourceDiscovery, namespace string) ([]metav1.PartialObjectMetadata, error) {
	at := b.path() + "/namespaces/" + namespace + "/" + r.Resource
	objs, err := b.list(ctx, who, at)
	if err != nil || len(objs) == 0 {
		return objs, err
	}
	const policy = "?propagationPolicy=Background"
	paths := []string{at}
	if !can(r, "deletecollection") {
		paths = nil
		for _, o := range objs {
			paths = append(paths, at+"/"+o.Name)
		}
	}
	for _, path := range paths {
		got, err := b.ask(ctx, who, http.MethodDelete, path+policy, http.Header{"Accept": {"application/json"}})
		if err == nil && got.code >= 300 && got.code != http.StatusNotFound && got.code != http.StatusConflict {
			err = fmt.Errorf("the server answered %d: %.200s", got.code, got.body)
		}
		if err != nil {
			return objs, err
		}
	}
	return b.list(ctx, who, at)
}

// list returns the metadata of the objects of one resource.
func (b *backend) list(ctx context.Context, who user.Info, at string) ([]metav1.PartialObjectMetadata, error) {
	got, err := b.ask(ctx, who, http.MethodGet, at, http.Header{"Accept": {"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"}})
	switch {
	case err != nil:
		return nil, err
	case got.code == http.StatusNotFound, got.code == http.StatusMethodNotAllowed:
		return nil, nil
	case got.code != http.StatusOK:
		return nil, fmt.Errorf("the server answered %d: %.200s", got.code, got.body)
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(got.body, &list); err != nil {
		return nil, err
	}
	return list.Items, nil
}
