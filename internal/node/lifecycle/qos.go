package lifecycle

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// QOS returns the pod's quality-of-service class: what the API computed, else the rule of
// https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/.
func QOS(pod *corev1.Pod) corev1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	var any bool
	guaranteed := true
	each := func(r *corev1.ResourceRequirements) {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			req, lim := quantity(r.Requests, name), quantity(r.Limits, name)
			if !req.IsZero() || !lim.IsZero() {
				any = true
			}
			if lim.IsZero() || (!req.IsZero() && req.Cmp(lim) != 0) {
				guaranteed = false
			}
		}
	}
	if r := pod.Spec.Resources; r != nil {
		each(r)
	} else {
		for i := range pod.Spec.InitContainers {
			each(&pod.Spec.InitContainers[i].Resources)
		}
		for i := range pod.Spec.Containers {
			each(&pod.Spec.Containers[i].Resources)
		}
	}
	switch {
	case !any:
		return corev1.PodQOSBestEffort
	case guaranteed:
		return corev1.PodQOSGuaranteed
	}
	return corev1.PodQOSBurstable
}

func quantity(l corev1.ResourceList, name corev1.ResourceName) resource.Quantity { return l[name] }
