package balance

import (
	"context"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// watched is one of the watches.
type watched struct {
	id       int
	resource *api.Resource
	options  client.ListOptions
	observe  func(c *change, o api.Object)
}

func (b *Balancer) watches() []watched {
	return []watched{
		{watchServices, api.Services, client.ListOptions{}, func(c *change, o api.Object) { c.add(api.KeyOf(o)) }},
		{watchSlices, api.EndpointSlices, client.ListOptions{}, func(c *change, o api.Object) {
			if name := o.GetLabels()[discoveryv1.LabelServiceName]; name != "" {
				c.add(api.Key{Namespace: o.GetNamespace(), Name: name})
			}
		}},
		{watchNode, api.Nodes, client.ListOptions{Name: b.cfg.Node.Name}, func(c *change, o api.Object) {
			zone := o.GetLabels()[corev1.LabelTopologyZone]
			c.zone = &zone
		}},
	}
}

// add notes a Service that is to be planned again; most events of a batch are about the same few.
func (c *change) add(key api.Key) {
	if len(c.keys) == 0 || c.keys[len(c.keys)-1] != key {
		c.keys = append(c.keys, key)
	}
}

// trigger notes when what the event is about happened, if it is news: the controller says so on EndpointSlices.
func (c *change) trigger(e client.Event) {
	text := e.Object.GetAnnotations()[corev1.EndpointsLastChangeTriggerTime]
	if text == "" || e.Old != nil && e.Old.GetAnnotations()[corev1.EndpointsLastChangeTriggerTime] == text {
		return
	}
	if at, err := time.Parse(time.RFC3339Nano, text); err == nil {
		c.triggers = append(c.triggers, at)
	}
}

// watch sends what happens in the API to the loop, until ctx ends.
func (b *Balancer) watch(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, w := range b.watches() {
		wg.Go(func() {
			client.Follow(ctx, b.cfg.Log, b.cfg.Client, w.resource, w.options, func(batch client.Batch) {
				c := change{watch: w.id, full: batch.Full, events: len(batch.Events)}
				for _, e := range batch.Events {
					if e.Old != nil {
						w.observe(&c, e.Old) // a slice may move from one Service to another
					}
					w.observe(&c, e.Object)
					if !batch.Full && e.Type != client.Deleted {
						c.trigger(e)
					}
				}
				select {
				case b.changes <- c:
				case <-ctx.Done():
				}
			})
		})
	}
}

// watchKernel signals the loop when somebody may have deleted the table, until ctx ends.
func (b *Balancer) watchKernel(ctx context.Context, k Kernel) {
	deleted := func() {
		select {
		case b.deleted <- struct{}{}:
		default: // it will look anyway
		}
	}
	for ctx.Err() == nil {
		if err := k.Watch(ctx, deleted); err != nil {
			b.cfg.Log.Warn("watching nftables failed, beginning again", "err", err)
		}
		select {
		case <-time.After(retryTime):
			deleted()
		case <-ctx.Done():
		}
	}
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
