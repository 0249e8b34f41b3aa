package api

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesvalidation "k8s.io/kubernetes/pkg/apis/certificates/validation"
	"k8s.io/utils/clock"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// PodCertificateRequests are certificates.k8s.io/v1 requests by which nodes ask for certificates for their pods (KEP-4317). Signers answer
// through status; admission lets only those do so who may sign.
var PodCertificateRequests = declare(kind[certificatesv1.PodCertificateRequest, certificates.PodCertificateRequest, certificatesv1.PodCertificateRequestList]{
	Resource: Resource{
		GroupVersionKind: certificatesv1.SchemeGroupVersion.WithKind("PodCertificateRequest"),
		Plural:           "podcertificaterequests", Singular: "podcertificaterequest",
		Namespaced: true, Prefix: "podcertificaterequests", Status: true, Conditional: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
		Indexes:     map[string]func(Object) []string{IndexNode: nodeOfRequest},
	},
	prepareCreate: func(r *certificates.PodCertificateRequest) {
		r.Status = certificates.PodCertificateRequestStatus{}
	},
	prepareUpdate: func(r, old *certificates.PodCertificateRequest, sub string) {
		if sub != "status" {
			r.Status = old.Status
			return
		}
		r.Spec = old.Spec
		metav1.ResetObjectMetaForStatus(&r.ObjectMeta, &old.ObjectMeta)
	},
	validate: certificatesvalidation.ValidatePodCertificateRequestCreate,
	validateUpdate: func(r, old *certificates.PodCertificateRequest, sub string) field.ErrorList {
		if sub == "status" {
			return certificatesvalidation.ValidatePodCertificateRequestStatusUpdate(r, old, clock.RealClock{})
		}
		return certificatesvalidation.ValidatePodCertificateRequestUpdate(r, old)
	},
	fields: func(r *certificatesv1.PodCertificateRequest) fields.Set {
		return fields.Set{"spec.signerName": r.Spec.SignerName, "spec.podName": r.Spec.PodName, "spec.nodeName": string(r.Spec.NodeName)}
	},
})

// nodeOfRequest is IndexNode of PodCertificateRequests.
func nodeOfRequest(obj Object) []string {
	return []string{string(obj.(*certificatesv1.PodCertificateRequest).Spec.NodeName)}
}
