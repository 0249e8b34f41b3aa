package api

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Builtin are the resources that every Knarr server serves, in the order of discovery. Adding a resource is declaring a
// kind and naming it here. It is never changed. Kinds that nothing would act on yet (DaemonSet, StatefulSet, Job, Ingress,
// ReplicationController, ...) are not served: a clear "not found" is better than an object that stays as it is for ever.
var Builtin = []*Resource{
	// core/v1
	ConfigMaps,
	Endpoints,
	Events,
	LimitRanges,
	Namespaces,
	Nodes,
	PersistentVolumeClaims,
	PersistentVolumes,
	Pods,
	PodTemplates,
	ResourceQuotas,
	Secrets,
	ServiceAccounts,
	Services,
	// apps/v1
	ControllerRevisions,
	Deployments,
	ReplicaSets,
	// certificates.k8s.io/v1
	CertificateSigningRequests,
	// coordination.k8s.io/v1
	Leases,
	// discovery.k8s.io/v1
	EndpointSlices,
	// networking.k8s.io/v1
	IPAddresses,
	ServiceCIDRs,
	// node.k8s.io/v1
	RuntimeClasses,
	// policy/v1
	PodDisruptionBudgets,
	// rbac.authorization.k8s.io/v1
	ClusterRoleBindings,
	ClusterRoles,
	RoleBindings,
	Roles,
	// scheduling.k8s.io/v1
	PriorityClasses,
}

var (
	byType = indexTypes(Builtin)
	byKind = indexKinds(Builtin)
	byGVR  = indexResources(Builtin)
)

// ByType returns the resource whose objects have Go type t (a pointer type such as *corev1.Pod), or nil.
func ByType(t reflect.Type) *Resource { return byType[t] }

// ByKind returns the resource that serves objects of kind gvk, in its stored version or a further one, or nil.
func ByKind(gvk schema.GroupVersionKind) *Resource { return byKind[gvk] }

// Find returns the resource that is served as gvr, in its stored version or a further one.
func Find(gvr schema.GroupVersionResource) (*Resource, bool) {
	r, ok := byGVR[gvr]
	return r, ok
}

func indexTypes(rs []*Resource) map[reflect.Type]*Resource {
	m := make(map[reflect.Type]*Resource, len(rs))
	for _, r := range rs {
		m[reflect.TypeOf(r.New())] = r
	}
	return m
}

func indexKinds(rs []*Resource) map[schema.GroupVersionKind]*Resource {
	m := make(map[schema.GroupVersionKind]*Resource, len(rs))
	for _, r := range rs {
		m[r.GroupVersionKind] = r
		for _, gv := range r.Versions {
			m[gv.WithKind(r.Kind)] = r
		}
	}
	return m
}

func indexResources(rs []*Resource) map[schema.GroupVersionResource]*Resource {
	m := make(map[schema.GroupVersionResource]*Resource, len(rs))
	for _, r := range rs {
		m[r.GroupVersionResource()] = r
		for _, gv := range r.Versions {
			m[gv.WithResource(r.Plural)] = r
		}
	}
	return m
}
