package api

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// Namespaces are core/v1 namespaces. spec.finalizers is written by the finalize subresource only; a namespace begins
// with Kubernetes' own, which its controller takes off when the namespace is empty.
var Namespaces = declare(kind[corev1.Namespace, core.Namespace, corev1.NamespaceList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Namespace"),
		Plural:           "namespaces", Singular: "namespace", ShortNames: []string{"ns"},
		Prefix: "namespaces", Status: true, AnswersDeleted: true,
		ResetFields: map[string]fieldpath.Filter{"finalize": without("status")},
		BeginDeletion: func(obj Object) bool {
			ns := obj.(*corev1.Namespace)
			ns.Status.Phase = corev1.NamespaceTerminating
			return len(ns.Spec.Finalizers) > 0
		},
		// No deletecollection, in Kubernetes neither.
		Verbs: []string{"create", "delete", "get", "list", "patch", "update", "watch"},
		Subresources: []Subresource{
			{Name: "finalize", Kind: corev1.SchemeGroupVersion.WithKind("Namespace"), Verbs: []string{"update"}},
		},
	},
	prepareCreate: func(ns *core.Namespace) {
		ns.Status = core.NamespaceStatus{Phase: core.NamespaceActive}
		if !slices.Contains(ns.Spec.Finalizers, core.FinalizerKubernetes) {
			ns.Spec.Finalizers = append(slices.Clip(ns.Spec.Finalizers), core.FinalizerKubernetes)
		}
		labelNamespace(ns)
	},
	prepareUpdate: func(ns, old *core.Namespace, sub string) {
		switch sub {
		case "status":
			ns.Spec = old.Spec
		case "finalize":
			ns.Status = old.Status
		default:
			ns.Spec.Finalizers, ns.Status = old.Spec.Finalizers, old.Status
		}
		labelNamespace(ns)
	},
	validate: corevalidation.ValidateNamespace,
	validateUpdate: func(ns, old *core.Namespace, sub string) field.ErrorList {
		switch sub {
		case "status":
			return corevalidation.ValidateNamespaceStatusUpdate(ns, old)
		case "finalize":
			return corevalidation.ValidateNamespaceFinalizeUpdate(ns, old)
		}
		return append(corevalidation.ValidateNamespace(ns), corevalidation.ValidateNamespaceUpdate(ns, old)...)
	},
	fields: func(ns *corev1.Namespace) fields.Set {
		return fields.Set{"status.phase": string(ns.Status.Phase)}
	},
})

// labelNamespace sets the label by which selectors choose a namespace by name. The default does so too, but where the
// name is generated it runs before there is one.
func labelNamespace(ns *core.Namespace) {
	if ns.Name == "" || ns.Labels[corev1.LabelMetadataName] == ns.Name {
		return
	}
	if ns.Labels == nil {
		ns.Labels = map[string]string{}
	}
	ns.Labels[corev1.LabelMetadataName] = ns.Name
}
