package client

import (
	"context"
	"errors"
	"fmt"
	"strings"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/request"
	"github.com/knarr-io/knarr/internal/store"
)

// Local is the Client of callers in the server's own process: reads come from the shared copy without being copied, writes pass
// the front door without being encoded for a wire.
type Local struct {
	registry *registry.Registry
	fence    *store.Fence  // nil: writes carry none
	caller   *request.Info // whose writes they are; nil: that of the context, if it says
}

// NewLocal returns a Client over r.
func NewLocal(r *registry.Registry) *Local { return &Local{registry: r} }

// Fenced returns a Client whose writes are refused once somebody else has taken f: that of a leader.
func (l *Local) Fenced(f *store.Fence) *Local {
	return &Local{registry: l.registry, fence: f, caller: l.caller}
}

// As returns a Client whose writes are those of who: admission sees it, and managedFields name it by the last part of its name.
func (l *Local) As(who user.Info) *Local {
	name := who.GetName()
	return l.AsManager(who, name[strings.LastIndex(name, ":")+1:])
}

// AsManager returns a Client whose writes are those of who, and which managedFields name manager.
func (l *Local) AsManager(who user.Info, manager string) *Local {
	caller := &request.Info{User: who, Manager: manager, InProcess: true}
	return &Local{registry: l.registry, fence: l.fence, caller: caller}
}

// writing is the context of a write.
func (l *Local) writing(ctx context.Context) context.Context {
	if l.caller != nil {
		ctx = request.With(ctx, l.caller)
	}
	if l.fence == nil {
		return ctx
	}
	return store.WithFence(ctx, l.fence)
}

var _ Client = (*Local)(nil)

// Rescale sets the number of replicas of an object, as a write of its scale subresource does.
func (l *Local) Rescale(ctx context.Context, res *api.Resource, key api.Key, replicas int32) error {
	_, err := l.registry.UpdateScale(l.writing(ctx), res, key, func(s *autoscalingv1.Scale) (*autoscalingv1.Scale, error) {
		s.Spec.Replicas = replicas
		return s, nil
	}, metav1.UpdateOptions{})
	return err
}

// Served implements Client.
func (l *Local) Served() *api.Served { return l.registry.Served() }

// Get implements Client. Custom resources are as they are stored: in the version that they say.
func (l *Local) Get(ctx context.Context, res *api.Resource, key api.Key) (api.Object, error) {
	rev, err := l.registry.Get(ctx, res, key)
	if err != nil {
		return nil, err
	}
	return rev.Object, nil
}

// List implements Client.
func (l *Local) List(_ context.Context, res *api.Resource, opts ListOptions) ([]api.Object, error) {
	return listTable(l.table(res), res, opts)
}

// listTable returns what opts choose of a table.
func listTable(t *store.Table, res *api.Resource, opts ListOptions) ([]api.Object, error) {
	var out []api.Object
	keep := func(rev *store.Revision) bool {
		if opts.matches(rev.Object) {
			out = append(out, rev.Object)
		}
		return true
	}
	if opts.Index != "" {
		if !t.HasIndex(opts.Index) {
			return nil, fmt.Errorf("%s have no index %q", res.Plural, opts.Index)
		}
		for _, rev := range t.Lookup(opts.Index, opts.Value) {
			keep(rev)
		}
		return out, nil
	}
	t.Snapshot().Ascend(opts.prefix(res.Namespaced), "", keep)
	return out, nil
}

func (l *Local) table(res *api.Resource) *store.Table { return l.registry.Table(res) }

// prefix is what the table's keys of everything that opts choose begin with.
func (opts ListOptions) prefix(namespaced bool) string {
	switch {
	case !namespaced:
		return opts.Name
	case opts.Namespace != "":
		return opts.Namespace + "/" + opts.Name
	}
	return ""
}

// matches reports whether o is among what opts choose, leaving Index aside.
func (opts ListOptions) matches(o api.Object) bool {
	return (opts.Namespace == "" || o.GetNamespace() == opts.Namespace) && (opts.Name == "" || o.GetName() == opts.Name) &&
		(opts.Labels == nil || opts.Labels.Matches(labels.Set(o.GetLabels())))
}

// Create implements Client.
func (l *Local) Create(ctx context.Context, obj api.Object) (api.Object, error) {
	return l.registry.Create(l.writing(ctx), resourceIn(l.registry.Served().Now(), obj), obj, metav1.CreateOptions{})
}

// Update implements Client.
func (l *Local) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	r := l.UpdateMany(ctx, []api.Object{obj}, sub)[0]
	return r.Object, r.Err
}

// Delete implements Client.
func (l *Local) Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) error {
	_, _, err := l.registry.Delete(l.writing(ctx), res, key, opts)
	return err
}

// CreateMany implements Client.
func (l *Local) CreateMany(ctx context.Context, objs []api.Object) []Result {
	return l.byResource(objs, func(res *api.Resource, objs []api.Object) []Result {
		return l.registry.CreateMany(l.writing(ctx), res, objs)
	})
}

// UpdateMany implements Client.
func (l *Local) UpdateMany(ctx context.Context, objs []api.Object, sub string) []Result {
	return l.byResource(objs, func(res *api.Resource, objs []api.Object) []Result {
		return l.registry.UpdateMany(l.writing(ctx), res, objs, sub)
	})
}

// DeleteMany implements Client.
func (l *Local) DeleteMany(ctx context.Context, objs []api.Object, opts metav1.DeleteOptions) []Result {
	return l.byResource(objs, func(res *api.Resource, objs []api.Object) []Result {
		return l.registry.DeleteMany(l.writing(ctx), res, objs, opts)
	})
}

// BindMany implements Client.
func (l *Local) BindMany(ctx context.Context, bindings []Binding) []Result {
	return l.registry.BindMany(l.writing(ctx), bindings)
}

// byResource calls do for each run of objects of one resource and puts the results together.
func (l *Local) byResource(objs []api.Object, do func(*api.Resource, []api.Object) []Result) []Result {
	var out []Result
	catalog := l.registry.Served().Now()
	for len(objs) > 0 {
		res, n := resourceIn(catalog, objs[0]), 1
		for n < len(objs) && resourceIn(catalog, objs[n]) == res {
			n++
		}
		out = append(out, do(res, objs[:n])...)
		objs = objs[n:]
	}
	return out
}

// resourceIn returns the resource of an object: by its Go type, or by its kind where that is no built-in one's.
func resourceIn(catalog *api.Catalog, obj api.Object) *api.Resource {
	res := catalog.Of(obj)
	if res == nil {
		panic(fmt.Sprintf("client: %T is not a resource", obj))
	}
	return res
}

// resourceOf is resourceIn for the built-in resources.
func resourceOf(obj api.Object) *api.Resource { return resourceIn(api.BuiltinCatalog(), obj) }

// Watch implements Client.
func (l *Local) Watch(_ context.Context, res *api.Resource, opts ListOptions) (Watcher, error) {
	if opts.Index != "" && !l.table(res).HasIndex(opts.Index) {
		return nil, fmt.Errorf("%s have no index %q", res.Plural, opts.Index)
	}
	return watchTable(l.table(res), res, opts), nil
}

// ErrRetired is what a Watcher's Next returns when its resource is no longer served, or is declared in another way.
var ErrRetired = store.ErrDropped

// ErrStopped is returned by a Watcher's Next after Stop.
var ErrStopped = errors.New("the watch was stopped")

func mutate[T api.Object](ctx context.Context, c Client, key api.Key, sub string, change func(T) bool) (T, error) {
	for {
		present, err := Get[T](ctx, c, key)
		if err != nil {
			return present, err
		}
		obj := present.DeepCopyObject().(T)
		if !change(obj) {
			return present, nil
		}
		out, err := c.Update(ctx, obj, sub)
		if apierrors.IsConflict(err) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return present, err
		}
		return out.(T), nil
	}
}
