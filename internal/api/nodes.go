//lint:file-ignore SA1019 Fields of removed features are cleared here, so they are named here.

package api

import (
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"k8s.io/kubernetes/pkg/features"
)

// Nodes are core/v1 nodes. Unlike other kinds they may be created with a status, by the agent that registers itself.
var Nodes = declare(kind[corev1.Node, core.Node, corev1.NodeList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Node"),
		Plural:           "nodes", Singular: "node", ShortNames: []string{"no"},
		Prefix: "minions", Status: true, // the name that nodes had before v1
		Subresources: []Subresource{
			{Name: "proxy", Kind: corev1.SchemeGroupVersion.WithKind("NodeProxyOptions"), Verbs: []string{"create", "delete", "get", "patch", "update"}, Open: true},
		},
	},
	prepareCreate: func(node *core.Node) { dropNodeFields(node, nil) },
	prepareUpdate: func(node, old *core.Node, sub string) {
		if sub == "status" {
			node.Spec = old.Spec
			if old.Status.Config == nil {
				node.Status.Config = nil
			}
			if !enabled(features.KubeletInUserNamespace) && old.Status.NodeInfo.RunningInUserNamespace == nil {
				node.Status.NodeInfo.RunningInUserNamespace = nil
			}
			return
		}
		node.Status = old.Status
		dropNodeFields(node, old)
	},
	validate: corevalidation.ValidateNode,
	validateUpdate: func(node, old *core.Node, sub string) field.ErrorList {
		if sub == "status" {
			return corevalidation.ValidateNodeUpdate(node, old)
		}
		return append(corevalidation.ValidateNode(node), corevalidation.ValidateNodeUpdate(node, old)...)
	},
	warnings: func(node, _ *core.Node) []string {
		var out []string
		if node.Spec.ConfigSource != nil {
			out = append(out, "spec.configSource: the feature is removed")
		}
		if node.Spec.DoNotUseExternalID != "" {
			out = append(out, "spec.externalID: this field is deprecated, and is unused by Kubernetes")
		}
		for i, cidr := range node.Spec.PodCIDRs {
			out = append(out, validation.GetWarningsForCIDR(field.NewPath("spec", "podCIDRs").Index(i), cidr)...)
		}
		return out
	},
	fields: func(node *corev1.Node) fields.Set {
		return fields.Set{"spec.unschedulable": strconv.FormatBool(node.Spec.Unschedulable)}
	},
	options: map[string]bool{
		string(features.InPlacePodVerticalScalingSchedulerPreemption): enabled(features.InPlacePodVerticalScalingSchedulerPreemption),
	},
})

// dropNodeFields clears fields of removed and of switched-off features, unless they are in use.
func dropNodeFields(node, old *core.Node) {
	if old == nil {
		node.Spec.ConfigSource, node.Status.Config = nil, nil
	} else if old.Spec.ConfigSource == nil {
		node.Spec.ConfigSource = nil
	}
	if !enabled(features.NodeDeclaredFeatures) && (old == nil || old.Status.DeclaredFeatures == nil) {
		node.Status.DeclaredFeatures = nil
	}
	if !enabled(features.InPlacePodVerticalScalingSchedulerPreemption) && (old == nil || old.Spec.PodPreemptionPolicy == nil) {
		node.Spec.PodPreemptionPolicy = nil
	}
}
