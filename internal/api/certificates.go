package api

import (
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesvalidation "k8s.io/kubernetes/pkg/apis/certificates/validation"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// CertificateSigningRequests are certificates.k8s.io/v1 certificate signing requests. Who asked is written into spec by
// admission, which knows the user; status.conditions are written through approval, status.certificate through status.
var CertificateSigningRequests = declare(kind[certificatesv1.CertificateSigningRequest, certificates.CertificateSigningRequest, certificatesv1.CertificateSigningRequestList]{
	Resource: Resource{
		GroupVersionKind: certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"),
		Plural:           "certificatesigningrequests", Singular: "certificatesigningrequest", ShortNames: []string{"csr"},
		Prefix: "certificatesigningrequests", Status: true,
		ResetFields: map[string]fieldpath.Filter{
			"":         without("spec", "status"),
			"status":   without("spec", "status.conditions"),
			"approval": without("spec", "status.certificate"),
		},
		Subresources: []Subresource{{
			Name: "approval", Kind: certificatesv1.SchemeGroupVersion.WithKind("CertificateSigningRequest"),
			Verbs: []string{"get", "patch", "update"},
		}},
	},
	prepareCreate: func(r *certificates.CertificateSigningRequest) {
		r.Status = certificates.CertificateSigningRequestStatus{}
	},
	prepareUpdate: func(r, old *certificates.CertificateSigningRequest, sub string) {
		r.Spec = old.Spec // a request never changes
		switch sub {
		case "status":
			keepDecision(r, old)
			stampConditions(r, old, metav1.Now())
		case "approval":
			conditions := r.Status.Conditions
			r.Status = old.Status
			r.Status.Conditions = conditions
			stampConditions(r, old, metav1.Now())
		default:
			r.Status = old.Status
		}
	},
	validate: certificatesvalidation.ValidateCertificateSigningRequestCreate,
	validateUpdate: func(r, old *certificates.CertificateSigningRequest, sub string) field.ErrorList {
		switch sub {
		case "status":
			return certificatesvalidation.ValidateCertificateSigningRequestStatusUpdate(r, old)
		case "approval":
			return certificatesvalidation.ValidateCertificateSigningRequestApprovalUpdate(r, old)
		}
		return certificatesvalidation.ValidateCertificateSigningRequestUpdate(r, old)
	},
	fields: func(r *certificatesv1.CertificateSigningRequest) fields.Set {
		return fields.Set{"spec.signerName": r.Spec.SignerName}
	},
})

// keepDecision restores the Approved and Denied conditions, which belong to the approval subresource. A write of status that
// adds or removes one is left as it is, for validation to refuse.
func keepDecision(r, old *certificates.CertificateSigningRequest) {
	for _, t := range []certificates.RequestConditionType{certificates.CertificateApproved, certificates.CertificateDenied} {
		var have, had []int
		for i := range r.Status.Conditions {
			if r.Status.Conditions[i].Type == t {
				have = append(have, i)
			}
		}
		for i := range old.Status.Conditions {
			if old.Status.Conditions[i].Type == t {
				had = append(had, i)
			}
		}
		if len(have) != len(had) {
			continue
		}
		conditions := append([]certificates.CertificateSigningRequestCondition(nil), r.Status.Conditions...)
		for i, at := range have {
			conditions[at] = old.Status.Conditions[had[i]]
		}
		r.Status.Conditions = conditions
	}
}

// stampConditions fills in the times that the writer of conditions left out.
func stampConditions(r, old *certificates.CertificateSigningRequest, now metav1.Time) {
	now = metav1.NewTime(now.Truncate(time.Second))
	conditions := append([]certificates.CertificateSigningRequestCondition(nil), r.Status.Conditions...)
	for i := range conditions {
		c := &conditions[i]
		if c.LastUpdateTime.IsZero() {
			c.LastUpdateTime = now
		}
		if !c.LastTransitionTime.IsZero() {
			continue
		}
		c.LastTransitionTime = now
		for _, o := range old.Status.Conditions {
			if o.Type == c.Type && o.Status == c.Status && !o.LastTransitionTime.IsZero() {
				c.LastTransitionTime = o.LastTransitionTime
			}
		}
	}
	r.Status.Conditions = conditions
}
