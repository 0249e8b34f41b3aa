package quota

import (
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

func list(kv ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		out[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return out
}

func pod(change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	if change != nil {
		change(p)
	}
	return p
}

func TestUsage(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	grace, no, gold := int64(30), false, "gold"
	need := func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{
			Requests: list("cpu", "100m", "memory", "1Gi", "example.com/gpu", "2", "hugepages-2Mi", "4Mi"), Limits: list("cpu", "1", "example.com/gpu", "2")}
		p.Spec.InitContainers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: list("cpu", "2")}}}
	}
	service := func(kind corev1.ServiceType, allocate *bool) *corev1.Service {
		return &corev1.Service{Spec: corev1.ServiceSpec{Type: kind, AllocateLoadBalancerNodePorts: allocate, Ports: []corev1.ServicePort{{Port: 1}, {Port: 2, NodePort: 30000}}}}
	}
	tests := []struct {
		name string
		res  *api.Resource
		obj  api.Object
		want corev1.ResourceList
	}{
		{"pod", api.Pods, pod(need), list("count/pods", "1", "pods", "1", "cpu", "2", "requests.cpu", "2", "memory", "1Gi", "requests.memory", "1Gi",
			"limits.cpu", "1", "requests.example.com/gpu", "2", "hugepages-2Mi", "4Mi", "requests.hugepages-2Mi", "4Mi")},
		{"ended pod", api.Pods, pod(func(p *corev1.Pod) { need(p); p.Status.Phase = corev1.PodFailed }), list("count/pods", "1")},
		{"terminating pod", api.Pods, pod(func(p *corev1.Pod) {
			at := metav1.NewTime(now.Add(-10 * time.Second))
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
		}), list("count/pods", "1", "pods", "1")},
		{"pod that should be gone", api.Pods, pod(func(p *corev1.Pod) {
			at := metav1.NewTime(now.Add(-time.Minute))
			p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
		}), list("count/pods", "1")},
		{"ClusterIP", api.Services, service(corev1.ServiceTypeClusterIP, nil), list("count/services", "1", "services", "1", "services.nodeports", "0", "services.loadbalancers", "0")},
		{"NodePort", api.Services, service(corev1.ServiceTypeNodePort, nil), list("count/services", "1", "services", "1", "services.nodeports", "2", "services.loadbalancers", "0")},
		{"LoadBalancer", api.Services, service(corev1.ServiceTypeLoadBalancer, nil), list("count/services", "1", "services", "1", "services.nodeports", "2", "services.loadbalancers", "1")},
		{"LoadBalancer without ports of its own", api.Services, service(corev1.ServiceTypeLoadBalancer, &no), list("count/services", "1", "services", "1", "services.nodeports", "1", "services.loadbalancers", "1")},
		{"claim", api.PersistentVolumeClaims, &corev1.PersistentVolumeClaim{Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: &gold, Resources: corev1.VolumeResourceRequirements{Requests: list("storage", "5Gi")}}},
			list("count/persistentvolumeclaims", "1", "persistentvolumeclaims", "1", "requests.storage", "5Gi",
				"gold.storageclass.storage.k8s.io/persistentvolumeclaims", "1", "gold.storageclass.storage.k8s.io/requests.storage", "5Gi")},
		{"secret", api.Secrets, &corev1.Secret{}, list("count/secrets", "1", "secrets", "1")},
		{"replication controller", api.ReplicationControllers, &corev1.ReplicationController{}, list("count/replicationcontrollers", "1", "replicationcontrollers", "1")},
		{"deployment", api.Deployments, &appsv1.Deployment{}, list("count/deployments.apps", "1")},
	}
	for _, tc := range tests {
		got := Usage(tc.res, tc.obj, now)
		if !equality.Semantic.DeepEqual(got, tc.want) {
			t.Errorf("%s:\n%v, want\n%v", tc.name, got, tc.want)
		}
		for name := range got {
			if !Measures(tc.res, name) {
				t.Errorf("%s uses %s, which a quota would not know", tc.name, name)
			}
		}
	}
}

func TestApplies(t *testing.T) {
	deadline := int64(5)
	limited := pod(func(p *corev1.Pod) {
		p.Spec.ActiveDeadlineSeconds = &deadline
		p.Spec.PriorityClassName = "high"
		p.Spec.Containers[0].Resources.Limits = list("memory", "1Mi")
		p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{Namespaces: []string{"x"}}}}}
	})
	plain := pod(nil)
	scope := func(s corev1.ResourceQuotaScope) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{Scopes: []corev1.ResourceQuotaScope{s}}}
	}
	class := func(op corev1.ScopeSelectorOperator, values ...string) *corev1.ResourceQuota {
		return &corev1.ResourceQuota{Spec: corev1.ResourceQuotaSpec{ScopeSelector: &corev1.ScopeSelector{MatchExpressions: []corev1.ScopedResourceSelectorRequirement{
			{ScopeName: corev1.ResourceQuotaScopePriorityClass, Operator: op, Values: values}}}}}
	}
	tests := []struct {
		name           string
		q              *corev1.ResourceQuota
		limited, plain bool
	}{
		{"no scope", &corev1.ResourceQuota{}, true, true},
		{"Terminating", scope(corev1.ResourceQuotaScopeTerminating), true, false},
		{"NotTerminating", scope(corev1.ResourceQuotaScopeNotTerminating), false, true},
		{"BestEffort", scope(corev1.ResourceQuotaScopeBestEffort), false, true},
		{"NotBestEffort", scope(corev1.ResourceQuotaScopeNotBestEffort), true, false},
		{"PriorityClass", scope(corev1.ResourceQuotaScopePriorityClass), true, false},
		{"CrossNamespacePodAffinity", scope(corev1.ResourceQuotaScopeCrossNamespacePodAffinity), true, false},
		{"class in", class(corev1.ScopeSelectorOpIn, "high", "low"), true, false},
		{"class in others", class(corev1.ScopeSelectorOpIn, "low"), false, false},
		{"class not in", class(corev1.ScopeSelectorOpNotIn, "high"), false, true},
		{"no class", class(corev1.ScopeSelectorOpDoesNotExist), false, true},
	}
	for _, tc := range tests {
		hard := list("pods", "1")
		if got := Applies(tc.q, hard, api.Pods, limited); got != tc.limited {
			t.Errorf("%s: limited pod: %v", tc.name, got)
		}
		if got := Applies(tc.q, hard, api.Pods, plain); got != tc.plain {
			t.Errorf("%s: plain pod: %v", tc.name, got)
		}
		if Applies(tc.q, list("count/secrets", "1"), api.Pods, plain) {
			t.Errorf("%s: counts a pod among secrets", tc.name)
		}
		if got := Applies(tc.q, list("secrets", "1"), api.Secrets, &corev1.Secret{}); got != (tc.name == "no scope") {
			t.Errorf("%s: secret: %v", tc.name, got)
		}
	}
}
