package api

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"
	networkingv1beta1 "k8s.io/api/networking/v1beta1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/networking"
	networkingvalidation "k8s.io/kubernetes/pkg/apis/networking/validation"
)

// Ingresses are networking.k8s.io/v1 ingresses. A controller of the user's choice carries them out.
var Ingresses = declare(kind[networkingv1.Ingress, networking.Ingress, networkingv1.IngressList]{
	Resource: Resource{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("Ingress"),
		Plural:           "ingresses", Singular: "ingress", ShortNames: []string{"ing"},
		Namespaced: true, Prefix: "ingress", Status: true,
	},
	prepareCreate: func(i *networking.Ingress) {
		i.Status = networking.IngressStatus{}
		i.Generation = 1
	},
	prepareUpdate: func(i, old *networking.Ingress, sub string) {
		if sub == "status" {
			i.Spec = old.Spec
			return
		}
		i.Status = old.Status
		if !apiequality.Semantic.DeepEqual(i.Spec, old.Spec) {
			i.Generation = old.Generation + 1
		}
	},
	validate: networkingvalidation.ValidateIngressCreate,
	validateUpdate: func(i, old *networking.Ingress, sub string) field.ErrorList {
		if sub == "status" {
			return networkingvalidation.ValidateIngressStatusUpdate(i, old)
		}
		return networkingvalidation.ValidateIngressUpdate(i, old)
	},
	warnings:       ingressWarnings,
	statusWarnings: ingressStatusWarnings,
})

func ingressWarnings(i, old *networking.Ingress) []string {
	const class = networkingv1beta1.AnnotationIngressClass
	if _, annotated := i.Annotations[class]; old != nil || !annotated || i.Spec.IngressClassName != nil {
		return nil
	}
	return []string{fmt.Sprintf("annotation %q is deprecated, please use 'spec.ingressClassName' instead", class)}
}

func ingressStatusWarnings(i, _ *networking.Ingress) []string {
	var out []string
	at := field.NewPath("status", "loadBalancer", "ingress")
	for n, point := range i.Status.LoadBalancer.Ingress {
		if point.IP != "" {
			out = append(out, validation.GetWarningsForIP(at.Index(n), point.IP)...)
		}
	}
	return out
}

// IngressClasses are networking.k8s.io/v1 ingress classes: each names the controller that carries out its ingresses.
var IngressClasses = declare(kind[networkingv1.IngressClass, networking.IngressClass, networkingv1.IngressClassList]{
	Resource: Resource{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("IngressClass"),
		Plural:           "ingressclasses", Singular: "ingressclass",
		Prefix: "ingressclasses",
	},
	prepareCreate: func(c *networking.IngressClass) { c.Generation = 1 },
	prepareUpdate: func(c, old *networking.IngressClass, _ string) {
		if !apiequality.Semantic.DeepEqual(c.Spec, old.Spec) {
			c.Generation = old.Generation + 1
		}
	},
	validate: networkingvalidation.ValidateIngressClass,
	validateUpdate: func(c, old *networking.IngressClass, _ string) field.ErrorList {
		return networkingvalidation.ValidateIngressClassUpdate(c, old)
	},
})

// NetworkPolicies are networking.k8s.io/v1 network policies.
var NetworkPolicies = declare(kind[networkingv1.NetworkPolicy, networking.NetworkPolicy, networkingv1.NetworkPolicyList]{
	Resource: Resource{
		GroupVersionKind: networkingv1.SchemeGroupVersion.WithKind("NetworkPolicy"),
		Plural:           "networkpolicies", Singular: "networkpolicy", ShortNames: []string{"netpol"},
		Namespaced: true, Prefix: "networkpolicies",
	},
	prepareCreate: func(p *networking.NetworkPolicy) { p.Generation = 1 },
	prepareUpdate: func(p, old *networking.NetworkPolicy, _ string) {
		if !apiequality.Semantic.DeepEqual(p.Spec, old.Spec) {
			p.Generation = old.Generation + 1
		}
	},
	validate: func(p *networking.NetworkPolicy) field.ErrorList {
		return networkingvalidation.ValidateNetworkPolicy(p, networkingvalidation.ValidationOptionsForNetworking(p, nil))
	},
	validateUpdate: func(p, old *networking.NetworkPolicy, _ string) field.ErrorList {
		return networkingvalidation.ValidateNetworkPolicyUpdate(p, old, networkingvalidation.ValidationOptionsForNetworking(p, old))
	},
	warnings: networkPolicyWarnings,
})

// networkPolicyWarnings warns of odd ranges as Kubernetes does.
func networkPolicyWarnings(p, _ *networking.NetworkPolicy) []string {
	var out []string
	spec := field.NewPath("spec")
	for i, rule := range p.Spec.Ingress {
		out = append(out, peerWarnings(rule.From, spec.Child("ingress").Index(i).Child("from"))...)
	}
	for i, rule := range p.Spec.Egress {
		out = append(out, peerWarnings(rule.To, spec.Child("egress").Index(i).Child("to"))...)
	}
	return out
}

func peerWarnings(peers []networking.NetworkPolicyPeer, at *field.Path) []string {
	var out []string
	for i, peer := range peers {
		if peer.IPBlock == nil {
			continue
		}
		block := at.Index(i).Child("ipBlock")
		out = append(out, validation.GetWarningsForCIDR(block.Child("cidr"), peer.IPBlock.CIDR)...)
		for j, except := range peer.IPBlock.Except {
			out = append(out, validation.GetWarningsForCIDR(block.Child("except").Index(j), except)...)
		}
	}
	return out
}
