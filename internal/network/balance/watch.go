package balance

import (
	"context"
	"strings"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// watch sends what happens to Services and EndpointSlices to the loop, until ctx ends.
func (b *Balancer) watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, w := range []struct {
		resource *api.Resource
		key      func(api.Object) (api.Key, bool)
	}{
		{api.Services, func(o api.Object) (api.Key, bool) { return api.KeyOf(o), true }},
		{api.EndpointSlices, func(o api.Object) (api.Key, bool) {
			name := o.GetLabels()[discoveryv1.LabelServiceName]
			return api.Key{Namespace: o.GetNamespace(), Name: name}, name != ""
		}},
	} {
		wg.Go(func() {
			for ctx.Err() == nil {
				err := b.watchOne(ctx, i, w.resource, w.key)
				if ctx.Err() != nil {
					return
				}
				b.cfg.Log.Warn("watch ended, beginning again", "resource", w.resource.Plural, "err", err)
				select {
				case <-time.After(retryTime):
				case <-ctx.Done():
				}
			}
		})
	}
}

// watchKernel signals the loop when somebody may have deleted the table, until ctx ends.
func (b *Balancer) watchKernel(ctx context.Context) {
	deleted := func() {
		select {
		case b.deleted <- struct{}{}:
		default: // it will look anyway
		}
	}
	for ctx.Err() == nil {
		if err := b.cfg.Kernel.Watch(ctx, deleted); err != nil {
			b.cfg.Log.Warn("watching nftables failed, beginning again", "err", err)
		}
		select {
		case <-time.After(retryTime):
			deleted()
		case <-ctx.Done():
		}
	}
}

// watchOne sends the events of one resource to the loop, until the watch fails or ctx ends.
func (b *Balancer) watchOne(ctx context.Context, i int, res *api.Resource, key func(api.Object) (api.Key, bool)) error {
	w, err := b.cfg.Client.Watch(ctx, res, client.ListOptions{})
	if err != nil {
		return err
	}
	defer w.Stop()
	c := change{watch: i, reset: true}
	for {
		events, err := w.Next(ctx)
		if err != nil {
			return err
		}
		for _, e := range events {
			switch e.Type {
			case client.Reset:
				c = change{watch: i, reset: true}
			case client.Synced:
				c.synced = true
			default:
				c.keys = appendKey(c.keys, e.Object, key)
				// A slice may move from one Service to another.
				c.keys = appendKey(c.keys, e.Old, key)
			}
		}
		select {
		case b.changes <- c:
		case <-ctx.Done():
			return ctx.Err()
		}
		c = change{watch: i}
	}
}

func appendKey(keys []api.Key, o api.Object, key func(api.Object) (api.Key, bool)) []api.Key {
	if o == nil {
		return keys
	}
	if k, ok := key(o); ok && (len(keys) == 0 || keys[len(keys)-1] != k) {
		keys = append(keys, k)
	}
	return keys
}

// Owners in the table are "NAMESPACE/NAME" of a Service, or this prefix and a host port owner.
const hostPortPrefix = "host-port//"

func serviceOwner(key api.Key) string   { return key.Namespace + "/" + key.Name }
func hostPortOwner(owner string) string { return hostPortPrefix + owner }

func serviceOf(owner string) (api.Key, bool) {
	if strings.HasPrefix(owner, hostPortPrefix) {
		return api.Key{}, false
	}
	ns, name, ok := strings.Cut(owner, "/")
	return api.Key{Namespace: ns, Name: name}, ok
}
