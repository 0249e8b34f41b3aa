package nodelifecycle

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

const evictionComponent = "taint-eviction-controller"

type evictor struct {
	client client.Client
	since  *taintTimes
}

// NewTaintEviction declares the controller that deletes pods from nodes with NoExecute taints which they do not tolerate, or no
// longer. Its keys are nodes.
func NewTaintEviction(c client.Client) controller.Controller {
	return controller.Controller{
		Name:    "tainteviction",
		Workers: 4,
		Watches: []controller.Watch{
			{Resource: api.Nodes, Keys: taintedKeys},
			{Resource: api.Pods, Keys: func(e client.Event) []api.Key { return onTaintedKeys(c, e) }},
		},
		Writes: []controller.Write{
			controller.Deletes(api.Pods).Of("on tainted nodes"),
			controller.Sets(api.Pods, "status", "conditions", string(corev1.DisruptionTarget)).Of("on tainted nodes"),
		},
		Reconciler: &evictor{client: c, since: &taintTimes{nodes: map[string]map[string]time.Time{}}},
	}
}

// noExecute returns the taints of node that evict.
func noExecute(node *corev1.Node) []corev1.Taint {
	return slices.DeleteFunc(slices.Clone(node.Spec.Taints), func(t corev1.Taint) bool { return t.Effect != corev1.TaintEffectNoExecute })
}

// taintedKeys maps a node to itself where its taints that evict changed.
func taintedKeys(e client.Event) []api.Key {
	old, _ := e.Old.(*corev1.Node)
	is := noExecute(e.Object.(*corev1.Node))
	if old == nil && len(is) == 0 || e.Type == client.Modified && old != nil && apiequality.Semantic.DeepEqual(noExecute(old), is) {
		return nil
	}
	return []api.Key{api.KeyOf(e.Object)}
}

// onTaintedKeys maps a pod that came to a tainted node, or tolerates other taints than before, to the node.
func onTaintedKeys(c client.Client, e client.Event) []api.Key {
	pod := e.Object.(*corev1.Pod)
	old, _ := e.Old.(*corev1.Pod)
	if e.Type == client.Deleted || pod.Spec.NodeName == "" ||
		old != nil && old.Spec.NodeName == pod.Spec.NodeName && len(old.Spec.Tolerations) == len(pod.Spec.Tolerations) &&
			apiequality.Semantic.DeepEqual(old.Spec.Tolerations, pod.Spec.Tolerations) {
		return nil
	}
	key := api.Key{Name: pod.Spec.NodeName}
	node, err := client.Get[*corev1.Node](context.Background(), c, key)
	if err != nil || len(noExecute(node)) == 0 {
		return nil
	}
	return []api.Key{key}
}

// Reconcile evicts what must go from one node and comes back for what may stay a while.
func (r *evictor) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	node, err := client.Get[*corev1.Node](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		r.since.set(key.Name, nil, time.Now())
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	now := time.Now()
	taints := r.since.set(node.Name, noExecute(node), now)
	if len(taints) == 0 {
		return 0, nil
	}
	pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Index: client.IndexNode, Value: node.Name})
	if err != nil {
		return 0, err
	}
	evict, after := planEvictions(pods, taints, now)
	for _, p := range evict {
		if err := r.evict(ctx, p, now); err != nil {
			return 0, err
		}
	}
	return after, nil
}

// planEvictions returns the pods that must leave a node with taints at now, and how long until the next one must.
func planEvictions(pods []*corev1.Pod, taints []corev1.Taint, now time.Time) (evict []*corev1.Pod, after time.Duration) {
	for _, p := range pods {
		if p.DeletionTimestamp != nil {
			continue
		}
		until, forever := toleratedUntil(p, taints)
		switch left := until.Sub(now); {
		case forever:
		case left <= 0:
			evict = append(evict, p)
		case after == 0 || left < after:
			after = left
		}
	}
	return evict, after
}

// toleratedUntil says until when pod may stay with taints: the earliest end of its tolerations, each counted from when the taint and
// the pod had both come to the node. The zero time means that it tolerates not all of them.
func toleratedUntil(pod *corev1.Pod, taints []corev1.Taint) (until time.Time, forever bool) {
	forever = true
	for _, t := range taints {
		i := slices.IndexFunc(pod.Spec.Tolerations, func(tol corev1.Toleration) bool { return tolerates(tol, t) })
		if i < 0 {
			return time.Time{}, false
		}
		seconds := pod.Spec.Tolerations[i].TolerationSeconds
		if seconds == nil {
			continue
		}
		start := boundAt(pod)
		if t.TimeAdded != nil && t.TimeAdded.After(start) {
			start = t.TimeAdded.Time
		}
		end := start.Add(amount.Seconds(max(*seconds, 0)))
		if forever || end.Before(until) {
			until, forever = end, false
		}
	}
	return until, forever
}

// boundAt is when the pod came to its node.
func boundAt(pod *corev1.Pod) time.Time {
	if c := podstate.Condition(pod, corev1.PodScheduled); c != nil && c.Status == corev1.ConditionTrue {
		return c.LastTransitionTime.Time
	}
	return pod.CreationTimestamp.Time
}

// tolerates reports whether tol is for taint.
func tolerates(tol corev1.Toleration, taint corev1.Taint) bool {
	if tol.Effect != "" && tol.Effect != taint.Effect || tol.Key != "" && tol.Key != taint.Key {
		return false
	}
	switch tol.Operator {
	case corev1.TolerationOpExists:
		return true
	case corev1.TolerationOpEqual, "":
		return tol.Value == taint.Value
	}
	return false
}

// evict deletes pod, saying why in its DisruptionTarget condition, by which Jobs tell this end from a failure (KEP-3329).
func (r *evictor) evict(ctx context.Context, pod *corev1.Pod, now time.Time) error {
	_, err := client.Mutate(ctx, r.client, api.KeyOf(pod), "status", func(o *corev1.Pod) bool {
		if o.UID != pod.UID || podstate.Condition(o, corev1.DisruptionTarget) != nil {
			return false
		}
		o.Status.Conditions = append(o.Status.Conditions, corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByTaintManager",
			Message: "Taint manager: deleting due to NoExecute taint", LastTransitionTime: metav1.NewTime(now), ObservedGeneration: o.Generation,
		})
		return true
	})
	if err == nil {
		uid := pod.UID
		err = client.Delete[*corev1.Pod](ctx, r.client, api.KeyOf(pod), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err == nil {
		event.Write(ctx, r.client, evictionComponent, now, event.Normal(pod, "TaintManagerEviction", "Marking for deletion Pod %s", api.KeyOf(pod)))
	}
	return err
}

// taintTimes remembers since when nodes have taints that do not say so themselves.
type taintTimes struct {
	mu    sync.Mutex
	nodes map[string]map[string]time.Time
}

// set notes the taints that a node has at now and returns them with their times.
func (t *taintTimes) set(node string, taints []corev1.Taint, now time.Time) []corev1.Taint {
	t.mu.Lock()
	defer t.mu.Unlock()
	was := t.nodes[node]
	if len(taints) == 0 {
		delete(t.nodes, node)
		return nil
	}
	is := map[string]time.Time{}
	for i := range taints {
		if taints[i].TimeAdded != nil {
			continue
		}
		id := taints[i].Key + "=" + taints[i].Value
		at, ok := was[id]
		if !ok {
			at = now
		}
		is[id] = at
		taints[i].TimeAdded = &metav1.Time{Time: at}
	}
	t.nodes[node] = is
	return taints
}
