// Package quota measures what objects use of a namespace's ResourceQuotas
// (https://kubernetes.io/docs/concepts/policy/resource-quotas/).
//
// What flows through it: the ResourceQuota admission plugin asks for the usage of one object that is being written, the quota
// controller for that of all that are there. What must stay true: both get the same numbers; everything here is pure.
// Tests: TestUsage, TestApplies.
package quota

import (
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api"
)

// classSuffix is in the quota names of one storage class: gold.storageclass.storage.k8s.io/requests.storage.
const classSuffix = ".storageclass.storage.k8s.io/"

// CountName is the name under which objects of any kind are counted: count/deployments.apps.
func CountName(res *api.Resource) corev1.ResourceName {
	return corev1.ResourceName("count/" + res.GroupResource().String())
}

// Measures tells whether objects of res can use the named resource.
func Measures(res *api.Resource, name corev1.ResourceName) bool {
	if name == CountName(res) {
		return true
	}
	s := string(name)
	switch res {
	case api.Pods:
		switch name {
		case corev1.ResourcePods, corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage,
			corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory, corev1.ResourceRequestsEphemeralStorage,
			corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory, corev1.ResourceLimitsEphemeralStorage:
			return true
		}
		extended, ok := strings.CutPrefix(s, corev1.DefaultResourceRequestsPrefix)
		return strings.HasPrefix(s, corev1.ResourceHugePagesPrefix) ||
			ok && (strings.HasPrefix(extended, corev1.ResourceHugePagesPrefix) || strings.Contains(extended, "/"))
	case api.Services:
		return name == corev1.ResourceServices || name == corev1.ResourceServicesNodePorts || name == corev1.ResourceServicesLoadBalancers
	case api.PersistentVolumeClaims:
		return name == corev1.ResourcePersistentVolumeClaims || name == corev1.ResourceRequestsStorage || strings.Contains(s, classSuffix)
	case api.ConfigMaps, api.Secrets, api.ResourceQuotas, api.ReplicationControllers:
		return s == res.Plural
	}
	return false
}

// Usage is what obj, of res, uses. now decides whether a pod's grace period has passed.
func Usage(res *api.Resource, obj api.Object, now time.Time) corev1.ResourceList {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	use := corev1.ResourceList{CountName(res): one}
	switch o := obj.(type) {
	case *corev1.Pod:
		podUsage(use, o, now)
	case *corev1.Service:
		use[corev1.ResourceServices] = one
		use[corev1.ResourceServicesNodePorts] = *resource.NewQuantity(nodePorts(o), resource.DecimalSI)
		use[corev1.ResourceServicesLoadBalancers] = resource.Quantity{Format: resource.DecimalSI}
		if o.Spec.Type == corev1.ServiceTypeLoadBalancer {
			use[corev1.ResourceServicesLoadBalancers] = one
		}
	case *corev1.PersistentVolumeClaim:
		claimUsage(use, o)
	case *corev1.ConfigMap, *corev1.Secret, *corev1.ResourceQuota, *corev1.ReplicationController:
		use[corev1.ResourceName(res.Plural)] = one
	}
	return use
}

// podUsage: pods that have ended, or should have, use nothing but their place among all objects.
func podUsage(use corev1.ResourceList, pod *corev1.Pod, now time.Time) {
	if pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded {
		return
	}
	if pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil &&
		now.After(pod.DeletionTimestamp.Add(amount.Seconds(*pod.DeletionGracePeriodSeconds))) {
		return
	}
	use[corev1.ResourcePods] = *resource.NewQuantity(1, resource.DecimalSI)
	opts := helper.PodResourcesOptions{UseStatusResources: true}
	compute(use, helper.PodRequests(pod, opts), helper.PodLimits(pod, opts))
}

// compute writes requests and limits down under the names that quotas have for them.
func compute(use, requests, limits corev1.ResourceList) {
	for name, q := range requests {
		asked := corev1.DefaultResourceRequestsPrefix + name
		switch {
		case name == corev1.ResourceCPU, name == corev1.ResourceMemory, name == corev1.ResourceEphemeralStorage,
			strings.HasPrefix(string(name), corev1.ResourceHugePagesPrefix):
			use[name], use[asked] = q, q
		case strings.Contains(string(name), "/"):
			use[asked] = q
		}
	}
	for name, q := range limits {
		if name == corev1.ResourceCPU || name == corev1.ResourceMemory || name == corev1.ResourceEphemeralStorage {
			use["limits."+name] = q
		}
	}
}

// nodePorts counts the ports that the Service has, or will be given.
func nodePorts(s *corev1.Service) (n int64) {
	switch s.Spec.Type {
	case corev1.ServiceTypeNodePort:
		return int64(len(s.Spec.Ports))
	case corev1.ServiceTypeLoadBalancer:
		if s.Spec.AllocateLoadBalancerNodePorts == nil || *s.Spec.AllocateLoadBalancerNodePorts {
			return int64(len(s.Spec.Ports))
		}
		for i := range s.Spec.Ports {
			if s.Spec.Ports[i].NodePort != 0 {
				n++
			}
		}
	}
	return n
}

func claimUsage(use corev1.ResourceList, c *corev1.PersistentVolumeClaim) {
	one := *resource.NewQuantity(1, resource.DecimalSI)
	storage, asked := c.Spec.Resources.Requests[corev1.ResourceStorage]
	// A claim that was enlarged and is being shrunk again uses the larger size until that is done (KEP-1790).
	if a, ok := c.Status.AllocatedResources[corev1.ResourceStorage]; ok && a.Cmp(storage) > 0 {
		storage = a
	}
	class := ""
	if c.Spec.StorageClassName != nil && *c.Spec.StorageClassName != "" {
		class = *c.Spec.StorageClassName + classSuffix
	}
	for _, prefix := range []string{"", class} {
		use[corev1.ResourceName(prefix)+corev1.ResourcePersistentVolumeClaims] = one
		if asked {
			use[corev1.ResourceName(prefix)+corev1.ResourceRequestsStorage] = storage
		}
	}
}

// Missing names what each container of a pod must ask for because a quota limits it, in words, or "".
func Missing(pod *corev1.Pod, limited []corev1.ResourceName) string {
	if pod.Spec.Resources != nil && len(pod.Spec.Resources.Requests)+len(pod.Spec.Resources.Limits) > 0 {
		return "" // the pod as a whole says what it needs (KEP-2837)
	}
	without := map[corev1.ResourceName][]string{}
	for _, containers := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			has := corev1.ResourceList{}
			compute(has, containers[i].Resources.Requests, containers[i].Resources.Limits)
			for _, name := range limited {
				switch name {
				case corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceRequestsCPU, corev1.ResourceRequestsMemory,
					corev1.ResourceLimitsCPU, corev1.ResourceLimitsMemory:
					if _, ok := has[name]; !ok {
						without[name] = append(without[name], containers[i].Name)
					}
				}
			}
		}
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(without)) {
		slices.Sort(without[name])
		parts = append(parts, string(name)+" for: "+strings.Join(slices.Compact(without[name]), ","))
	}
	return strings.Join(parts, "; ")
}

// Add returns a + b.
func Add(a, b corev1.ResourceList) corev1.ResourceList {
	sum := corev1.ResourceList{}
	for name, q := range a {
		sum[name] = q.DeepCopy()
	}
	for name, q := range b {
		s := sum[name]
		if s.Format == "" {
			s.Format = q.Format
		}
		s.Add(q)
		sum[name] = s
	}
	return sum
}

// Write writes those of list that names chooses as quota messages do: cpu=1,pods=2.
func Write(list corev1.ResourceList, names []corev1.ResourceName) string {
	parts := make([]string, 0, len(names))
	for _, name := range slices.Sorted(slices.Values(names)) {
		q := list[name]
		parts = append(parts, string(name)+"="+q.String())
	}
	return strings.Join(parts, ",")
}
