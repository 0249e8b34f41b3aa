// Package discovery makes the documents by which clients learn what a server serves: /api, /apis, the resource list of
// each group-version, and the aggregated form of all (KEP-3352).
//
// What flows through it: the resources of one catalogue go in ([New]); [Documents] answers from what it made then. What must
// stay true: the documents follow from the declarations and what other servers say alone, in Kubernetes' order of groups and in
// alphabetical order of resources; the aggregated document carries a hash of itself, so that clients fetch it again only after a change.
package discovery

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/version"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/registration"
)

// Review is a kind that is not stored: one that can be posted, such as a SubjectAccessReview, or that is worked out when it is read.
type Review struct {
	schema.GroupVersionKind
	Plural, Singular string
	Namespaced       bool
	ShortNames       []string
	Verbs            []string // nil means create
}

func (r *Review) verbs() []string {
	if r.Verbs == nil {
		return []string{"create"}
	}
	return r.Verbs
}

// Documents are what discovery answers with.
type Documents struct {
	Versions *metav1.APIVersions  // /api
	Groups   *metav1.APIGroupList // /apis

	resources map[schema.GroupVersion]*metav1.APIResourceList
	groups    map[string]*metav1.APIGroup
	foreign   map[schema.GroupVersion]*Foreign

	// Core and Named are the aggregated answers to /api and /apis, with their entity tags.
	Core, Named         *apidiscoveryv2.APIGroupDiscoveryList
	CoreETag, NamedETag string
}

// Foreign is a group-version that another server serves.
type Foreign struct {
	schema.GroupVersion
	GroupPriority, VersionPriority int32
	Served                         apidiscoveryv2.APIVersionDiscovery
}

// New makes the documents for the declared resources and reviews, and for what other servers serve, in the place of this one where both serve
// the same group-version. server is the address that /api names.
func New(resources []*api.Resource, reviews []Review, foreign []Foreign, server string) *Documents {
	d := &Documents{
		Versions: &metav1.APIVersions{
			TypeMeta: metav1.TypeMeta{Kind: "APIVersions"}, Versions: []string{"v1"},
			ServerAddressByClientCIDRs: []metav1.ServerAddressByClientCIDR{{ClientCIDR: "0.0.0.0/0", ServerAddress: server}},
		},
		Groups:    &metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}},
		resources: map[schema.GroupVersion]*metav1.APIResourceList{},
		groups:    map[string]*metav1.APIGroup{},
		foreign:   map[schema.GroupVersion]*Foreign{},
	}
	for _, r := range resources {
		for _, gv := range r.GroupVersions() {
			if !r.Hidden {
				d.add(gv, entries(r, gv))
			}
		}
	}
	for _, r := range reviews {
		d.add(r.GroupVersion(), []metav1.APIResource{{Name: r.Plural, SingularName: r.Singular, Namespaced: r.Namespaced, Kind: r.Kind, Verbs: r.verbs(), ShortNames: r.ShortNames}})
	}
	for _, l := range d.resources {
		slices.SortFunc(l.APIResources, func(a, b metav1.APIResource) int { return cmp.Compare(a.Name, b.Name) })
	}
	for i, f := range foreign {
		delete(d.resources, f.GroupVersion)
		d.foreign[f.GroupVersion] = &foreign[i]
	}
	d.listGroups()
	d.aggregate()
	return d
}

func (d *Documents) add(gv schema.GroupVersion, rs []metav1.APIResource) {
	l := d.resources[gv]
	if l == nil {
		l = &metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: gv.String()}
		d.resources[gv] = l
	}
	l.APIResources = append(l.APIResources, rs...)
}

// entries are the lines of one resource and its subresources in the list of group-version gv.
func entries(r *api.Resource, gv schema.GroupVersion) []metav1.APIResource {
	verbs := r.Verbs
	if verbs == nil {
		verbs = []string{"create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"}
	}
	out := []metav1.APIResource{{
		Name: r.Plural, SingularName: r.Singular, Namespaced: r.Namespaced, Kind: r.Kind, Verbs: slices.Sorted(slices.Values(verbs)),
		ShortNames: r.ShortNames, Categories: r.Categories, StorageVersionHash: storageHash(r.StoredAs().GroupVersionKind),
	}}
	if gv.Group != r.Group {
		// Kubernetes serves subresources in the group of the stored version only (events).
		return out
	}
	if r.Status {
		out = append(out, metav1.APIResource{Name: r.Plural + "/status", Namespaced: r.Namespaced, Kind: r.Kind, Verbs: []string{"get", "patch", "update"}})
	}
	if r.Scale != nil {
		out = append(out, metav1.APIResource{Name: r.Plural + "/scale", Namespaced: r.Namespaced, Group: "autoscaling", Version: "v1", Kind: "Scale", Verbs: []string{"get", "patch", "update"}})
	}
	for _, s := range r.Subresources {
		e := metav1.APIResource{Name: r.Plural + "/" + s.Name, Namespaced: r.Namespaced, Kind: s.Kind.Kind, Verbs: slices.Sorted(slices.Values(s.Verbs))}
		if s.Kind.GroupVersion() != gv {
			e.Group, e.Version = s.Kind.Group, s.Kind.Version
		}
		out = append(out, e)
	}
	return out
}

// storageHash names the stored version, so that storage migrators see when it changes. The formula is part of what
// clients have seen for years.
func storageHash(gvk schema.GroupVersionKind) string {
	sum := sha256.Sum256([]byte(gvk.Group + "/" + gvk.Version + "/" + gvk.Kind))
	return base64.StdEncoding.EncodeToString(sum[:8])
}

func (d *Documents) listGroups() {
	for _, gv := range slices.Concat(slices.Collect(maps.Keys(d.resources)), slices.Collect(maps.Keys(d.foreign))) {
		if gv.Group == "" {
			continue
		}
		g := d.groups[gv.Group]
		if g == nil {
			g = &metav1.APIGroup{Name: gv.Group}
			d.groups[gv.Group] = g
		}
		g.Versions = append(g.Versions, metav1.GroupVersionForDiscovery{GroupVersion: gv.String(), Version: gv.Version})
	}
	for _, name := range d.order() {
		g := d.groups[name]
		slices.SortFunc(g.Versions, func(a, b metav1.GroupVersionForDiscovery) int {
			x, y := d.priority(name, a.Version), d.priority(name, b.Version)
			return cmp.Or(cmp.Compare(y.Version, x.Version), version.CompareKubeAwareVersionStrings(b.Version, a.Version))
		})
		g.PreferredVersion = g.Versions[0]
		d.Groups.Groups = append(d.Groups.Groups, *g)
	}
}

// priority is the place of a group-version among the others.
func (d *Documents) priority(group, version string) registration.Priority {
	gv := schema.GroupVersion{Group: group, Version: version}
	if f := d.foreign[gv]; f != nil {
		return registration.Priority{Group: f.GroupPriority, Version: f.VersionPriority}
	}
	p, _ := registration.PriorityOf(gv)
	return p
}

// order returns the names of the groups other than the core, by the highest priority of their versions. Clients that look a short name up take
// the first match.
func (d *Documents) order() []string {
	rank := map[string]int32{}
	for name, g := range d.groups {
		for _, v := range g.Versions {
			rank[name] = max(rank[name], d.priority(name, v.Version).Group)
		}
	}
	return slices.SortedFunc(maps.Keys(d.groups), func(a, b string) int { return cmp.Or(cmp.Compare(rank[b], rank[a]), cmp.Compare(a, b)) })
}

// Group returns the answer to /apis/NAME.
func (d *Documents) Group(name string) (*metav1.APIGroup, bool) {
	g, ok := d.groups[name]
	if !ok {
		return nil, false
	}
	out := *g
	out.TypeMeta = metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}
	return &out, true
}

// Resources returns the answer to /api/v1 and /apis/GROUP/VERSION.
func (d *Documents) Resources(gv schema.GroupVersion) (*metav1.APIResourceList, bool) {
	l, ok := d.resources[gv]
	return l, ok
}

func (d *Documents) aggregate() {
	d.Core, d.Named = aggregatedList(), aggregatedList()
	d.Core.Items = append(d.Core.Items, d.aggregateGroup("", []string{"v1"}))
	for _, g := range d.Groups.Groups {
		var versions []string
		for _, v := range g.Versions {
			versions = append(versions, v.Version)
		}
		d.Named.Items = append(d.Named.Items, d.aggregateGroup(g.Name, versions))
	}
	d.CoreETag, d.NamedETag = etag(d.Core), etag(d.Named)
}

func aggregatedList() *apidiscoveryv2.APIGroupDiscoveryList {
	return &apidiscoveryv2.APIGroupDiscoveryList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupDiscoveryList", APIVersion: "apidiscovery.k8s.io/v2"}}
}

func (d *Documents) aggregateGroup(name string, versions []string) apidiscoveryv2.APIGroupDiscovery {
	g := apidiscoveryv2.APIGroupDiscovery{ObjectMeta: metav1.ObjectMeta{Name: name}}
	for _, v := range versions {
		gv := schema.GroupVersion{Group: name, Version: v}
		if f := d.foreign[gv]; f != nil {
			served := f.Served
			served.Version = v
			g.Versions = append(g.Versions, served)
			continue
		}
		l := d.resources[gv]
		av := apidiscoveryv2.APIVersionDiscovery{Version: v, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}
		if l != nil {
			av.Resources = Nested(l.APIResources)
		}
		g.Versions = append(g.Versions, av)
	}
	return g
}

// Nested returns a list with the subresources nested below their resources, which it need not name in order. Those of no resource are left out.
func Nested(rs []metav1.APIResource) []apidiscoveryv2.APIResourceDiscovery {
	var out []apidiscoveryv2.APIResourceDiscovery
	for _, r := range slices.SortedFunc(slices.Values(rs), func(a, b metav1.APIResource) int { return cmp.Compare(a.Name, b.Name) }) {
		kind := &metav1.GroupVersionKind{Group: r.Group, Version: r.Version, Kind: r.Kind}
		parent, sub, nested := strings.Cut(r.Name, "/")
		if nested {
			i := slices.IndexFunc(out, func(p apidiscoveryv2.APIResourceDiscovery) bool { return p.Resource == parent })
			if i < 0 {
				continue
			}
			p := &out[i]
			p.Subresources = append(p.Subresources, apidiscoveryv2.APISubresourceDiscovery{Subresource: sub, ResponseKind: kind, Verbs: r.Verbs})
			continue
		}
		scope := apidiscoveryv2.ScopeCluster
		if r.Namespaced {
			scope = apidiscoveryv2.ScopeNamespace
		}
		out = append(out, apidiscoveryv2.APIResourceDiscovery{
			Resource: r.Name, ResponseKind: kind, Scope: scope, SingularResource: r.SingularName, Verbs: r.Verbs,
			ShortNames: r.ShortNames, Categories: r.Categories,
		})
	}
	return out
}

func etag(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("discovery: %v", err)) // plain structs always marshal
	}
	return fmt.Sprintf("%X", sha256.Sum256(b))
}
