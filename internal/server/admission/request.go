package admission

import (
	"context"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission/match"
	"github.com/knarr-io/knarr/internal/server/request"
)

// Request returns what webhooks and policies may be asked about: the write in the version in which it was asked for. The equivalent versions
// are those of catalog.
func (a *Attributes) Request(ctx context.Context, catalog *api.Catalog) *match.Request {
	info := request.From(ctx)
	r := &match.Request{Operation: string(a.Operation), Subresource: a.Subresource, Namespace: a.Key.Namespace, Name: a.Key.Name}
	if a.Resource == api.Namespaces {
		r.Namespace = a.Key.Name
	}
	for _, o := range []api.Object{a.Object, a.Old} {
		if o != nil {
			r.Labels = append(r.Labels, labels.Set(o.GetLabels()))
		}
	}
	gv := a.version(info)
	r.Target = targetIn(a.Resource, gv, a.Subresource)
	for _, res := range catalog.Versions(a.Resource) {
		for _, gv := range res.GroupVersions() {
			r.Equivalents = append(r.Equivalents, targetIn(res, gv, a.Subresource))
		}
	}
	if a.Subresource == "binding" && strings.HasSuffix(info.Path, "/bindings") { // the older way to bind
		r.Resource.Resource, r.Subresource, r.Equivalents = "bindings", "", nil
	}
	return r
}

// version returns the group-version that the request names: writes in the process, and those that follow from a request for something
// else, are in the version of their resource.
func (a *Attributes) version(info *request.Info) schema.GroupVersion {
	asked := schema.GroupVersion{Group: info.Group, Version: info.Version}
	if info.Resource == a.Resource.Plural {
		for _, gv := range a.Resource.Versions {
			if gv == asked {
				return gv
			}
		}
	}
	return a.Resource.GroupVersion()
}

// targetIn returns a resource in a version, with the kind that is exchanged; none where that version lacks the subresource.
func targetIn(res *api.Resource, gv schema.GroupVersion, subresource string) match.Target {
	t := match.Target{Resource: gv.WithResource(res.Plural), Kind: gv.WithKind(res.Kind)}
	if subresource == "" {
		return t
	}
	sub, ok := res.Subresource(subresource)
	switch {
	case !ok:
		t.Kind = schema.GroupVersionKind{}
	case sub.Kind != res.GroupVersionKind:
		t.Kind = sub.Kind
	}
	return t
}

// Matches reports whether c chooses r, and in which version. It reads the labels of the request's namespace where they decide. An error is
// an API status.
func (a *Attributes) Matches(c *match.Criteria, r *match.Request, reader Reader) (match.Target, bool, error) {
	target, chosen, err := c.Choose(r)
	if err != nil || !chosen || !c.AsksNamespace(r) {
		return target, chosen, err
	}
	if r.Resource.Resource == "namespaces" && r.Subresource == "" && (a.Operation == Create || a.Operation == Update) {
		return target, c.ChoosesNamespace(a.Object.GetLabels()), nil // as it will be
	}
	ns, ok := reader.Get(api.Namespaces, api.Key{Name: r.Namespace})
	if !ok {
		return target, false, apierrors.NewNotFound(api.Namespaces.GroupResource(), r.Namespace)
	}
	return target, c.ChoosesNamespace(ns.GetLabels()), nil
}

// In returns obj, Object or Old or the Connection of a, as an object of a kind that a Request has as its own or as an equivalent. It is
// obj itself where it is of that kind; it may share memory with obj.
func (a *Attributes) In(ctx context.Context, catalog *api.Catalog, obj runtime.Object, kind schema.GroupVersionKind) (runtime.Object, error) {
	switch {
	case kind.Kind != a.Resource.Kind: // the kinds of subresources have one version
		return obj, nil
	case kind == a.Resource.GroupVersionKind && a.Resource.Packing != nil:
		return a.Resource.Whole(obj.(api.Object))
	case kind == a.Resource.GroupVersionKind && !a.Resource.Unstructured: // custom resources that are deleted are as they are stored
		return obj, nil
	}
	return convert(ctx, catalog, obj, kind)
}

// Back returns an object that In has converted in the version of a's resource.
func (a *Attributes) Back(ctx context.Context, catalog *api.Catalog, obj runtime.Object, kind schema.GroupVersionKind) (runtime.Object, error) {
	if kind.Kind != a.Resource.Kind || kind == a.Resource.GroupVersionKind {
		return obj, nil
	}
	return convert(ctx, catalog, obj, a.Resource.GroupVersionKind)
}

func convert(ctx context.Context, catalog *api.Catalog, obj runtime.Object, kind schema.GroupVersionKind) (runtime.Object, error) {
	res := catalog.Kind(kind)
	switch {
	case res == nil:
		return nil, apierrors.NewInternalError(fmt.Errorf("no kind %v is served", kind))
	case !res.Unstructured:
		return api.Convert(obj, kind.GroupVersion())
	}
	out, err := res.Own(ctx, obj.(api.Object))
	if err != nil {
		return nil, err
	}
	return out[0], nil
}
