package report

import (
	"context"
	"fmt"
	"maps"
	goruntime "runtime"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/task"
)

// Beat registers the node and then, every HeartbeatInterval, renews its lease, looks after its conditions, and does what has to be
// looked at now and then: logs that grow, a disk that fills.
func (n *Node) Beat(ctx context.Context) {
	var r task.Retry
	for ctx.Err() == nil {
		err := n.register(ctx)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			n.Log.Warn("registering the node failed, trying again", "err", err)
			r.Wait(ctx)
		}
	}
	var written time.Time // when the node's status was
	for ctx.Err() == nil && !n.isDeleted() {
		began := time.Now()
		n.warn("renewing the node's lease", task.Quiet(ctx, n.renewLease(ctx)))
		wrote, err := n.writeStatus(ctx, began.Sub(written) >= n.StatusInterval)
		n.warn("writing the node's status", task.Quiet(ctx, err))
		if wrote && err == nil {
			written = began
		}
		n.Tend(ctx, began)
		for i := 0; i < unreadyLooks && !n.isReady() && !n.isDeleted() && time.Since(began) < n.Interval; i++ {
			task.Pause(ctx, unreadyPause)
			_, err := n.writeStatus(ctx, false)
			n.warn("writing the node's status", task.Quiet(ctx, err))
		}
		task.Pause(ctx, max(n.Interval-time.Since(began), time.Second))
	}
}

// A node that is not ready - it starts, or its network has just come up - is looked at more often, for a while after each heartbeat:
// pods wait for it.
const (
	unreadyPause = 100 * time.Millisecond
	unreadyLooks = 50
)

// register creates the Node, or takes over the one that is there.
func (n *Node) register(ctx context.Context) error {
	labels := map[string]string{corev1.LabelHostname: n.Name, corev1.LabelOSStable: goruntime.GOOS, corev1.LabelArchStable: goruntime.GOARCH,
		"beta.kubernetes.io/os": goruntime.GOOS, "beta.kubernetes.io/arch": goruntime.GOARCH}
	for k, v := range n.Labels {
		labels[k] = v
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: labels, Annotations: maps.Clone(n.Annotations)}, Spec: corev1.NodeSpec{Taints: n.Taints}}
	n.setSpecCIDRs(node)
	n.nodeStatus(ctx, &node.Status)
	node.Status.Conditions = nodeConditions(nil, n.checkHealth(ctx), time.Now())
	out, err := n.Client.Create(ctx, node)
	if err == nil {
		n.setNode(out.(*corev1.Node))
		n.Log.Info("node registered")
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	have, err := client.Mutate(ctx, n.Client, api.Key{Name: n.Name}, "", func(node *corev1.Node) bool {
		changed := n.setSpecCIDRs(node)
		changed = setAll(&node.Labels, labels) || changed
		return setAll(&node.Annotations, n.Annotations) || changed
	})
	if err != nil {
		return err
	}
	n.setNode(have)
	_, err = n.writeStatus(ctx, true)
	return err
}

// setAll writes want into have, and reports whether something was different there.
func setAll(have *map[string]string, want map[string]string) (changed bool) {
	if *have == nil {
		*have = map[string]string{}
	}
	for k, v := range want {
		if old, ok := (*have)[k]; !ok || old != v {
			(*have)[k], changed = v, true
		}
	}
	return changed
}

// setSpecCIDRs writes the pod CIDRs into a node that has none, and reports whether it did.
func (n *Node) setSpecCIDRs(node *corev1.Node) bool {
	if node.Spec.PodCIDR != "" || len(n.PodCIDRs) == 0 {
		return false
	}
	node.Spec.PodCIDR, node.Spec.PodCIDRs = n.PodCIDRs[0], n.PodCIDRs
	return true
}

func (n *Node) setNode(node *corev1.Node) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.node = node
}

// writeStatus writes the node's status if it changed, or force is true. A Node that was deleted is registered again, unless
// that is to be final.
func (n *Node) writeStatus(ctx context.Context, force bool) (wrote bool, err error) {
	h := n.checkHealth(ctx)
	now := time.Now()
	var before, after string
	out, err := client.Mutate(ctx, n.Client, api.Key{Name: n.Name}, "status", func(node *corev1.Node) bool {
		old := node.Status.DeepCopy()
		n.nodeStatus(ctx, &node.Status)
		node.Status.Conditions = nodeConditions(old.Conditions, h, now)
		wrote = force || !sameConditions(old.Conditions, node.Status.Conditions) || !sameNodeStatus(old, &node.Status)
		before, after = readyStatus(old.Conditions), readyStatus(node.Status.Conditions)
		return wrote
	})
	if apierrors.IsNotFound(err) && n.Deleted != nil {
		n.mu.Lock()
		known := n.deleted
		n.deleted = true
		n.mu.Unlock()
		if !known {
			n.Deleted()
		}
		return false, nil
	}
	if apierrors.IsNotFound(err) {
		return false, n.register(ctx)
	}
	if err != nil {
		return false, err
	}
	n.setNode(out)
	if wrote && before != after {
		n.Log.Info("node condition changed", "ready", after)
		switch {
		case after == "True":
			n.Events.NodeEvent(corev1.EventTypeNormal, "NodeReady", fmt.Sprintf("Node %s status is now: NodeReady", n.Name))
		case before == "True":
			n.Events.NodeEvent(corev1.EventTypeNormal, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", n.Name))
		}
	}
	return wrote, nil
}

// readyStatus returns the status of the Ready condition; "" where there is none.
func readyStatus(list []corev1.NodeCondition) string {
	for _, c := range list {
		if c.Type == corev1.NodeReady {
			return string(c.Status)
		}
	}
	return ""
}
