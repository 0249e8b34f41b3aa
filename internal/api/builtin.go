package api

import (
	"fmt"
	"reflect"
	"sync"
)

// Builtin are the resources that every Knarr server serves, in the order of discovery. Adding a resource is declaring a
// kind and naming it here. It is never changed. The README names those that nothing acts on yet.
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
	ReplicationControllers,
	ResourceQuotas,
	Secrets,
	ServiceAccounts,
	Services,
	// admissionregistration.k8s.io/v1
	MutatingAdmissionPolicies,
	MutatingAdmissionPolicyBindings,
	MutatingWebhookConfigurations,
	ValidatingAdmissionPolicies,
	ValidatingAdmissionPolicyBindings,
	ValidatingWebhookConfigurations,
	// apiregistration.k8s.io/v1
	APIServices,
	// apiextensions.k8s.io/v1
	CustomResourceDefinitions,
	// apps/v1
	ControllerRevisions,
	DaemonSets,
	Deployments,
	ReplicaSets,
	StatefulSets,
	// autoscaling/v2
	HorizontalPodAutoscalers,
	// batch/v1
	CronJobs,
	Jobs,
	// certificates.k8s.io/v1
	CertificateSigningRequests,
	ClusterTrustBundles,
	PodCertificateRequests,
	// coordination.k8s.io/v1
	Leases,
	// discovery.k8s.io/v1
	EndpointSlices,
	// flowcontrol.apiserver.k8s.io/v1
	FlowSchemas,
	PriorityLevelConfigurations,
	// networking.k8s.io/v1
	IngressClasses,
	Ingresses,
	IPAddresses,
	NetworkPolicies,
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
	// resource.k8s.io/v1
	DeviceClasses,
	DeviceTaintRules,
	ResourceClaims,
	ResourceClaimTemplates,
	ResourceSlices,
	// scheduling.k8s.io/v1
	PriorityClasses,
	// storage.k8s.io/v1
	CSIDrivers,
	CSINodes,
	CSIStorageCapacities,
	StorageClasses,
	VolumeAttachments,
	VolumeAttributesClasses,
	// storagemigration.k8s.io/v1
	StorageVersionMigrations,
}

// builtin is Builtin as a catalogue.
var builtin = sync.OnceValue(func() *Catalog {
	c, err := NewCatalog(Builtin...)
	if err != nil {
		panic(fmt.Sprintf("api: the built-in resources: %v", err)) // two declarations are the same
	}
	return c
})

// BuiltinCatalog returns the catalogue with which every server begins.
func BuiltinCatalog() *Catalog { return builtin() }

// ByType returns the built-in resource whose objects have Go type t (a pointer type such as *corev1.Pod), or nil.
func ByType(t reflect.Type) *Resource { return builtin().Type(t) }
