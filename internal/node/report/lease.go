package report

import (
	"context"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// renewLease says in kube-node-lease that the node is alive (KEP-589).
func (n *Node) renewLease(ctx context.Context) error {
	key := api.Key{Namespace: corev1.NamespaceNodeLease, Name: n.Name}
	now := metav1.NewMicroTime(time.Now())
	seconds := int32(4 * n.Interval / time.Second)
	_, err := client.Mutate(ctx, n.Client, key, "", func(l *coordinationv1.Lease) bool {
		l.Spec.RenewTime, l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = &now, &n.Name, &seconds
		delete(l.Annotations, agentlink.AnnotationLeft)
		return true
	})
	if !apierrors.IsNotFound(err) {
		return err
	}
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &n.Name, LeaseDurationSeconds: &seconds, RenewTime: &now}}
	n.mu.Lock()
	if n.node != nil {
		l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.node.Name, UID: n.node.UID}}
	}
	n.mu.Unlock()
	_, err = n.Client.Create(ctx, l)
	return err
}

// farewell is how long the agent takes at most to say that it ends.
const farewell = 2 * time.Second

// Leave says in the node's Lease that the agent ends in order: its containers go on, and the node is not to be taken for lost because its
// connection with the servers ends (ADR 8). An agent that is replaced by a newer one takes no pods out of their Services.
func (n *Node) Leave(ctx context.Context) {
	if !n.registered() || n.isDeleted() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	now := metav1.NewMicroTime(time.Now())
	_, err := client.Mutate(ctx, n.Client, api.Key{Namespace: corev1.NamespaceNodeLease, Name: n.Name}, "", func(l *coordinationv1.Lease) bool {
		if l.Annotations == nil {
			l.Annotations = map[string]string{}
		}
		l.Annotations[agentlink.AnnotationLeft] = now.UTC().Format(time.RFC3339)
		l.Spec.RenewTime = &now
		return true
	})
	n.warn("saying that the agent ends", err)
}
