package api

import (
	coordinationv1 "k8s.io/api/coordination/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericfeatures "k8s.io/apiserver/pkg/features"
	"k8s.io/kubernetes/pkg/apis/coordination"
	coordinationvalidation "k8s.io/kubernetes/pkg/apis/coordination/validation"
	"k8s.io/kubernetes/pkg/apis/discovery"
	discoveryvalidation "k8s.io/kubernetes/pkg/apis/discovery/validation"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// EndpointSlices are discovery.k8s.io/v1 endpoint slices.
var EndpointSlices = declare(kind[discoveryv1.EndpointSlice, discovery.EndpointSlice, discoveryv1.EndpointSliceList]{
	Resource: Resource{
		GroupVersionKind: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"),
		Plural:           "endpointslices", Singular: "endpointslice",
		Namespaced: true, Prefix: "endpointslices",
		Indexes: map[string]func(Object) []string{IndexService: serviceOfSlice},
	},
	prepareCreate: func(s *discovery.EndpointSlice) {
		s.Generation = 1
		dropTopology(s)
	},
	prepareUpdate: func(s, old *discovery.EndpointSlice, _ string) {
		if !apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) {
			dropTopology(s)
		}
		if s.AddressType != old.AddressType || !apiequality.Semantic.DeepEqual(s.Endpoints, old.Endpoints) ||
			!apiequality.Semantic.DeepEqual(s.Ports, old.Ports) || !apiequality.Semantic.DeepEqual(s.Labels, old.Labels) {
			s.Generation = old.Generation + 1
		}
	},
	validate: discoveryvalidation.ValidateEndpointSliceCreate,
	validateUpdate: func(s, old *discovery.EndpointSlice, _ string) field.ErrorList {
		return discoveryvalidation.ValidateEndpointSliceUpdate(s, old)
	},
	warnings: sliceWarnings,
})

// dropTopology clears what v1 shows but does not take.
func dropTopology(s *discovery.EndpointSlice) {
	for i := range s.Endpoints {
		s.Endpoints[i].DeprecatedTopology = nil
	}
}

func sliceWarnings(s, old *discovery.EndpointSlice) []string {
	var out []string
	if old == nil && s.AddressType == discovery.AddressTypeFQDN {
		out = append(out, "spec.addressType: FQDN endpoints are deprecated")
	}
	if s.Labels[discoveryv1.LabelManagedBy] == "endpointslice-controller.k8s.io" {
		return out // our own controller writes no odd addresses
	}
	for i, e := range s.Endpoints {
		for j, a := range e.Addresses {
			out = append(out, validation.GetWarningsForIP(field.NewPath("endpoints").Index(i).Child("addresses").Index(j), a)...)
		}
	}
	return out
}

// IPAddresses are networking.k8s.io/v1 IP addresses: one object for each service address in use (KEP-1880).
var IPAddresses = declare(kind[networkingv1.IPAddress, networking.IPAddress, networkingv1.IPAddressList]{
	Resource: Resource{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("IPAddress"),
		Plural:           "ipaddresses", Singular: "ipaddress", ShortNames: []string{"ip"},
		Prefix: "ipaddresses",
	},
	validate: networkingvalidation.ValidateIPAddress,
	validateUpdate: func(ip, old *networking.IPAddress, _ string) field.ErrorList {
		return append(networkingvalidation.ValidateIPAddress(ip), networkingvalidation.ValidateIPAddressUpdate(ip, old)...)
	},
})

// ServiceCIDRs are networking.k8s.io/v1 ranges of service addresses (KEP-1880).
var ServiceCIDRs = declare(kind[networkingv1.ServiceCIDR, networking.ServiceCIDR, networkingv1.ServiceCIDRList]{
	Resource: Resource{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("ServiceCIDR"),
		Plural:           "servicecidrs", Singular: "servicecidr",
		Prefix: "servicecidrs", Status: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(c *networking.ServiceCIDR) { c.Status = networking.ServiceCIDRStatus{} },
	prepareUpdate: func(c, old *networking.ServiceCIDR, sub string) {
		if sub == "status" {
			c.Spec = old.Spec
			metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
			return
		}
		c.Status = old.Status
	},
	validate: networkingvalidation.ValidateServiceCIDR,
	validateUpdate: func(c, old *networking.ServiceCIDR, sub string) field.ErrorList {
		if sub == "status" {
			return networkingvalidation.ValidateServiceCIDRStatusUpdate(c, old)
		}
		return networkingvalidation.ValidateServiceCIDRUpdate(c, old)
	},
})

// Leases are coordination.k8s.io/v1 leases: heartbeats of nodes and of leaders.
var Leases = declare(kind[coordinationv1.Lease, coordination.Lease, coordinationv1.LeaseList]{
	Resource: Resource{
		GroupVersionKind: coordinationv1.SchemeGroupVersion.WithKind("Lease"),
		Plural:           "leases", Singular: "lease",
		Namespaced: true, Prefix: "leases", CreateOnUpdate: true, Conditional: true,
	},
	prepareCreate: func(l *coordination.Lease) { dropElection(l, nil) },
	prepareUpdate: func(l, old *coordination.Lease, _ string) { dropElection(l, old) },
	validate:      coordinationvalidation.ValidateLease,
	validateUpdate: func(l, old *coordination.Lease, _ string) field.ErrorList {
		return coordinationvalidation.ValidateLeaseUpdate(l, old)
	},
})

// dropElection clears the fields of coordinated leader election (KEP-4355) while that is off.
func dropElection(l, old *coordination.Lease) {
	if enabled(genericfeatures.CoordinatedLeaderElection) {
		return
	}
	if old == nil || old.Spec.Strategy == nil {
		l.Spec.Strategy = nil
	}
	if old == nil || old.Spec.PreferredHolder == nil {
		l.Spec.PreferredHolder = nil
	}
}
