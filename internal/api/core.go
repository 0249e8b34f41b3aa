//lint:file-ignore SA1019 Endpoints are deprecated and served all the same, for old clients.

package api

import (
	"crypto/tls"
	"fmt"
	"maps"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// ConfigMaps are core/v1 config maps.
var ConfigMaps = declare(kind[corev1.ConfigMap, core.ConfigMap, corev1.ConfigMapList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ConfigMap"),
		Plural:           "configmaps", Singular: "configmap", ShortNames: []string{"cm"},
		Namespaced: true, Prefix: "configmaps",
	},
	validate: corevalidation.ValidateConfigMap,
	validateUpdate: func(obj, old *core.ConfigMap, _ string) field.ErrorList {
		return corevalidation.ValidateConfigMapUpdate(obj, old)
	},
})

// Secrets are core/v1 secrets.
var Secrets = declare(kind[corev1.Secret, core.Secret, corev1.SecretList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Secret"),
		Plural:           "secrets", Singular: "secret",
		Namespaced: true, Prefix: "secrets",
	},
	// stringData is write-only: it is folded into data as soon as the object is read from a request.
	defaults: func(secret *corev1.Secret) {
		if len(secret.StringData) == 0 {
			return
		}
		secret.Data = maps.Clone(secret.Data)
		if secret.Data == nil {
			secret.Data = make(map[string][]byte, len(secret.StringData))
		}
		for k, v := range secret.StringData {
			secret.Data[k] = []byte(v)
		}
		secret.StringData = nil
	},
	prepareUpdate: func(secret, old *core.Secret, _ string) {
		if secret.Type == "" {
			secret.Type = old.Type
		}
	},
	validate: corevalidation.ValidateSecret,
	validateUpdate: func(secret, old *core.Secret, _ string) field.ErrorList {
		return corevalidation.ValidateSecretUpdate(secret, old)
	},
	warnings: func(secret, _ *core.Secret) []string {
		if secret.Type != core.SecretTypeTLS {
			return nil
		}
		if _, err := tls.X509KeyPair(secret.Data[core.TLSCertKey], secret.Data[core.TLSPrivateKeyKey]); err != nil {
			return []string{err.Error()}
		}
		return nil
	},
	fields: func(secret *corev1.Secret) fields.Set { return fields.Set{"type": string(secret.Type)} },
})

// ServiceAccounts are core/v1 service accounts; their token subresource issues bound tokens.
var ServiceAccounts = declare(kind[corev1.ServiceAccount, core.ServiceAccount, corev1.ServiceAccountList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ServiceAccount"),
		Plural:           "serviceaccounts", Singular: "serviceaccount", ShortNames: []string{"sa"},
		Namespaced: true, Prefix: "serviceaccounts", AnswersDeleted: true,
		Subresources: []Subresource{
			{Name: "token", Kind: authenticationv1.SchemeGroupVersion.WithKind("TokenRequest"), Verbs: []string{"create"}},
		},
	},
	prepareCreate: bareSecretReferences,
	prepareUpdate: func(sa, _ *core.ServiceAccount, _ string) { bareSecretReferences(sa) },
	validate:      corevalidation.ValidateServiceAccount,
	validateUpdate: func(sa, old *core.ServiceAccount, _ string) field.ErrorList {
		return corevalidation.ValidateServiceAccountUpdate(sa, old)
	},
	warnings: func(sa, old *core.ServiceAccount) []string {
		const deprecated = "kubernetes.io/enforce-mountable-secrets"
		had := false
		if old != nil {
			_, had = old.Annotations[deprecated]
		}
		if _, ok := sa.Annotations[deprecated]; !ok || had {
			return nil
		}
		return []string{fmt.Sprintf("metadata.annotations[%s]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets", deprecated)}
	},
})

// bareSecretReferences keeps only the names: a service account's secrets are in its own namespace.
func bareSecretReferences(sa *core.ServiceAccount) {
	for i := range sa.Secrets {
		sa.Secrets[i] = core.ObjectReference{Name: sa.Secrets[i].Name}
	}
}

// Endpoints are core/v1 endpoints, superseded by EndpointSlices.
var Endpoints = declare(kind[corev1.Endpoints, core.Endpoints, corev1.EndpointsList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Endpoints"),
		Plural:           "endpoints", Singular: "endpoints", ShortNames: []string{"ep"},
		Namespaced: true, Prefix: "services/endpoints", CreateOnUpdate: true,
	},
	validate: corevalidation.ValidateEndpointsCreate,
	validateUpdate: func(obj, old *core.Endpoints, _ string) field.ErrorList {
		return corevalidation.ValidateEndpointsUpdate(obj, old)
	},
	warnings: func(obj, _ *core.Endpoints) []string {
		var out []string
		for i, s := range obj.Subsets {
			path := field.NewPath("subsets").Index(i)
			for j, a := range s.Addresses {
				out = append(out, validation.GetWarningsForIP(path.Child("addresses").Index(j).Child("ip"), a.IP)...)
			}
			for j, a := range s.NotReadyAddresses {
				out = append(out, validation.GetWarningsForIP(path.Child("notReadyAddresses").Index(j).Child("ip"), a.IP)...)
			}
		}
		return out
	},
})

// Events are core/v1 events, served as events.k8s.io/v1 too.
var Events = declare(kind[corev1.Event, core.Event, corev1.EventList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("Event"),
		Plural:           "events", Singular: "event", ShortNames: []string{"ev"},
		Namespaced: true, Prefix: "events", CreateOnUpdate: true, History: 1024,
		Versions: []schema.GroupVersion{eventsv1.SchemeGroupVersion},
	},
	validate: func(ev *core.Event) field.ErrorList {
		return corevalidation.ValidateEventCreate(ev, corev1.SchemeGroupVersion)
	},
	validateUpdate: func(ev, old *core.Event, _ string) field.ErrorList {
		return corevalidation.ValidateEventUpdate(ev, old, corev1.SchemeGroupVersion)
	},
	fields: eventFields,
})

func eventFields(ev *corev1.Event) fields.Set {
	source := ev.Source.Component
	if source == "" {
		source = ev.ReportingController
	}
	return fields.Set{
		"involvedObject.kind":            ev.InvolvedObject.Kind,
		"involvedObject.namespace":       ev.InvolvedObject.Namespace,
		"involvedObject.name":            ev.InvolvedObject.Name,
		"involvedObject.uid":             string(ev.InvolvedObject.UID),
		"involvedObject.apiVersion":      ev.InvolvedObject.APIVersion,
		"involvedObject.resourceVersion": ev.InvolvedObject.ResourceVersion,
		"involvedObject.fieldPath":       ev.InvolvedObject.FieldPath,
		"reason":                         ev.Reason,
		"reportingComponent":             ev.ReportingController,
		"source":                         source,
		"type":                           ev.Type,
	}
}
