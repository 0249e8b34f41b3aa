package api

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/core"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// ResourceQuotas are core/v1 resource quotas.
var ResourceQuotas = declare(kind[corev1.ResourceQuota, core.ResourceQuota, corev1.ResourceQuotaList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("ResourceQuota"),
		Plural:           "resourcequotas", Singular: "resourcequota", ShortNames: []string{"quota"},
		Namespaced: true, Prefix: "resourcequotas", Status: true, AnswersDeleted: true,
	},
	prepareCreate: func(q *core.ResourceQuota) { q.Status = core.ResourceQuotaStatus{} },
	prepareUpdate: func(q, old *core.ResourceQuota, sub string) {
		if sub == "status" {
			q.Spec = old.Spec
		} else {
			q.Status = old.Status
		}
	},
	validate: corevalidation.ValidateResourceQuota,
	validateUpdate: func(q, old *core.ResourceQuota, sub string) field.ErrorList {
		if sub == "status" {
			return corevalidation.ValidateResourceQuotaStatusUpdate(q, old)
		}
		return corevalidation.ValidateResourceQuotaUpdate(q, old)
	},
	warnings: func(q, old *core.ResourceQuota) []string {
		if old != nil {
			return nil
		}
		return quotaWarnings(q)
	},
})

// quotaWarnings tells of requests that are allowed more than limits are.
func quotaWarnings(q *core.ResourceQuota) []string {
	var out []string
	for _, name := range []core.ResourceName{core.ResourceCPU, core.ResourceMemory, core.ResourceStorage, core.ResourceEphemeralStorage} {
		requestName, limitName := "requests."+name, "limits."+name
		request, ok := q.Spec.Hard[requestName]
		if !ok && (name == core.ResourceCPU || name == core.ResourceMemory) {
			requestName = name
			request, ok = q.Spec.Hard[name]
		}
		if limit, limited := q.Spec.Hard[limitName]; ok && limited && request.Cmp(limit) > 0 {
			out = append(out, fmt.Sprintf("ResourceQuota %s (%s) should be less than %s (%s)", requestName, request.String(), limitName, limit.String()))
		}
	}
	return out
}

// LimitRanges are core/v1 limit ranges.
var LimitRanges = declare(kind[corev1.LimitRange, core.LimitRange, corev1.LimitRangeList]{
	Resource: Resource{
		GroupVersionKind: corev1.SchemeGroupVersion.WithKind("LimitRange"),
		Plural:           "limitranges", Singular: "limitrange", ShortNames: []string{"limits"},
		Namespaced: true, Prefix: "limitranges", CreateOnUpdate: true,
	},
	prepareCreate: func(l *core.LimitRange) {
		if l.Name == "" {
			l.Name = string(uuid.NewUUID())
		}
	},
	validate:       corevalidation.ValidateLimitRange,
	validateUpdate: func(l, _ *core.LimitRange, _ string) field.ErrorList { return corevalidation.ValidateLimitRange(l) },
})
