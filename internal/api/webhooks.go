package api

import (
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/admissionregistration"
	"k8s.io/kubernetes/pkg/apis/admissionregistration/validation"
	"k8s.io/kubernetes/pkg/kubeapiserver/admission/exclusion"
)

// ValidatingWebhookConfigurations are admissionregistration.k8s.io/v1 configurations of webhooks that may refuse writes. They are carried out by
// server/admission/webhook.
var ValidatingWebhookConfigurations = declare(kind[
	admissionregistrationv1.ValidatingWebhookConfiguration, admissionregistration.ValidatingWebhookConfiguration,
	admissionregistrationv1.ValidatingWebhookConfigurationList,
]{
	Resource: Resource{
		GroupVersionKind: admissionregistrationv1.SchemeGroupVersion.WithKind("ValidatingWebhookConfiguration"),
		Plural:           "validatingwebhookconfigurations", Singular: "validatingwebhookconfiguration", Categories: []string{"api-extensions"},
		Prefix: "validatingwebhookconfigurations", Conditional: true,
	},
	prepareCreate: func(c *admissionregistration.ValidatingWebhookConfiguration) { c.Generation = 1 },
	prepareUpdate: func(c, old *admissionregistration.ValidatingWebhookConfiguration, _ string) {
		if !apiequality.Semantic.DeepEqual(c.Webhooks, old.Webhooks) {
			c.Generation = old.Generation + 1
		}
	},
	validate: func(c *admissionregistration.ValidatingWebhookConfiguration) field.ErrorList {
		return append(validation.ValidateValidatingWebhookConfiguration(c), fileNameErrors(c.Name)...)
	},
	validateUpdate: func(c, old *admissionregistration.ValidatingWebhookConfiguration, _ string) field.ErrorList {
		return validation.ValidateValidatingWebhookConfigurationUpdate(c, old)
	},
	warnings: func(c, old *admissionregistration.ValidatingWebhookConfiguration) []string {
		return append(fileNameWarnings(c.Name, old != nil), validation.WarningsForValidatingWebhookRules(c.Webhooks, exclusion.Excluded())...)
	},
})

// MutatingWebhookConfigurations are admissionregistration.k8s.io/v1 configurations of webhooks that may change what is written.
var MutatingWebhookConfigurations = declare(kind[
	admissionregistrationv1.MutatingWebhookConfiguration, admissionregistration.MutatingWebhookConfiguration,
	admissionregistrationv1.MutatingWebhookConfigurationList,
]{
	Resource: Resource{
		GroupVersionKind: admissionregistrationv1.SchemeGroupVersion.WithKind("MutatingWebhookConfiguration"),
		Plural:           "mutatingwebhookconfigurations", Singular: "mutatingwebhookconfiguration", Categories: []string{"api-extensions"},
		Prefix: "mutatingwebhookconfigurations", Conditional: true,
	},
	prepareCreate: func(c *admissionregistration.MutatingWebhookConfiguration) { c.Generation = 1 },
	prepareUpdate: func(c, old *admissionregistration.MutatingWebhookConfiguration, _ string) {
		if !apiequality.Semantic.DeepEqual(c.Webhooks, old.Webhooks) {
			c.Generation = old.Generation + 1
		}
	},
	validate: func(c *admissionregistration.MutatingWebhookConfiguration) field.ErrorList {
		return append(validation.ValidateMutatingWebhookConfiguration(c), fileNameErrors(c.Name)...)
	},
	validateUpdate: func(c, old *admissionregistration.MutatingWebhookConfiguration, _ string) field.ErrorList {
		return validation.ValidateMutatingWebhookConfigurationUpdate(c, old)
	},
	warnings: func(c, old *admissionregistration.MutatingWebhookConfiguration) []string {
		return append(fileNameWarnings(c.Name, old != nil), validation.WarningsForMutatingWebhookRules(c.Webhooks, exclusion.Excluded())...)
	},
})

// fileNameErrors refuses new objects with the names that are kept for what comes from files (KEP-5793).
func fileNameErrors(name string) field.ErrorList {
	return validation.ValidateStaticSuffix(name, field.NewPath("metadata", "name"))
}

// fileNameWarnings warns of such a name where the object has been there for longer than the rule.
func fileNameWarnings(name string, exists bool) []string {
	if !exists {
		return nil
	}
	return validation.WarningsForStaticSuffix(name)
}
