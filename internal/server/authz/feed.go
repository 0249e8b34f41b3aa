package authz

import (
	"context"
	"errors"
	"fmt"
	"sync"

	rbacv1 "k8s.io/api/rbac/v1"

	"golang.org/x/sync/errgroup"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/store"
)

func rbacResources() []*api.Resource {
	return []*api.Resource{api.Roles, api.ClusterRoles, api.RoleBindings, api.ClusterRoleBindings}
}

// Run keeps the index equal to the RBAC objects in s until ctx is cancelled. It calls ready once it knows them all.
func (z *RBAC) Run(ctx context.Context, s *store.Store, ready func()) error {
	select {
	case <-s.Ready():
	case <-ctx.Done():
		return nil
	}
	var loaded sync.WaitGroup
	loaded.Add(len(rbacResources()))
	g, ctx := errgroup.WithContext(ctx)
	for _, res := range rbacResources() {
		t := s.Table(res.Table())
		if t == nil {
			return fmt.Errorf("the store has no table for %s", res.Plural)
		}
		g.Go(func() error { return z.follow(ctx, t, res, sync.OnceFunc(loaded.Done)) })
	}
	loaded.Wait()
	ready()
	return g.Wait()
}

// Fresh returns when the index knows every RBAC object that s holds at the call: the index follows the store, so that a write that
// has returned may still be on its way into it.
func (z *RBAC) Fresh(ctx context.Context, s *store.Store) error {
	for _, res := range rbacResources() {
		var newest int64
		s.Table(res.Table()).Snapshot().Ascend("", "", func(r *store.Revision) bool {
			newest = max(newest, r.Rev)
			return true
		})
		for {
			z.mu.RLock()
			followed, news := z.followed[res], z.news
			z.mu.RUnlock()
			if followed >= newest {
				break
			}
			select {
			case <-news:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return nil
}

// follow keeps the index equal to one table.
func (z *RBAC) follow(ctx context.Context, t *store.Table, res *api.Resource, loaded func()) error {
	for {
		w, snap := t.WatchNow()
		var all []api.Object
		var newest int64
		snap.Ascend("", "", func(r *store.Revision) bool {
			all, newest = append(all, r.Object), max(newest, r.Rev)
			return true
		})
		z.replace(res, all)
		z.reached(res, newest)
		loaded()
		err := z.take(ctx, w, res)
		w.Stop()
		switch {
		case ctx.Err() != nil:
			return nil
		case !errors.Is(err, store.ErrTooOld):
			return fmt.Errorf("watching %s for authorization: %w", res.Plural, err)
		}
	}
}

// take applies changes until the watch ends.
func (z *RBAC) take(ctx context.Context, w *store.Watcher, res *api.Resource) error {
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		var newest int64
		for i := range events {
			newest = max(newest, events[i].Revision.Rev)
			if events[i].Type == store.Deleted {
				z.Remove(events[i].Revision.Object)
			} else {
				z.Set(events[i].Revision.Object)
			}
		}
		z.reached(res, newest)
	}
}

// reached notes that the index holds the objects of res up to rev.
func (z *RBAC) reached(res *api.Resource, rev int64) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.followed[res] = max(z.followed[res], rev)
	close(z.news)
	z.news = make(chan struct{})
}

// replace makes objs all the objects of res that the index knows.
func (z *RBAC) replace(res *api.Resource, objs []api.Object) {
	z.mu.Lock()
	defer z.mu.Unlock()
	switch res.New().(type) {
	case *rbacv1.Role, *rbacv1.ClusterRole:
		for k := range z.roles {
			if (k.namespace != "") == res.Namespaced {
				delete(z.roles, k)
			}
		}
	default:
		for k := range z.bindings {
			if (k.namespace != "") == res.Namespaced {
				z.unbind(k)
			}
		}
	}
	for _, o := range objs {
		z.set(o)
	}
}
