package api

import (
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// sharePod lets a pod's container statuses refer to the resources in its spec, which they repeat (KEP-1287). A map of resources takes 650
// bytes, and there would be three of them for each container.
func sharePod(o Object) {
	pod := o.(*corev1.Pod)
	pod.Status.ContainerStatuses = shareResources(pod.Status.ContainerStatuses, pod.Spec.Containers)
	pod.Status.InitContainerStatuses = shareResources(pod.Status.InitContainerStatuses, pod.Spec.InitContainers)
}

func shareResources(statuses []corev1.ContainerStatus, containers []corev1.Container) []corev1.ContainerStatus {
	out := statuses
	for i := range statuses {
		st := &statuses[i]
		at := slices.IndexFunc(containers, func(c corev1.Container) bool { return c.Name == st.Name })
		if at < 0 || st.Resources == nil && st.AllocatedResources == nil {
			continue
		}
		spec := &containers[at].Resources
		whole := st.Resources != nil && st.Resources != spec && reflect.DeepEqual(*st.Resources, *spec)
		requests := len(st.AllocatedResources) > 0 && reflect.ValueOf(st.AllocatedResources).Pointer() != reflect.ValueOf(spec.Requests).Pointer() &&
			reflect.DeepEqual(st.AllocatedResources, spec.Requests)
		if !whole && !requests {
			continue
		}
		if i < len(out) && &out[i] == st {
			out = slices.Clone(statuses) // those given may be shared with another object
		}
		if whole {
			out[i].Resources = spec
		}
		if requests {
			out[i].AllocatedResources = spec.Requests
		}
	}
	return out
}
