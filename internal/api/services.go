package api

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	serviceapi "k8s.io/kubernetes/pkg/api/service"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/utils/ptr"
)

// Services are core/v1 services. Addresses and ports are allocated by admission, before an object is validated here.
var Services = declare(kind[corev1.Service, core.Service, corev1.ServiceList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Service"),
		Plural:           "services", Singular: "service", ShortNames: []string{"svc"}, Categories: []string{"all"},
		Namespaced: true, Prefix: "services/specs", Status: true, CreateOnUpdate: true, AnswersDeleted: true,
		Indexes: map[string]func(Object) []string{IndexNodePort: func(o Object) []string { return NodePorts(o.(*corev1.Service)) }},
		Subresources: []Subresource{
			{Name: "proxy", Kind: corev1.SchemeGroupVersion.WithKind("ServiceProxyOptions"), Verbs: []string{"create", "delete", "get", "patch", "update"}, Open: true},
		},
	},
	prepareCreate: func(svc *core.Service) {
		svc.Status = core.ServiceStatus{}
		if svc.Spec.ClusterIP != "" && len(svc.Spec.ClusterIPs) == 0 {
			svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
		}
	},
	prepareUpdate: func(svc, old *core.Service, sub string) {
		if sub == "status" {
			svc.Spec = old.Spec
			return
		}
		svc.Status = old.Status
		keepServiceAllocations(svc, old)
		dropForType(svc, old)
	},
	validate: corevalidation.ValidateServiceCreate,
	validateUpdate: func(svc, old *core.Service, sub string) field.ErrorList {
		if sub == "status" {
			return corevalidation.ValidateServiceStatusUpdate(svc, old)
		}
		return corevalidation.ValidateServiceUpdate(svc, old)
	},
	warnings: serviceWarnings,
	fields: func(svc *corev1.Service) fields.Set {
		return fields.Set{"spec.clusterIP": svc.Spec.ClusterIP, "spec.type": string(svc.Spec.Type)}
	},
})

// KeepServiceAllocations gives svc the cluster addresses and node ports that old has, where the client left them out. The
// allocator calls it before it allocates for an update; PrepareForUpdate does so again.
func KeepServiceAllocations(svc, old *corev1.Service) {
	in := toInternal[core.Service](svc)
	keepServiceAllocations(in, toInternal[core.Service](old))
	fromInternal[corev1.Service, core.Service](in, svc)
}

func serviceWarnings(svc, old *core.Service) []string {
	out := serviceapi.GetWarningsForService(svc, old)
	for i, in := range svc.Status.LoadBalancer.Ingress {
		if in.IP != "" {
			out = append(out, validation.GetWarningsForIP(field.NewPath("status", "loadBalancer", "ingress").Index(i), in.IP)...)
		}
	}
	return out
}

// keepServiceAllocations lets a client update a service from a manifest that has no allocated values. Node ports are
// matched by port name, and never given twice.
func keepServiceAllocations(svc, old *core.Service) {
	spec, was := &svc.Spec, &old.Spec
	if usesClusterIP(svc) && usesClusterIP(old) {
		if spec.ClusterIP == "" {
			spec.ClusterIP = was.ClusterIP
		}
		if len(spec.ClusterIPs) == 0 {
			spec.ClusterIPs = was.ClusterIPs
		}
	}
	if isGivenNodePorts(svc) && isGivenNodePorts(old) {
		taken := map[int32]bool{}
		for _, p := range spec.Ports {
			taken[p.NodePort] = true
		}
		byName := map[string]int32{}
		for _, p := range was.Ports {
			byName[p.Name] = p.NodePort
		}
		for i := range spec.Ports {
			if p := &spec.Ports[i]; p.NodePort == 0 && !taken[byName[p.Name]] {
				p.NodePort = byName[p.Name]
			}
		}
	}
	if usesHealthPort(svc) && usesHealthPort(old) && spec.HealthCheckNodePort == 0 {
		spec.HealthCheckNodePort = was.HealthCheckNodePort
	}
	syncClusterIPs(spec, was)
}

// syncClusterIPs guesses what a client meant who changed clusterIP and not clusterIPs, because it does not know the
// plural (KEP-563). What makes no sense is left for validation.
func syncClusterIPs(spec, was *core.ServiceSpec) {
	if len(was.ClusterIPs) > 0 && len(spec.ClusterIPs) == 0 && was.ClusterIP == spec.ClusterIP {
		spec.ClusterIPs = was.ClusterIPs
	}
	if was.ClusterIP == spec.ClusterIP || !slices.Equal(was.ClusterIPs, spec.ClusterIPs) {
		return
	}
	if was.ClusterIP != "" && spec.ClusterIP == "" {
		spec.ClusterIPs = nil
	} else {
		spec.ClusterIPs = []string{spec.ClusterIP}
	}
}

// dropForType clears what an old type needed and the new one does not, as far as the client left it as it was.
func dropForType(svc, old *core.Service) {
	spec, was := &svc.Spec, &old.Spec
	if usesClusterIP(old) && !usesClusterIP(svc) {
		if spec.ClusterIP == was.ClusterIP && slices.Equal(spec.ClusterIPs, was.ClusterIPs) {
			spec.ClusterIP, spec.ClusterIPs = "", nil
		}
		if slices.Equal(spec.IPFamilies, was.IPFamilies) {
			spec.IPFamilies = nil
		}
		if ptr.Equal(spec.IPFamilyPolicy, was.IPFamilyPolicy) {
			spec.IPFamilyPolicy = nil
		}
	}
	if usesNodePorts(old) && !usesNodePorts(svc) && !addsNodePort(spec, was) {
		for i := range spec.Ports {
			spec.Ports[i].NodePort = 0
		}
	}
	if usesHealthPort(old) && !usesHealthPort(svc) && spec.HealthCheckNodePort == was.HealthCheckNodePort {
		spec.HealthCheckNodePort = 0
	}
	if was.Type == core.ServiceTypeLoadBalancer && spec.Type != core.ServiceTypeLoadBalancer {
		if was.AllocateLoadBalancerNodePorts != nil && ptr.Equal(spec.AllocateLoadBalancerNodePorts, was.AllocateLoadBalancerNodePorts) {
			spec.AllocateLoadBalancerNodePorts = nil
		}
		if ptr.Equal(spec.LoadBalancerClass, was.LoadBalancerClass) {
			spec.LoadBalancerClass = nil
		}
	}
	if serviceapi.ExternallyAccessible(old) && !serviceapi.ExternallyAccessible(svc) && spec.ExternalTrafficPolicy == was.ExternalTrafficPolicy {
		spec.ExternalTrafficPolicy = ""
	}
	if spec.Type != core.ServiceTypeLoadBalancer {
		svc.Status.LoadBalancer = core.LoadBalancerStatus{}
	}
}

func usesClusterIP(svc *core.Service) bool { return svc.Spec.Type != core.ServiceTypeExternalName }

// isGivenNodePorts tells a service that gets node ports without asking for them: one that asked for a load balancer without them
// (KEP-1864) gives up those that it leaves out.
func isGivenNodePorts(svc *core.Service) bool {
	asked := svc.Spec.AllocateLoadBalancerNodePorts
	return usesNodePorts(svc) && (svc.Spec.Type == core.ServiceTypeNodePort || asked == nil || *asked)
}

func usesNodePorts(svc *core.Service) bool {
	return svc.Spec.Type == core.ServiceTypeNodePort || svc.Spec.Type == core.ServiceTypeLoadBalancer
}

func usesHealthPort(svc *core.Service) bool {
	return svc.Spec.Type == core.ServiceTypeLoadBalancer && svc.Spec.ExternalTrafficPolicy == core.ServiceExternalTrafficPolicyLocal
}

func addsNodePort(spec, was *core.ServiceSpec) bool {
	had := map[int32]bool{0: true}
	for _, p := range was.Ports {
		had[p.NodePort] = true
	}
	return slices.ContainsFunc(spec.Ports, func(p core.ServicePort) bool { return !had[p.NodePort] })
}
