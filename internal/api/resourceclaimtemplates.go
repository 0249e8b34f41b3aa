package api

import (
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/resource"
	resourcevalidation "k8s.io/kubernetes/pkg/apis/resource/validation"
)

// ResourceClaimTemplates are resource.k8s.io/v1 templates of the claims that are made for each pod which names one (KEP-4381).
var ResourceClaimTemplates = declare(kind[resourcev1.ResourceClaimTemplate, resource.ResourceClaimTemplate, resourcev1.ResourceClaimTemplateList]{
	Resource: Resource{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("ResourceClaimTemplate"),
		Plural:           "resourceclaimtemplates", Singular: "resourceclaimtemplate",
		Namespaced: true, Prefix: "resourceclaimtemplates", AnswersDeleted: true,
	},
	prepareCreate: func(t *resource.ResourceClaimTemplate) { t.Spec.Spec = droppedClaimFields(&t.Spec.Spec, nil) },
	prepareUpdate: func(t, old *resource.ResourceClaimTemplate, _ string) {
		t.Spec.Spec = droppedClaimFields(&t.Spec.Spec, &old.Spec.Spec)
	},
	validate: resourcevalidation.ValidateResourceClaimTemplate,
	validateUpdate: func(t, old *resource.ResourceClaimTemplate, _ string) field.ErrorList {
		return append(resourcevalidation.ValidateResourceClaimTemplate(t), resourcevalidation.ValidateResourceClaimTemplateUpdate(t, old)...)
	},
	normalize: resourcevalidation.ResourceNormalizationRules,
})
