// Package podgc removes pods that no node will remove: those of nodes that do not exist any more, those that are being
// deleted without ever having had a node or on a node declared out of service, and finished pods beyond a limit.
//
// What flows through it: a node's name (with its pods) when a node or pod event says that something may be left over, a pod that is
// being deleted without a node, and one key for the count of finished pods. What must stay true: the pods of a missing
// node are left alone for the quarantine, as the node may be about to register again; a pod is marked Failed before it is removed,
// so that who watches it sees an end. Tests: TestPodsOfMissingNodes, TestOutOfService.
package podgc

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/podstate"
)

const (
	// quarantine is how long a node must be missing before its pods are removed.
	quarantine = 40 * time.Second
	// countEvery is the least time between two counts of the finished pods.
	countEvery = 20 * time.Second
	// defaultThreshold is how many finished pods are kept.
	defaultThreshold = 12500
)

// finishedKey stands for the count of finished pods. No node can have this name.
func finishedKey() api.Key { return api.Key{Name: "*finished"} }

type reconciler struct {
	client    client.Client
	threshold int

	mu      sync.Mutex
	missing map[string]time.Time // since when a node is known to be missing
	counted time.Time
}

// New declares the pod collector. threshold is how many finished pods are kept in the cluster: 0 means Kubernetes' default of
// 12500, a negative number keeps all.
func New(c client.Client, threshold int) controller.Controller {
	if threshold == 0 {
		threshold = defaultThreshold
	}
	r := &reconciler{client: c, threshold: threshold, missing: map[string]time.Time{}}
	return controller.Controller{
		Name: "podgc",
		Watches: []controller.Watch{
			{Resource: api.Nodes, Keys: nodeKeys},
			{Resource: api.Pods, Keys: r.podKeys},
		},
		Writes: []controller.Write{
			controller.Deletes(api.Pods).Of("whose node is gone or out of service, or that have finished"),
			controller.Sets(api.Pods, "status").Of("whose node is gone or out of service"),
		},
		Reconciler: r,
	}
}

// nodeKeys maps a node that went, or is out of service, to itself.
func nodeKeys(e client.Event) []api.Key {
	if e.Type == client.Deleted || outOfService(e.Object.(*corev1.Node)) {
		return []api.Key{api.KeyOf(e.Object)}
	}
	return nil
}

// podKeys maps a pod to its node where that is missing or out of service, to itself where it is being deleted without one, and to
// the count where it finished.
func (r *reconciler) podKeys(e client.Event) []api.Key {
	pod := e.Object.(*corev1.Pod)
	if e.Type == client.Deleted {
		return nil
	}
	var keys []api.Key
	if r.threshold > 0 && podstate.Finished(pod) {
		keys = append(keys, finishedKey())
	}
	if pod.Spec.NodeName == "" {
		if pod.DeletionTimestamp != nil {
			keys = append(keys, api.KeyOf(pod))
		}
		return keys
	}
	node, err := client.Get[*corev1.Node](context.Background(), r.client, api.Key{Name: pod.Spec.NodeName})
	if apierrors.IsNotFound(err) || err == nil && pod.DeletionTimestamp != nil && outOfService(node) {
		keys = append(keys, api.Key{Name: pod.Spec.NodeName})
	}
	return keys
}

// outOfService reports whether somebody who knows declared that node down for good (KEP-2268).
func outOfService(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return false
		}
	}
	return slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService })
}

// Reconcile looks at a node's pods, one pod, or the finished pods.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	switch {
	case key == finishedKey():
		return r.finished(ctx)
	case key.Namespace != "":
		return 0, r.unscheduled(ctx, key)
	}
	return r.node(ctx, key.Name)
}

// node removes the pods of a node that is missing or out of service.
func (r *reconciler) node(ctx context.Context, name string) (time.Duration, error) {
	node, err := client.Get[*corev1.Node](ctx, r.client, api.Key{Name: name})
	if err != nil && !apierrors.IsNotFound(err) {
		return 0, err
	}
	exists := err == nil
	pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Index: client.IndexNode, Value: name})
	if err != nil {
		return 0, err
	}
	if wait := r.quarantined(name, !exists && len(pods) > 0, time.Now()); wait > 0 {
		return wait, nil
	}
	for _, p := range pods {
		switch {
		case !exists:
			err = r.remove(ctx, p, "its node "+name+" does not exist", &corev1.PodCondition{
				Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue, Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
			})
		case p.DeletionTimestamp != nil && outOfService(node):
			err = r.remove(ctx, p, "its node "+name+" is out of service", nil)
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// quarantined notes whether a node is missing, and returns how long its pods are to be left alone.
func (r *reconciler) quarantined(name string, missing bool, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !missing {
		delete(r.missing, name)
		return 0
	}
	since, ok := r.missing[name]
	if !ok {
		since = now
		r.missing[name] = now
	}
	return max(since.Add(quarantine).Sub(now), 0)
}

// unscheduled removes a pod that is being deleted and has no node to wait for.
func (r *reconciler) unscheduled(ctx context.Context, key api.Key) error {
	pod, err := client.Get[*corev1.Pod](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil || pod.DeletionTimestamp == nil || pod.Spec.NodeName != "" {
		return err
	}
	return r.remove(ctx, pod, "it is being deleted and was never scheduled", nil)
}

// finished removes the oldest finished pods beyond the threshold.
func (r *reconciler) finished(ctx context.Context) (time.Duration, error) {
	if wait := r.countAgain(time.Now()); wait > 0 {
		return wait, nil
	}
	pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	for _, p := range surplus(pods, r.threshold) {
		if err := r.remove(ctx, p, fmt.Sprintf("there are more than %d finished pods", r.threshold), nil); err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// countAgain returns how long the next count has to wait; 0 begins it.
func (r *reconciler) countAgain(now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if wait := r.counted.Add(countEvery).Sub(now); !r.counted.IsZero() && wait > 0 {
		return wait
	}
	r.counted = now
	return 0
}

// surplus returns the finished pods beyond threshold: evicted ones first, as their owners have long replaced them, then the oldest.
func surplus(pods []*corev1.Pod, threshold int) []*corev1.Pod {
	finished := slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool { return !podstate.Finished(p) })
	if len(finished) <= threshold {
		return nil
	}
	evictedFirst := func(p *corev1.Pod) int {
		if p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted" {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(finished, func(a, b *corev1.Pod) int {
		return cmp.Or(evictedFirst(a)-evictedFirst(b), a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return finished[:len(finished)-threshold]
}

// remove marks pod Failed, with condition where given, and removes it without waiting for a node.
func (r *reconciler) remove(ctx context.Context, pod *corev1.Pod, why string, condition *corev1.PodCondition) error {
	if !podstate.Finished(pod) {
		_, err := client.Mutate(ctx, r.client, api.KeyOf(pod), "status", func(o *corev1.Pod) bool {
			if o.UID != pod.UID || podstate.Finished(o) {
				return false
			}
			o.Status.Phase = corev1.PodFailed
			if condition != nil {
				c := *condition
				c.LastTransitionTime, c.ObservedGeneration = metav1.Now(), o.Generation
				o.Status.Conditions = slices.DeleteFunc(o.Status.Conditions, func(c corev1.PodCondition) bool { return c.Type == condition.Type })
				o.Status.Conditions = append(o.Status.Conditions, c)
			}
			return true
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("marking pod %s failed: %w", api.KeyOf(pod), err)
		}
	}
	uid, now := pod.UID, int64(0)
	err := client.Delete[*corev1.Pod](ctx, r.client, api.KeyOf(pod), metav1.DeleteOptions{
		GracePeriodSeconds: &now, Preconditions: &metav1.Preconditions{UID: &uid}})
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing pod %s: %w", api.KeyOf(pod), err)
	}
	slog.InfoContext(ctx, "removed a pod", "pod", api.KeyOf(pod).String(), "because", why)
	return nil
}
