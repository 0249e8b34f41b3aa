package node

import (
	"context"
	"fmt"
	goruntime "runtime"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/task"
)

// heartbeats registers the node and then, every HeartbeatInterval, renews its lease, looks after its conditions, and does what has to be
// looked at now and then: logs that grow, a disk that fills.
func (a *Agent) heartbeats(ctx context.Context) {
	var r task.Retry
	for ctx.Err() == nil {
		err := a.register(ctx)
		if err == nil {
			break
		}
		if ctx.Err() == nil {
			a.log.Warn("registering the node failed, trying again", "err", err)
			r.Wait(ctx)
		}
	}
	var written time.Time // when the node's status was
	for ctx.Err() == nil && !a.isDeleted() {
		began := time.Now()
		a.warn("renewing the node's lease", task.Quiet(ctx, a.renewLease(ctx)))
		if force := began.Sub(written) >= a.cfg.StatusInterval; true {
			wrote, err := a.writeStatus(ctx, force)
			a.warn("writing the node's status", task.Quiet(ctx, err))
			if wrote && err == nil {
				written = began
			}
		}
		a.houseKeeping(ctx, began)
		for i := 0; i < unreadyLooks && !a.isReady() && !a.isDeleted() && time.Since(began) < a.cfg.HeartbeatInterval; i++ {
			task.Pause(ctx, unreadyPause)
			_, err := a.writeStatus(ctx, false)
			a.warn("writing the node's status", task.Quiet(ctx, err))
		}
		task.Pause(ctx, max(a.cfg.HeartbeatInterval-time.Since(began), time.Second))
	}
}

// A node that is not ready - it starts, or its network has just come up - is looked at more often, for a while after each heartbeat:
// pods wait for it.
const (
	unreadyPause = 100 * time.Millisecond
	unreadyLooks = 50
)

// isDeleted tells whether the node's object was deleted, for good.
func (a *Agent) isDeleted() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.deleted
}

// isReady tells whether the node's Ready condition was true when it was last written.
func (a *Agent) isReady() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.node != nil && readyReason(a.node.Status.Conditions) == string(corev1.ConditionTrue)
}

// register creates the Node, or takes over the one that is there.
func (a *Agent) register(ctx context.Context) error {
	labels := map[string]string{corev1.LabelHostname: a.cfg.NodeName, corev1.LabelOSStable: goruntime.GOOS, corev1.LabelArchStable: goruntime.GOARCH,
		"beta.kubernetes.io/os": goruntime.GOOS, "beta.kubernetes.io/arch": goruntime.GOARCH}
	for k, v := range a.cfg.Labels {
		labels[k] = v
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: a.cfg.NodeName, Labels: labels}, Spec: corev1.NodeSpec{Taints: a.cfg.Taints}}
	a.setSpecCIDRs(node)
	a.nodeStatus(ctx, &node.Status)
	node.Status.Conditions = nodeConditions(nil, a.checkHealth(ctx), time.Now())
	out, err := a.cfg.Client.Create(ctx, node)
	if err == nil {
		a.setNode(out.(*corev1.Node))
		a.log.Info("node registered")
		return nil
	}
	if !apierrors.IsAlreadyExists(err) {
		return err
	}
	have, err := client.Mutate(ctx, a.cfg.Client, api.Key{Name: a.cfg.NodeName}, "", func(n *corev1.Node) bool {
		changed := a.setSpecCIDRs(n)
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		for k, v := range labels {
			if n.Labels[k] != v {
				n.Labels[k], changed = v, true
			}
		}
		return changed
	})
	if err != nil {
		return err
	}
	a.setNode(have)
	_, err = a.writeStatus(ctx, true)
	return err
}

// setSpecCIDRs writes the pod CIDRs into a node that has none, and tells whether it did.
func (a *Agent) setSpecCIDRs(n *corev1.Node) bool {
	if n.Spec.PodCIDR != "" || len(a.cfg.PodCIDRs) == 0 {
		return false
	}
	n.Spec.PodCIDR, n.Spec.PodCIDRs = a.cfg.PodCIDRs[0], a.cfg.PodCIDRs
	return true
}

func (a *Agent) setNode(n *corev1.Node) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.node = n
}

// setPodCIDRs tells the runtime the node's pod CIDRs.
func (a *Agent) setPodCIDRs(ctx context.Context) {
	a.warn("telling the runtime the pod CIDR", task.Quiet(ctx, a.rt.UpdateRuntimeConfig(ctx, strings.Join(a.cfg.PodCIDRs, ","))))
}

// writeStatus writes the node's status if it changed, or force is true. A Node that was deleted is registered again, unless
// that is to be final.
func (a *Agent) writeStatus(ctx context.Context, force bool) (wrote bool, err error) {
	h := a.checkHealth(ctx)
	now := time.Now()
	var before, after string
	out, err := client.Mutate(ctx, a.cfg.Client, api.Key{Name: a.cfg.NodeName}, "status", func(n *corev1.Node) bool {
		old := n.Status.DeepCopy()
		a.nodeStatus(ctx, &n.Status)
		n.Status.Conditions = nodeConditions(old.Conditions, h, now)
		wrote = force || !sameConditions(old.Conditions, n.Status.Conditions) || !sameNodeStatus(old, &n.Status)
		before, after = readyReason(old.Conditions), readyReason(n.Status.Conditions)
		return wrote
	})
	if apierrors.IsNotFound(err) && a.cfg.Deleted != nil {
		a.mu.Lock()
		told := a.deleted
		a.deleted = true
		a.mu.Unlock()
		if !told {
			a.cfg.Deleted()
		}
		return false, nil
	}
	if apierrors.IsNotFound(err) {
		return false, a.register(ctx)
	}
	if err != nil {
		return false, err
	}
	a.setNode(out)
	if wrote && before != after {
		a.log.Info("node condition changed", "ready", after)
		switch {
		case after == "True":
			a.events.NodeEvent(corev1.EventTypeNormal, "NodeReady", fmt.Sprintf("Node %s status is now: NodeReady", a.cfg.NodeName))
		case before == "True":
			a.events.NodeEvent(corev1.EventTypeNormal, "NodeNotReady", fmt.Sprintf("Node %s status is now: NodeNotReady", a.cfg.NodeName))
		}
	}
	return wrote, nil
}

func readyReason(list []corev1.NodeCondition) string {
	for _, c := range list {
		if c.Type == corev1.NodeReady {
			return string(c.Status)
		}
	}
	return ""
}

// renewLease tells in kube-node-lease that the node is alive (KEP-589).
func (a *Agent) renewLease(ctx context.Context) error {
	key := api.Key{Namespace: corev1.NamespaceNodeLease, Name: a.cfg.NodeName}
	now := metav1.NewMicroTime(time.Now())
	seconds := int32(4 * a.cfg.HeartbeatInterval / time.Second)
	_, err := client.Mutate(ctx, a.cfg.Client, key, "", func(l *coordinationv1.Lease) bool {
		l.Spec.RenewTime, l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = &now, &a.cfg.NodeName, &seconds
		return true
	})
	if !apierrors.IsNotFound(err) {
		return err
	}
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &a.cfg.NodeName, LeaseDurationSeconds: &seconds, RenewTime: &now}}
	a.mu.Lock()
	if a.node != nil {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: a.node.Name, UID: a.node.UID}}
	}
	a.mu.Unlock()
	_, err = a.cfg.Client.Create(ctx, l)
	return err
}
