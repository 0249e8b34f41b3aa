package aggregate

import (
	"context"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server/discovery"
	"github.com/knarr-io/knarr/internal/server/openapi"
)

// Seen is what backends serve and document, as far as they have said. It never changes: there is another one when something is new.
type Seen struct {
	Discovery []discovery.Foreign
	OpenAPI   []openapi.Foreign
}

// Seen returns what is known of the backends.
func (a *Aggregator) Seen() *Seen { return a.seen.Load() }

// publish makes Seen what the backends are known to serve and document.
func (a *Aggregator) publish() {
	out := &Seen{}
	for _, b := range a.all() {
		out.Discovery = append(out.Discovery, b.foreign())
		if d := b.documented.Load(); d != nil && b.available {
			out.OpenAPI = append(out.OpenAPI, openapi.Foreign{GroupVersion: b.gv, V2: d.v2, Location: d.location})
		}
	}
	a.seen.Store(out)
}

// discovered is what a backend says that it serves in its group-version.
type discovered struct {
	etag    string // of the list of all its groups, where it has one
	version apidiscoveryv2.APIVersionDiscovery
	names   map[string]bool // of resources and "RESOURCE/SUBRESOURCE"
	current bool            // the last question was answered
}

// foreign returns what discovery says of the backend. As in kube-aggregator, nothing is known of one that is not available.
func (b *backend) foreign() discovery.Foreign {
	out := discovery.Foreign{
		GroupVersion: b.gv, GroupPriority: b.spec.GroupPriorityMinimum, VersionPriority: b.spec.VersionPriority,
		Served: apidiscoveryv2.APIVersionDiscovery{Version: b.gv.Version, Freshness: apidiscoveryv2.DiscoveryFreshnessStale},
	}
	if d := b.discovered.Load(); d != nil && b.available {
		out.Served.Resources = d.version.Resources
		if d.current {
			out.Served.Freshness = apidiscoveryv2.DiscoveryFreshnessCurrent
		}
	}
	return out
}

// answerWithin is how long a backend may take to say what it serves.
const answerWithin = 5 * time.Second

// discoverAll asks all backends what they serve, and reports whether all that are available have answered.
func (a *Aggregator) discoverAll(ctx context.Context) bool {
	ok := a.each(func(b *backend) bool {
		if !b.available {
			return true
		}
		ctx, cancel := context.WithTimeout(ctx, answerWithin)
		defer cancel()
		old := b.discovered.Load()
		now, err := b.serves(ctx, old)
		if err != nil {
			a.cfg.Log.Debug("an aggregated server does not say what it serves", "apiservice", b.name, "err", err)
			if now = (&discovered{}); old != nil {
				*now = *old
			}
			now.current = false
		}
		b.discovered.Store(now)
		return err == nil
	})
	a.publishNew()
	return ok
}

// publishNew publishes what backends said, where it differs from what is known.
func (a *Aggregator) publishNew() {
	before := a.seen.Load()
	a.publish()
	after := a.seen.Load()
	if before.same(after) {
		a.seen.Store(before) // documents made from it stay
	}
}

func (s *Seen) same(other *Seen) bool {
	x, errX := json.Marshal(s.Discovery)
	y, errY := json.Marshal(other.Discovery)
	if errX != nil || errY != nil || string(x) != string(y) || len(s.OpenAPI) != len(other.OpenAPI) {
		return false
	}
	for i, f := range s.OpenAPI {
		if g := other.OpenAPI[i]; f.GroupVersion != g.GroupVersion || f.Location != g.Location || f.V2 != g.V2 {
			return false
		}
	}
	return true
}

// acceptAll asks for the list of all groups in one document (KEP-3352).
const acceptAll = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// serves asks the backend what it serves: in the form of one document, or where it does not know that, of the list of its group-version.
func (b *backend) serves(ctx context.Context, old *discovered) (*discovered, error) {
	header := http.Header{"Accept": {acceptAll}}
	if old != nil && old.etag != "" {
		header.Set("If-None-Match", old.etag)
	}
	got, err := b.ask(ctx, aggregatorUser, http.MethodGet, "/apis", header)
	if err != nil {
		return nil, err
	}
	_, params, _ := mime.ParseMediaType(got.header.Get("Content-Type"))
	switch {
	case got.code == http.StatusNotModified && old != nil:
		same := *old
		same.current = true
		return &same, nil
	case got.code == http.StatusServiceUnavailable:
		return nil, fmt.Errorf("it answered %d", got.code)
	case got.code == http.StatusOK && params["as"] == "APIGroupDiscoveryList" && params["v"] == "v2":
		return b.fromAll(got)
	}
	return b.fromList(ctx)
}

// fromAll finds the backend's group-version in the list of all its groups.
func (b *backend) fromAll(got *answer) (*discovered, error) {
	var all apidiscoveryv2.APIGroupDiscoveryList
	if err := json.Unmarshal(got.body, &all); err != nil {
		return nil, err
	}
	out := &discovered{etag: got.header.Get("Etag"), current: true}
	for _, g := range all.Items {
		for _, v := range g.Versions {
			if g.Name == b.gv.Group && v.Version == b.gv.Version {
				out.version = v
			}
		}
	}
	return out.named(), nil
}

// fromList asks for the older form.
func (b *backend) fromList(ctx context.Context) (*discovered, error) {
	got, err := b.ask(ctx, aggregatorUser, http.MethodGet, b.path(), http.Header{"Accept": {"application/json"}})
	if err != nil {
		return nil, err
	}
	if got.code != http.StatusOK {
		return nil, fmt.Errorf("it answered %d for %s", got.code, b.path())
	}
	var list metav1.APIResourceList
	if err := json.Unmarshal(got.body, &list); err != nil {
		return nil, err
	}
	out := &discovered{current: true, version: apidiscoveryv2.APIVersionDiscovery{Resources: discovery.Nested(list.APIResources)}}
	return out.named(), nil
}

// named fills in what follows from the resources. Older clients cannot do without kinds.
func (d *discovered) named() *discovered {
	d.names = map[string]bool{}
	for i := range d.version.Resources {
		r := &d.version.Resources[i]
		d.names[r.Resource] = true
		if r.ResponseKind == nil {
			r.ResponseKind = &metav1.GroupVersionKind{}
		}
		for j := range r.Subresources {
			sub := &r.Subresources[j]
			d.names[r.Resource+"/"+sub.Subresource] = true
			if sub.ResponseKind == nil {
				sub.ResponseKind = &metav1.GroupVersionKind{}
			}
		}
	}
	return d
}

// can reports whether a resource can be used with all of verbs.
func can(r *apidiscoveryv2.APIResourceDiscovery, verbs ...string) bool {
	for _, v := range verbs {
		if !strings.Contains(" "+strings.Join(r.Verbs, " ")+" ", " "+v+" ") {
			return false
		}
	}
	return true
}
