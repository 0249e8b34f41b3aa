package verbs

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"k8s.io/apimachinery/pkg/api/equality"
	metainternal "k8s.io/apimachinery/pkg/apis/meta/internalversion"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/call"
	"github.com/knarr-io/knarr/internal/store"
)

// onlyReach reports whether the caller lists or watches pods of which it may know no more than who can reach whom: a node, unless it asks
// for its own pods.
func onlyReach(c *call.Call, opts *metainternal.ListOptions) bool {
	if c.Target.Res != api.Pods {
		return false
	}
	node, ok := authz.NodeName(c.Target.Info.User)
	if !ok {
		return false
	}
	if opts.FieldSelector == nil {
		return true
	}
	of, exact := opts.FieldSelector.RequiresExactMatch("spec.nodeName")
	return !exact || of != node
}

// reachOf returns what network policies depend on of a pod: its labels, addresses and named ports.
func reachOf(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels,
			CreationTimestamp: p.CreationTimestamp, DeletionTimestamp: p.DeletionTimestamp},
		Spec:   corev1.PodSpec{NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs},
	}
	out.Spec.InitContainers = withNamedPorts(p.Spec.InitContainers)
	out.Spec.Containers = withNamedPorts(p.Spec.Containers)
	return out
}

// withNamedPorts returns the containers that have named ports, with these alone.
func withNamedPorts(containers []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range containers {
		var ports []corev1.ContainerPort
		for _, p := range containers[i].Ports {
			if p.Name != "" {
				ports = append(ports, corev1.ContainerPort{Name: p.Name, ContainerPort: p.ContainerPort, Protocol: p.Protocol})
			}
		}
		if len(ports) > 0 {
			out = append(out, corev1.Container{Name: containers[i].Name, Ports: ports, RestartPolicy: containers[i].RestartPolicy})
		}
	}
	return out
}

// reachRevision returns rev of a pod with what reachOf leaves of it.
func reachRevision(rev *store.Revision) *store.Revision {
	return &store.Revision{Key: rev.Key, Rev: rev.Rev, Object: reachOf(rev.Object.(*corev1.Pod))}
}

func reachRevisions(revs []*store.Revision) []*store.Revision {
	out := make([]*store.Revision, len(revs))
	for i, rev := range revs {
		out[i] = reachRevision(rev)
	}
	return out
}

// reachEvents returns events with what reachOf leaves, without those in which that changed nothing: most of a pod's are about its status.
func reachEvents(events []store.Event) []store.Event {
	var out []store.Event
	for _, e := range events {
		now := reachRevision(e.Revision)
		if e.Type == store.Modified && e.Old != nil {
			old := reachOf(e.Old.Object.(*corev1.Pod))
			old.ResourceVersion = now.Object.GetResourceVersion()
			if equality.Semantic.DeepEqual(old, now.Object) {
				continue
			}
		}
		e.Revision = now
		out = append(out, e)
	}
	return out
}
