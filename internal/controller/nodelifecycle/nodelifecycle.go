// Package nodelifecycle notices nodes that no longer answer and gets their pods out of the way.
//
// What flows through it: heartbeats - the node's Lease and its Ready condition - are watched, and so is the connection that its agent
// keeps with this server; a node without a heartbeat for the grace period, or one that lost the connection and is not heard of
// within seconds, becomes Ready=Unknown, its pods not ready at once, and its conditions become taints ([New]). The taints that evict
// are added at a limited rate, slower where much of a zone is down and not at all where all is, because then more likely the
// network is at fault. Pods that do not tolerate such a taint, or no longer, are deleted ([NewTaintEviction]).
// What must stay true: heartbeats are timed by this process' own clock, so that a node whose clock is wrong does not seem dead;
// what is decided is a pure function of what was read and the time; a node that answers again is believed at once. Tests:
// TestClockOfTheNodeDoesNotMatter, TestPlannersArePure (internal/laws), TestNodeThatComesBackKeepsItsPods.
package nodelifecycle

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/podstate"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

const component = "node-controller"

// Config holds the times and rates of the node controller. Zero values mean Kubernetes' defaults.
type Config struct {
	// GracePeriod is how long a node may be silent (default 50 s; its Lease is renewed every 10 s).
	GracePeriod time.Duration
	// Links, if set, tell of lost nodes within seconds; LinkGracePeriod is how long after the last sign of life a node whose
	// connection ended may take to be heard of again (default 5 s: an agent that is restarted does not fall out).
	Links           Links
	LinkGracePeriod time.Duration
	// StartupGracePeriod is how long a node may take to post its first status (default 60 s).
	StartupGracePeriod time.Duration
	// EvictionRate is how many nodes a second, in one zone, get the taint that evicts (default 0.1);
	// SecondaryEvictionRate applies in large zones of which UnhealthyZoneThreshold is down (default 0.01), in which
	// smaller zones stop. A zone is large with more than LargeZoneSize nodes (default 50).
	EvictionRate, SecondaryEvictionRate, UnhealthyZoneThreshold float64
	LargeZoneSize                                               int
}

func (c Config) withDefaults() Config {
	or := func(v *float64, d float64) {
		if *v == 0 {
			*v = d
		}
	}
	if c.GracePeriod == 0 {
		c.GracePeriod = 50 * time.Second
	}
	if c.LinkGracePeriod == 0 {
		c.LinkGracePeriod = 5 * time.Second
	}
	if c.StartupGracePeriod == 0 {
		c.StartupGracePeriod = 60 * time.Second
	}
	or(&c.EvictionRate, 0.1)
	or(&c.SecondaryEvictionRate, 0.01)
	or(&c.UnhealthyZoneThreshold, 0.55)
	if c.LargeZoneSize == 0 {
		c.LargeZoneSize = 50
	}
	return c
}

// recheck is when a node whose eviction is stopped is looked at again.
const recheck = 5 * time.Second

type reconciler struct {
	client  client.Client
	config  Config
	seen    *heartbeats
	limiter *limiter
}

// New declares the node controller.
func New(c client.Client, config Config) controller.Controller {
	r := &reconciler{client: c, config: config.withDefaults(), seen: newHeartbeats(), limiter: newLimiter()}
	return controller.Controller{
		Name:    "nodelifecycle",
		Workers: 4,
		Follow:  follow(config.Links),
		Watches: []controller.Watch{
			{Resource: api.Nodes, Keys: r.nodeKeys},
			{Resource: api.Leases, Keys: leaseKeys},
		},
		Writes: []controller.Write{
			controller.Sets(api.Nodes, "status", "conditions").Of("that are silent"),
			controller.Sets(api.Nodes, "spec", "taints"),
			controller.Sets(api.Pods, "status", "conditions", string(corev1.PodReady)).Of("on nodes that are not ready"),
		},
		Reconciler: r,
	}
}

// nodeKeys maps a node to itself, and to all nodes where with it the last one became not ready, or the first one ready again:
// then eviction stops or resumes everywhere.
func (r *reconciler) nodeKeys(e client.Event) []api.Key {
	own := []api.Key{api.KeyOf(e.Object)}
	var was, is bool
	switch node := e.Object.(*corev1.Node); e.Type {
	case client.Deleted:
		was = isReady(node)
	case client.Modified:
		was, is = isReady(e.Old.(*corev1.Node)), isReady(node)
	}
	if was == is {
		return own
	}
	nodes, err := client.List[*corev1.Node](context.Background(), r.client, client.ListOptions{})
	if err != nil {
		return own
	}
	for _, n := range nodes {
		if n.Name != e.Object.GetName() && isReady(n) {
			return own
		}
	}
	keys := make([]api.Key, len(nodes))
	for i, n := range nodes {
		keys[i] = api.KeyOf(n)
	}
	return append(keys, own...)
}

func isReady(node *corev1.Node) bool {
	c := conditionOf(node, corev1.NodeReady)
	return c != nil && c.Status == corev1.ConditionTrue
}

// leaseKeys maps a node's Lease to the node. Its namespace holds nothing else (KEP-589).
func leaseKeys(e client.Event) []api.Key {
	if e.Object.GetNamespace() != corev1.NamespaceNodeLease {
		return nil
	}
	return []api.Key{{Name: e.Object.GetName()}}
}

// Reconcile looks at one node.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	node, err := client.Get[*corev1.Node](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.seen.forget(key.Name)
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	lease, err := client.Get[*coordinationv1.Lease](ctx, r.client, api.Key{Namespace: corev1.NamespaceNodeLease, Name: key.Name})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	if apierrors.IsNotFound(err) {
		lease = nil
	}
	var link agentlink.State
	if r.config.Links != nil {
		link = r.config.Links.State(node.Name)
	}
	beat, first := r.seen.observe(node, lease, now)
	if first {
		event.Write(ctx, r.client, component, now, event.Normal(node, "RegisteredNode", "Node %s event: Registered Node %s in Controller", node.Name, node.Name))
	}
	conditions, after := health(node, beat, link, r.config, now)
	if conditions != nil {
		if node, err = r.writeConditions(ctx, node, conditions, now); err != nil {
			return 0, err
		}
	}
	if err := r.markPods(ctx, node, now); err != nil { // first: Services send traffic there as long as it has not happened
		return 0, err
	}
	wait, err := r.taint(ctx, node, now)
	if wait > 0 && (after == 0 || wait < after) {
		after = wait
	}
	return after, err
}

// writeConditions stores the conditions of a node that fell silent, unless it spoke up meanwhile.
func (r *reconciler) writeConditions(ctx context.Context, node *corev1.Node, conditions []corev1.NodeCondition, now time.Time) (*corev1.Node, error) {
	was := conditionOf(node, corev1.NodeReady)
	wrote := false
	out, err := client.Mutate(ctx, r.client, api.KeyOf(node), "status", func(o *corev1.Node) bool {
		wrote = o.UID == node.UID && apiequality.Semantic.DeepEqual(o.Status.Conditions, node.Status.Conditions)
		if wrote {
			o.Status.Conditions = conditions
		}
		return wrote
	})
	if err != nil {
		return nil, err
	}
	if wrote && was != nil && was.Status == corev1.ConditionTrue {
		event.Write(ctx, r.client, component, now, event.Normal(node, "NodeNotReady", "Node %s status is now: NodeNotReady", node.Name))
	}
	return out, nil
}

// taint brings the taints of node in line with its conditions. wait > 0 says when the taint that evicts may be added.
func (r *reconciler) taint(ctx context.Context, node *corev1.Node, now time.Time) (wait time.Duration, err error) {
	evict := evictKeep
	ready := conditionOf(node, corev1.NodeReady)
	switch {
	case ready == nil:
	case ready.Status == corev1.ConditionTrue:
		evict = evictNever
	default:
		if evict, wait, err = r.mayEvict(ctx, node, now); err != nil {
			return 0, err
		}
	}
	if taints := planTaints(node, evict, now); taints == nil {
		return wait, nil
	}
	_, err = client.Mutate(ctx, r.client, api.KeyOf(node), "", func(o *corev1.Node) bool {
		taints := planTaints(o, evict, now)
		if o.UID != node.UID || taints == nil {
			return false
		}
		o.Spec.Taints = *taints
		return true
	})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return wait, err
}

// mayEvict asks the state of node's zone and the limiter whether a node that is not ready may get the taint that evicts.
func (r *reconciler) mayEvict(ctx context.Context, node *corev1.Node, now time.Time) (evictMode, time.Duration, error) {
	nodes, err := client.List[*corev1.Node](ctx, r.client, client.ListOptions{})
	if err != nil {
		return evictKeep, 0, err
	}
	zone := zoneOf(node)
	rate, allDown := evictionRate(nodes, zone, r.config)
	switch {
	case allDown:
		return evictNever, recheck, nil
	case hasEvictionTaint(node):
		return evictNow, 0, nil // at most the kind of taint changes
	case rate == 0:
		return evictKeep, recheck, nil
	}
	if wait := r.limiter.take(zone, rate, now); wait > 0 {
		return evictKeep, wait, nil
	}
	return evictNow, 0, nil
}

// markPods makes the pods of a node that is not ready not ready, those that were ready when it fell out. Services stop using
// them at once, long before they are evicted.
func (r *reconciler) markPods(ctx context.Context, node *corev1.Node, now time.Time) error {
	ready := conditionOf(node, corev1.NodeReady)
	if ready == nil || ready.Status == corev1.ConditionTrue {
		return nil
	}
	pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Index: client.IndexNode, Value: node.Name})
	if err != nil {
		return err
	}
	var updates []api.Object
	var events []event.Event
	for _, p := range pods {
		// A pod that turned ready since is told of by a node that is back.
		if !podstate.Ready(p) || podstate.ReadySince(p).After(ready.LastTransitionTime.Time) {
			continue
		}
		q := p.DeepCopy()
		c := podstate.Condition(q, corev1.PodReady)
		c.Status, c.LastTransitionTime = corev1.ConditionFalse, metav1.NewTime(now)
		updates = append(updates, q)
		events = append(events, event.Warning(p, "NodeNotReady", "Node is not ready"))
	}
	if len(updates) == 0 {
		return nil
	}
	for _, res := range r.client.UpdateMany(ctx, updates, "status") {
		if res.Err != nil && !apierrors.IsNotFound(res.Err) {
			return res.Err
		}
	}
	event.Write(ctx, r.client, component, now, events...)
	return nil
}
