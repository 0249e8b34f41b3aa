package client

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

// RemoteConfig is what a Remote works with.
type RemoteConfig struct {
	// Server is the API's URL, https://HOST:PORT.
	Server string
	// Transport carries the requests; it has the credentials.
	Transport http.RoundTripper
	// UserAgent is recorded as the manager of written fields, up to its first slash.
	UserAgent string
	Log       *slog.Logger // nil means slog.Default()
}

// Remote is the Client of another machine: it speaks HTTPS with a server. What is being watched is mirrored in memory, each
// selection once however many watch it, and read from there, also while the server is away; other reads ask the server.
// What a write stored is visible to the next read of the same Remote; a deletion may be seen a moment later.
type Remote struct {
	cfg  RemoteConfig
	base *url.URL

	ctx    context.Context // of the mirrors' goroutines
	cancel context.CancelFunc
	tasks  sync.WaitGroup

	served *api.Served

	mu      sync.Mutex
	mirrors map[*api.Resource][]*mirror
}

var _ Client = (*Remote)(nil)

// NewRemote returns a Client of the API at cfg.Server. Close it after use.
func NewRemote(cfg RemoteConfig) (*Remote, error) {
	base, err := url.Parse(cfg.Server)
	if err != nil || base.Scheme != "https" || base.Host == "" {
		return nil, fmt.Errorf("the server's URL %q: want https://HOST:PORT", cfg.Server)
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "knarr"
	}
	r := &Remote{cfg: cfg, base: base, mirrors: map[*api.Resource][]*mirror{}, served: api.NewServed(api.BuiltinCatalog())}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Close ends all watches and waits for them.
func (r *Remote) Close() {
	r.cancel()
	r.tasks.Wait()
}

// tableKey is an object's key within its table.
func tableKey(res *api.Resource, key api.Key) string {
	if res.Namespaced {
		return key.Namespace + "/" + key.Name
	}
	return key.Name
}

// spec is the declaration of a mirror's table: the indexes of the shared copy.
func spec(res *api.Resource) store.Spec { return registry.Specs([]*api.Resource{res})[0] }

// synced returns the mirrors of a resource that hold what their selection chooses.
func (r *Remote) synced(res *api.Resource) []*mirror {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*mirror
	for _, m := range r.mirrors[res] {
		if m.isSynced() {
			out = append(out, m)
		}
	}
	return out
}

// Served implements Client. Machines that join deal with built-in resources alone.
func (r *Remote) Served() *api.Served { return r.served }

// Get implements Client.
func (r *Remote) Get(ctx context.Context, res *api.Resource, key api.Key) (api.Object, error) {
	var known *store.Revision
	complete := false
	for _, m := range r.synced(res) {
		if rev, ok := m.table().Get(tableKey(res, key)); ok && !m.selection.onlyReach && (known == nil || rev.Rev > known.Rev) {
			known = rev
		}
		complete = complete || m.selection.covers(key)
	}
	switch {
	case known != nil:
		return known.Object, nil
	case complete:
		return nil, apierrors.NewNotFound(res.GroupResource(), key.Name)
	}
	return r.get(ctx, res, key)
}

// List implements Client.
func (r *Remote) List(ctx context.Context, res *api.Resource, opts ListOptions) ([]api.Object, error) {
	want := selectionOf(res, opts)
	for _, m := range r.synced(res) {
		if m.selection.includes(want) {
			return listTable(m.table(), res, opts)
		}
	}
	objs, _, err := r.list(ctx, want)
	if err != nil {
		return nil, err
	}
	if !want.remote() { // an index that the API has no selector for
		mem := store.NewMirror(spec(res))
		mem.Replace(byKey(res, objs), 1)
		return listTable(mem.Table(), res, opts)
	}
	slices.SortFunc(objs, func(a, b api.Object) int {
		switch ka, kb := tableKey(res, api.KeyOf(a)), tableKey(res, api.KeyOf(b)); {
		case ka < kb:
			return -1
		case ka > kb:
			return 1
		}
		return 0
	})
	return objs, nil
}

func byKey(res *api.Resource, objs []api.Object) map[string]store.Object {
	m := make(map[string]store.Object, len(objs))
	for _, o := range objs {
		m[tableKey(res, api.KeyOf(o))] = o
	}
	return m
}

// Create implements Client.
func (r *Remote) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	res := resourceOf(obj)
	out, err := r.send(ctx, http.MethodPost, r.path(res, obj.GetNamespace(), "", ""), res, obj)
	return r.written(res, out, err)
}

// Update implements Client.
func (r *Remote) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	res := resourceOf(obj)
	out, err := r.send(ctx, http.MethodPut, r.path(res, obj.GetNamespace(), obj.GetName(), sub), res, obj)
	if apierrors.IsConflict(err) {
		// The mirror is behind: without the newer object, whoever tries again would fail again until it has caught up.
		if now, e := r.get(ctx, res, api.KeyOf(obj)); e == nil {
			r.ahead(res, now)
		}
	}
	return r.written(res, out, err)
}

// written makes the answer to a write visible.
func (r *Remote) written(res *api.Resource, out api.Object, err error) (api.Object, error) {
	if err != nil {
		return nil, err
	}
	r.ahead(res, out)
	return out, nil
}

func (r *Remote) ahead(res *api.Resource, obj api.Object) {
	for _, m := range r.synced(res) {
		if m.selection.chooses(obj) {
			m.copy.Ahead(tableKey(res, api.KeyOf(obj)), obj)
		}
	}
}

// Delete implements Client.
func (r *Remote) Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) error {
	return r.delete(ctx, res, key, opts)
}

// atOnce is how many requests a bulk write has under way.
const atOnce = 16

// CreateMany implements Client.
func (r *Remote) CreateMany(ctx context.Context, objs []api.Object) []Result {
	return each(objs, func(o api.Object) (api.Object, error) { return r.Create(ctx, o) })
}

// UpdateMany implements Client.
func (r *Remote) UpdateMany(ctx context.Context, objs []api.Object, sub string) []Result {
	return each(objs, func(o api.Object) (api.Object, error) { return r.Update(ctx, o, sub) })
}

// DeleteMany implements Client.
func (r *Remote) DeleteMany(ctx context.Context, objs []api.Object, opts metav1.DeleteOptions) []Result {
	return each(objs, func(o api.Object) (api.Object, error) {
		mine, uid := opts, o.GetUID()
		mine.Preconditions = &metav1.Preconditions{UID: &uid}
		return nil, r.delete(ctx, resourceOf(o), api.KeyOf(o), mine)
	})
}

// BindMany implements Client.
func (r *Remote) BindMany(ctx context.Context, bindings []Binding) []Result {
	return each(bindings, func(b Binding) (api.Object, error) { return r.bind(ctx, b) })
}

func each[T any](items []T, do func(T) (api.Object, error)) []Result {
	out := make([]Result, len(items))
	var wg sync.WaitGroup
	room := make(chan struct{}, atOnce)
	for i := range items {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			out[i].Object, out[i].Err = do(items[i])
		})
	}
	wg.Wait()
	return out
}

// RequestToken asks for a token of a service account, by the serviceaccounts/token subresource.
func (r *Remote) RequestToken(ctx context.Context, namespace, account string, req *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
	out, err := r.post(ctx, r.path(api.ServiceAccounts, namespace, account, "token"), authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), req)
	if err != nil {
		return nil, fmt.Errorf("a token for service account %s/%s: %w", namespace, account, err)
	}
	t, ok := out.(*authenticationv1.TokenRequest)
	if !ok {
		return nil, fmt.Errorf("a token for service account %s/%s: the server answered with a %T", namespace, account, out)
	}
	return t, nil
}

// ReviewToken asks whose a token is.
func (r *Remote) ReviewToken(ctx context.Context, review *authenticationv1.TokenReview) (*authenticationv1.TokenReview, error) {
	return reviewed[*authenticationv1.TokenReview](r.post(ctx, r.base.JoinPath("apis", "authentication.k8s.io", "v1", "tokenreviews"), authenticationv1.SchemeGroupVersion.WithKind("TokenReview"), review))
}

// ReviewAccess asks whether a user may do something.
func (r *Remote) ReviewAccess(ctx context.Context, review *authorizationv1.SubjectAccessReview) (*authorizationv1.SubjectAccessReview, error) {
	return reviewed[*authorizationv1.SubjectAccessReview](r.post(ctx, r.base.JoinPath("apis", "authorization.k8s.io", "v1", "subjectaccessreviews"), authorizationv1.SchemeGroupVersion.WithKind("SubjectAccessReview"), review))
}

func reviewed[T runtime.Object](out runtime.Object, err error) (T, error) {
	t, ok := out.(T)
	if err == nil && !ok {
		err = fmt.Errorf("the server answered with a %T, want a %T", out, t)
	}
	return t, err
}
