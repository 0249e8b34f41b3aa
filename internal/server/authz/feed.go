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

// Run keeps the index equal to the RBAC objects in s until ctx is cancelled. It calls ready once it knows them all.
func (z *RBAC) Run(ctx context.Context, s *store.Store, ready func()) error {
	select {
	case <-s.Ready():
	case <-ctx.Done():
		return nil
	}
	resources := []*api.Resource{api.Roles, api.ClusterRoles, api.RoleBindings, api.ClusterRoleBindings}
	var loaded sync.WaitGroup
	loaded.Add(len(resources))
	g, ctx := errgroup.WithContext(ctx)
	for _, res := range resources {
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

// follow keeps the index equal to one table.
func (z *RBAC) follow(ctx context.Context, t *store.Table, res *api.Resource, loaded func()) error {
	for {
		w, snap := t.WatchNow()
		var all []api.Object
		snap.Ascend("", "", func(r *store.Revision) bool {
			all = append(all, r.Object)
			return true
		})
		z.replace(res, all)
		loaded()
		err := z.take(ctx, w)
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
func (z *RBAC) take(ctx context.Context, w *store.Watcher) error {
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for i := range events {
			if events[i].Type == store.Deleted {
				z.Remove(events[i].Revision.Object)
			} else {
				z.Set(events[i].Revision.Object)
			}
		}
	}
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
