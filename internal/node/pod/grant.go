package pod

import (
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
)

// grant is what a node has granted a pod that asks for something else now (KEP-1287): by container, and for the pod as a whole.
type grant struct {
	containers map[string]corev1.ResourceRequirements
	pod        *corev1.ResourceRequirements
}

// grantOf returns what a pod asks for.
func grantOf(pod *corev1.Pod) *grant {
	g := &grant{containers: map[string]corev1.ResourceRequirements{}, pod: pod.Spec.Resources}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			g.containers[list[i].Name] = list[i].Resources
		}
	}
	return g
}

// reportedGrant returns what the status says that the pod has been granted; what it does not say is as the pod asks. An agent that
// was restarted goes on from there.
func reportedGrant(pod *corev1.Pod) *grant {
	g := grantOf(pod)
	for _, list := range [][]corev1.ContainerStatus{pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses} {
		for i := range list {
			if s := &list[i]; s.Resources != nil {
				g.containers[s.Name] = corev1.ResourceRequirements{Requests: s.AllocatedResources, Limits: s.Resources.Limits, Claims: s.Resources.Claims}
			}
		}
	}
	return g
}

// apply returns pod with the resources that it was granted.
func (g *grant) apply(pod *corev1.Pod) *corev1.Pod {
	if g == nil {
		return pod
	}
	out := *pod
	out.Spec.Resources = g.pod
	put := func(list []corev1.Container) []corev1.Container {
		list = append([]corev1.Container(nil), list...)
		for i := range list {
			if r, ok := g.containers[list[i].Name]; ok {
				list[i].Resources = r
			}
		}
		return list
	}
	out.Spec.Containers, out.Spec.InitContainers = put(pod.Spec.Containers), put(pod.Spec.InitContainers)
	return &out
}

// sameResources compares what two versions of a pod ask for.
func sameResources(a, b *grant) bool {
	if len(a.containers) != len(b.containers) || !apiequality.Semantic.DeepEqual(a.pod, b.pod) {
		return false
	}
	for name, r := range a.containers {
		if !apiequality.Semantic.DeepEqual(r, b.containers[name]) {
			return false
		}
	}
	return true
}
