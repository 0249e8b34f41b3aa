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
)

// renewLease tells in kube-node-lease that the node is alive (KEP-589).
func (n *Node) renewLease(ctx context.Context) error {
	key := api.Key{Namespace: corev1.NamespaceNodeLease, Name: n.Name}
	now := metav1.NewMicroTime(time.Now())
	seconds := int32(4 * n.Interval / time.Second)
	_, err := client.Mutate(ctx, n.Client, key, "", func(l *coordinationv1.Lease) bool {
		l.Spec.RenewTime, l.Spec.HolderIdentity, l.Spec.LeaseDurationSeconds = &now, &n.Name, &seconds
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
