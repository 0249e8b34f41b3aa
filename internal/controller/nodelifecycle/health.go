package nodelifecycle

import (
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// heartbeats remembers when each node was last heard of, by this process' clock. After a restart every node gets a full grace
// period again.
type heartbeats struct {
	mu    sync.Mutex
	nodes map[string]heartbeat
}

type heartbeat struct {
	uid    string
	status metav1.Time // last heartbeat of the Ready condition, by the node's clock
	lease  time.Time   // last renewal of the Lease, by the node's clock
	at     time.Time   // when one of them was seen to change
	first  time.Time   // when the node was first looked at
	left   bool        // its agent ended in order
}

func newHeartbeats() *heartbeats { return &heartbeats{nodes: map[string]heartbeat{}} }

// observe notes what node says of itself and returns what is known by now. first says that it is new to this process.
func (h *heartbeats) observe(node *corev1.Node, lease *coordinationv1.Lease, now time.Time) (is heartbeat, first bool) {
	is = heartbeat{uid: string(node.UID), at: now, first: now}
	ready := conditionOf(node, corev1.NodeReady)
	if ready != nil {
		is.status = ready.LastHeartbeatTime
	}
	if lease != nil && lease.Spec.RenewTime != nil {
		is.lease = lease.Spec.RenewTime.Time
		_, is.left = lease.Annotations[agentlink.AnnotationLeft]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	was, ok := h.nodes[node.Name]
	first = !ok || was.uid != is.uid
	switch {
	case first && ready == nil:
		is.at = node.CreationTimestamp.Time // it has the startup grace period from then
	case first:
	case is.lease.After(was.lease):
	case !is.status.Equal(&was.status):
	default:
		is.at = was.at // a clock that was set back is no sign of life, but the next renewals count from there
	}
	if !first {
		is.first = was.first
	}
	h.nodes[node.Name] = is
	return is, first
}

func (h *heartbeats) forget(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.nodes, name)
}

// conditionOf returns node's condition of type t, or nil.
func conditionOf(node *corev1.Node, t corev1.NodeConditionType) *corev1.NodeCondition {
	for i := range node.Status.Conditions {
		if node.Status.Conditions[i].Type == t {
			return &node.Status.Conditions[i]
		}
	}
	return nil
}

// health returns the conditions of a node that is silent too long at now, by its heartbeats or its connection; nil where nothing
// changes. after is when to look again.
func health(node *corev1.Node, beat heartbeat, link agentlink.State, config Config, now time.Time) (conditions []corev1.NodeCondition, after time.Duration) {
	grace, message := config.GracePeriod, "Kubelet stopped posting node status."
	ready := conditionOf(node, corev1.NodeReady)
	if ready == nil {
		grace = config.StartupGracePeriod
	}
	deadline := beat.at.Add(grace)
	if at, ok := lostAt(beat, link, config.LinkGracePeriod); ok && ready != nil && at.Before(deadline) {
		deadline, message = at, lostMessage(link)
	}
	if left := deadline.Sub(now); left >= 0 {
		return nil, left + time.Millisecond
	}
	if ready != nil && ready.Status == corev1.ConditionUnknown {
		return nil, 0 // said already; a heartbeat is the next event
	}
	return unknown(node, message, now), 0
}

// unknown returns the conditions of a node of which nothing is known any more.
func unknown(node *corev1.Node, message string, now time.Time) []corev1.NodeCondition {
	conditions := slices.Clone(node.Status.Conditions)
	// NetworkUnavailable is not the node's to report.
	for _, t := range []corev1.NodeConditionType{corev1.NodeReady, corev1.NodeMemoryPressure, corev1.NodeDiskPressure, corev1.NodePIDPressure} {
		i := slices.IndexFunc(conditions, func(c corev1.NodeCondition) bool { return c.Type == t })
		switch {
		case i < 0:
			conditions = append(conditions, corev1.NodeCondition{
				Type: t, Status: corev1.ConditionUnknown, Reason: "NodeStatusNeverUpdated", Message: "Kubelet never posted node status.",
				LastHeartbeatTime: node.CreationTimestamp, LastTransitionTime: metav1.NewTime(now),
			})
		case conditions[i].Status != corev1.ConditionUnknown:
			c := &conditions[i]
			c.Status, c.Reason, c.Message = corev1.ConditionUnknown, "NodeStatusUnknown", message
			c.LastTransitionTime = metav1.NewTime(now)
		}
	}
	return conditions
}
