package ledger

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// refuse says why a pod does not fit beside the claims of others, in the kubelet's words. It is pure.
func refuse(pod *corev1.Pod, c claim, node *corev1.Node, allocatable corev1.ResourceList, others map[types.UID]claim) *lifecycle.Failure {
	if node != nil {
		ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
		if err != nil || !ok {
			return &lifecycle.Failure{Reason: "NodeAffinity", Message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
		}
	}
	if max := amount.Units(*allocatable.Pods()); max > 0 && int64(len(others)) >= max {
		return outOf(corev1.ResourcePods, 1, int64(len(others)), max)
	}
	for name, want := range c.requests {
		have, known := allocatable[name]
		if !known {
			if want.IsZero() || name == corev1.ResourceEphemeralStorage || Extended(name) {
				continue
			}
		}
		if want.IsZero() {
			continue
		}
		var used amount.Sum
		for _, o := range others {
			used.Add(amount.Of(name, o.requests[name]))
		}
		requested, capacity := amount.Of(name, want), amount.Of(name, have)
		if requested > used.Left(capacity) {
			return outOf(name, requested, used.Int64(), capacity)
		}
	}
	for _, p := range c.ports {
		for _, o := range others {
			for _, q := range o.ports {
				if p.clashes(q) {
					return &lifecycle.Failure{Reason: "NodePorts", Message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
				}
			}
		}
	}
	return nil
}

func outOf(name corev1.ResourceName, requested, used, capacity int64) *lifecycle.Failure {
	return &lifecycle.Failure{Reason: "OutOf" + string(name),
		Message: fmt.Sprintf("Pod was rejected: Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity)}
}
