package api

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func TestContainerStatusesShareTheSpecsResources(t *testing.T) {
	requests := func(cpu string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu)}
	}
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{
		{Name: "a", Resources: corev1.ResourceRequirements{Requests: requests("1")}},
		{Name: "b", Resources: corev1.ResourceRequirements{Requests: requests("2")}},
	}}}
	given := []corev1.ContainerStatus{
		{Name: "b", Resources: &corev1.ResourceRequirements{Requests: requests("2")}, AllocatedResources: requests("2")},
		{Name: "a", Resources: &corev1.ResourceRequirements{Requests: requests("7")}, AllocatedResources: requests("1000m")},
		{Name: "gone", Resources: &corev1.ResourceRequirements{Requests: requests("1")}},
	}
	pod.Status.ContainerStatuses = given
	before := pod.DeepCopy()
	theirs := given[0].Resources
	sharePod(pod)
	if !reflect.DeepEqual(before, pod) {
		t.Errorf("the pod says something else now: %v", pod)
	}
	got := pod.Status.ContainerStatuses
	if got[0].Resources != &pod.Spec.Containers[1].Resources {
		t.Error("equal resources were not shared")
	}
	if got[1].Resources == &pod.Spec.Containers[0].Resources || got[1].Resources.Requests.Cpu().Value() != 7 {
		t.Errorf("resources in the midst of a resize were shared: %v", got[1].Resources)
	}
	if given[0].Resources != theirs {
		t.Error("the statuses given, which others may read, were written to")
	}
}
