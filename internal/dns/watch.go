package dns

import (
	"context"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// The watches.
const (
	watchServices = iota
	watchSlices
	watchNamespaces
	numWatches
)

// batch is a batch of events of one of the watches.
type batch struct {
	watch int
	keys  []api.Key // Services to read again; of watchNamespaces, namespaces
	full  bool      // keys are all that the watch has
}

// watch keeps the index in step with the API until ctx ends, and closes synced once everything has been seen.
func (s *Server) watch(ctx context.Context, synced chan<- struct{}) error {
	batches := make(chan batch)
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, w := range []struct {
		resource *api.Resource
		key      func(o api.Object) (api.Key, bool)
	}{
		{api.Services, func(o api.Object) (api.Key, bool) { return api.KeyOf(o), true }},
		{api.EndpointSlices, func(o api.Object) (api.Key, bool) {
			name := o.GetLabels()[discoveryv1.LabelServiceName]
			return api.Key{Namespace: o.GetNamespace(), Name: name}, name != ""
		}},
		{api.Namespaces, func(o api.Object) (api.Key, bool) { return api.KeyOf(o), true }},
	} {
		wg.Go(func() {
			client.Follow(ctx, s.cfg.Log, s.cfg.Client, w.resource, client.ListOptions{}, func(b client.Batch) {
				select {
				case batches <- batch{watch: i, full: b.Full, keys: b.Keys(w.key)}:
				case <-ctx.Done():
				}
			})
		})
	}
	var seen [numWatches]bool
	done := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case b := <-batches:
			s.apply(ctx, b)
			seen[b.watch] = seen[b.watch] || b.full
			if !done && !slices.Contains(seen[:], false) {
				done = true
				close(synced)
			}
		}
	}
}

// apply brings what b names up to date in the index.
func (s *Server) apply(ctx context.Context, b batch) {
	keys, read := b.keys, s.read
	switch {
	case b.watch == watchNamespaces:
		read = s.readNamespace
		if b.full {
			keys = append(keys, s.zone.Index.Namespaces()...)
		}
	case b.full:
		keys = append(keys, s.zone.Index.Keys()...)
	}
	done := make(map[api.Key]bool, len(keys))
	for _, key := range keys {
		if done[key] {
			continue
		}
		done[key] = true
		if err := read(ctx, key); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("DNS records may be out of date", "namespace", key.Namespace, "name", key.Name, "err", err)
		}
	}
}

// readNamespace takes from the shared copy whether a namespace exists.
func (s *Server) readNamespace(ctx context.Context, key api.Key) error {
	_, err := client.Get[*corev1.Namespace](ctx, s.cfg.Client, key)
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	s.zone.Index.SetNamespace(key.Name, err == nil)
	return nil
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
	if svc.Spec.Type != corev1.ServiceTypeExternalName {
		epSlices, err = client.List[*discoveryv1.EndpointSlice](ctx, s.cfg.Client,
			client.ListOptions{Namespace: key.Namespace, Index: client.IndexService, Value: key.Namespace + "/" + key.Name})
		if err != nil {
			return err
		}
	}
	s.zone.Index.Set(key, svc, epSlices)
	return nil
}
