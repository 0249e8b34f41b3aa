package dns

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// retryTime is the pause before a watch that ended begins again.
const retryTime = time.Second

// batch is what one batch of watch events told.
type batch struct {
	watch         int
	keys          []api.Key
	synced, reset bool
}

// watch keeps the index in step with the API until ctx ends, and closes synced once everything has been seen.
func (s *Server) watch(ctx context.Context, synced chan<- struct{}) error {
	batches := make(chan batch)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, w := range []struct {
		resource *api.Resource
		key      func(o api.Object) api.Key
	}{
		{api.Services, func(o api.Object) api.Key { return api.KeyOf(o) }},
		{api.EndpointSlices, func(o api.Object) api.Key {
			return api.Key{Namespace: o.GetNamespace(), Name: o.GetLabels()[discoveryv1.LabelServiceName]}
		}},
	} {
		wg.Go(func() { s.watchOne(ctx, i, w.resource, w.key, batches) })
	}
	var seen [2]bool
	done := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-batches:
			s.apply(ctx, b)
			seen[b.watch] = seen[b.watch] || b.synced
			if seen[0] && seen[1] && !done {
				done = true
				close(synced)
			}
		}
	}
}

// watchOne sends the events of one resource, beginning again when the watch ends, until ctx does.
func (s *Server) watchOne(ctx context.Context, i int, res *api.Resource, key func(api.Object) api.Key, out chan<- batch) {
	for {
		err := func() error {
			w, err := s.cfg.Client.Watch(ctx, res, client.ListOptions{})
			if err != nil {
				return err
			}
			defer w.Stop()
			b := batch{watch: i, reset: true}
			for {
				events, err := w.Next(ctx)
				if err != nil {
					return err
				}
				for _, e := range events {
					switch e.Type {
					case client.Reset:
						b = batch{watch: i, reset: true}
					case client.Synced:
						b.synced = true
					default:
						b.keys = append(b.keys, key(e.Object))
						if e.Old != nil && key(e.Old) != key(e.Object) {
							b.keys = append(b.keys, key(e.Old))
						}
					}
				}
				select {
				case out <- b:
				case <-ctx.Done():
					return ctx.Err()
				}
				b = batch{watch: i}
			}
		}()
		if ctx.Err() != nil {
			return
		}
		s.cfg.Log.Warn("watch ended, beginning again", "resource", res.Plural, "err", err)
		select {
		case <-time.After(retryTime):
		case <-ctx.Done():
			return
		}
	}
}

// apply brings the Services that b names up to date in the index.
func (s *Server) apply(ctx context.Context, b batch) {
	keys := b.keys
	if b.reset {
		keys = append(keys, s.zone.Index.Keys()...)
	}
	done := make(map[api.Key]bool, len(keys))
	for _, key := range keys {
		if key.Name == "" || done[key] {
			continue
		}
		done[key] = true
		if err := s.read(ctx, key); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("DNS records of a Service may be out of date", "namespace", key.Namespace, "service", key.Name, "err", err)
		}
	}
}

// read takes one Service from the shared copy into the index.
func (s *Server) read(ctx context.Context, key api.Key) error {
	svc, err := client.Get[*corev1.Service](ctx, s.cfg.Client, key)
	if apierrors.IsNotFound(err) {
		s.zone.Index.Set(key, nil, nil)
		return nil
	}
	if err != nil {
		return err
	}
	var epSlices []*discoveryv1.EndpointSlice
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		epSlices, err = client.List[*discoveryv1.EndpointSlice](ctx, s.cfg.Client,
			client.ListOptions{Namespace: key.Namespace, Index: client.IndexService, Value: key.Namespace + "/" + key.Name})
		if err != nil {
			return err
		}
	}
	s.zone.Index.Set(key, svc, epSlices)
	return nil
}
