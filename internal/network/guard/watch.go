package guard

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/network/policy"
)

// The watches.
const (
	watchPolicies = iota
	watchNamespaces
	watchPods
	numWatches
)

// change is what one batch of watch events brought.
type change struct {
	watch int
	turn  int  // of the details that it belongs to
	full  bool // it is all that the watch has
	items []item
}

// item is one object as the models take it.
type item struct {
	key       api.Key
	gone      bool
	policy    *networkingv1.NetworkPolicy
	namespace map[string]string
	pod       policy.Pod
}

// details are the watches of namespaces and pods, which run while there are policies.
type details struct {
	turn int
	stop func() // ends them, and waits
}

// follow sends what a watch tells to the loop, until ctx ends.
func (g *Guard) follow(ctx context.Context, watch, turn int) {
	resource := [numWatches]*api.Resource{api.NetworkPolicies, api.Namespaces, api.Pods}[watch]
	client.Follow(ctx, g.cfg.Log, g.cfg.Client, resource, client.ListOptions{OnlyReach: watch == watchPods}, func(b client.Batch) {
		c := change{watch: watch, turn: turn, full: b.Full}
		for _, e := range b.Events {
			if i, ok := itemOf(e); ok || b.Full {
				c.items = append(c.items, i)
			}
		}
		select {
		case g.changes <- c:
		case <-ctx.Done():
		}
	})
}

// itemOf returns what an event brought. ok is false for changes of which policies see nothing: most of those of a pod are of its status.
func itemOf(e client.Event) (i item, ok bool) {
	i = item{key: api.KeyOf(e.Object), gone: e.Type == client.Deleted}
	switch o := e.Object.(type) {
	case *networkingv1.NetworkPolicy:
		i.policy = o
	case *corev1.Namespace:
		i.namespace = o.Labels
	case *corev1.Pod:
		i.pod = policy.PodOf(o)
		if old, known := e.Old.(*corev1.Pod); known && e.Type == client.Modified {
			return i, !i.pod.Equal(policy.PodOf(old))
		}
	}
	return i, true
}

// observe takes in a batch of events.
func (g *Guard) observe(ctx context.Context, c change) {
	if c.watch != watchPolicies && (g.details == nil || c.turn != g.details.turn) {
		return // of watches that have ended
	}
	if g.seen.IsZero() && len(c.items) > 0 {
		g.seen = time.Now()
	}
	if c.full {
		g.missing(&c)
	}
	for _, i := range c.items {
		if c.watch == watchPolicies {
			g.policies.heard(i)
		}
		for _, s := range g.sides {
			s.observe(c.watch, i)
		}
	}
	g.synced[c.watch] = g.synced[c.watch] || c.full
	if c.watch == watchPolicies {
		g.followDetails(ctx)
	}
}

// observe tells the model of one object.
func (s *side) observe(watch int, i item) {
	switch {
	case watch == watchPolicies && i.gone:
		s.model.DeletePolicy(i.key)
	case watch == watchPolicies:
		s.model.SetPolicy(i.policy)
	case watch == watchNamespaces && i.gone:
		s.model.DeleteNamespace(i.key.Name)
	case watch == watchNamespaces:
		s.model.SetNamespace(i.key.Name, i.namespace)
	case i.gone:
		s.model.DeletePod(i.key)
	default:
		s.model.SetPod(i.pod)
	}
}

// missing adds to a full batch that what is known and not in it is gone.
func (g *Guard) missing(c *change) {
	there := map[api.Key]bool{}
	for _, i := range c.items {
		there[i.key] = true
	}
	if len(g.sides) == 0 {
		return
	}
	model := g.sides[0].model // all sides know the same
	known := model.PodKeys
	switch c.watch {
	case watchPolicies:
		known = model.PolicyKeys
	case watchNamespaces:
		known = model.NamespaceKeys
	}
	for _, key := range known() {
		if !there[key] {
			c.items = append(c.items, item{key: key, gone: true})
		}
	}
}

// followDetails begins the watches that policies need with the first policy, and ends them with the last.
func (g *Guard) followDetails(ctx context.Context) {
	switch {
	case g.policies.any() && g.details == nil:
		ctx, cancel := context.WithCancel(ctx)
		var wg sync.WaitGroup
		g.turns++
		turn := g.turns
		for _, watch := range []int{watchNamespaces, watchPods} {
			wg.Go(func() { g.follow(ctx, watch, turn) })
		}
		g.details = &details{turn: turn, stop: func() { cancel(); wg.Wait() }}
	case !g.policies.any() && g.details != nil:
		g.details.stop()
		g.details = nil
		g.synced[watchNamespaces], g.synced[watchPods] = false, false
		g.forget()
	}
}

// watchKernel signals the loop when somebody may have deleted a table, until ctx ends.
func (g *Guard) watchKernel(ctx context.Context, k *Kernel) {
	deleted := func() {
		select {
		case g.deleted <- struct{}{}:
		default: // it will look anyway
		}
	}
	for ctx.Err() == nil {
		if err := k.Watch(ctx, deleted); err != nil {
			g.cfg.Log.Warn("watching nftables failed, beginning again", "err", err)
		}
		select {
		case <-time.After(retryTime):
			deleted()
		case <-ctx.Done():
		}
	}
}
