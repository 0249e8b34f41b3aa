package endpointslice

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/rollout"
	"github.com/knarr-io/knarr/internal/client"
)

// trafficKeys maps a ReplicaSet of which Services are kept away, or no longer are, to the Services that select its pods.
func trafficKeys(c client.Client, e client.Event) []api.Key {
	rs := e.Object.(*appsv1.ReplicaSet)
	if e.Type != client.Modified || e.Old == nil || e.Old.GetAnnotations()[rollout.Traffic] == rs.Annotations[rollout.Traffic] {
		return nil
	}
	return podKeys(c, client.Event{Object: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: rs.Namespace, Labels: rs.Spec.Template.Labels}}})
}

// reachable returns those of pods that svc may lead to: a blue/green roll-out keeps Services away from the pods of one of its ReplicaSets. A
// Service for previews leads to those that are to come, where there are any.
func reachable(ctx context.Context, c client.Client, svc *corev1.Service, pods []*corev1.Pod) []*corev1.Pod {
	traffic := map[types.UID]string{}
	waiting := false
	for _, p := range pods {
		ref := metav1.GetControllerOfNoCopy(p)
		if ref == nil || ref.Kind != "ReplicaSet" {
			continue
		}
		if _, known := traffic[ref.UID]; known {
			continue
		}
		word := ""
		if rs, err := client.Get[*appsv1.ReplicaSet](ctx, c, api.Key{Namespace: p.Namespace, Name: ref.Name}); err == nil && rs.UID == ref.UID {
			word = rs.Annotations[rollout.Traffic]
		}
		traffic[ref.UID] = word
		waiting = waiting || word == rollout.PreviewOnly
	}
	wanted := ""
	if waiting && svc.Annotations[rollout.Preview] == "true" {
		wanted = rollout.PreviewOnly
	}
	return slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		ref := metav1.GetControllerOfNoCopy(p)
		return ref == nil && wanted != "" || ref != nil && traffic[ref.UID] != wanted
	})
}
