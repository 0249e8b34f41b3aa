package api

import (
	certificatesv1 "k8s.io/api/certificates/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/certificates"
	certificatesvalidation "k8s.io/kubernetes/pkg/apis/certificates/validation"
)

// ClusterTrustBundles are certificates.k8s.io/v1 bundles of certificate authorities, which projected volumes bring to pods (KEP-3257).
// Admission lets only those write a signer's bundle who may attest for it.
var ClusterTrustBundles = declare(kind[certificatesv1.ClusterTrustBundle, certificates.ClusterTrustBundle, certificatesv1.ClusterTrustBundleList]{
	Resource: Resource{
		GroupVersionKind: certificatesv1.SchemeGroupVersion.WithKind("ClusterTrustBundle"),
		Plural:           "clustertrustbundles", Singular: "clustertrustbundle",
		Prefix: "clustertrustbundles", Conditional: true,
	},
	validate: func(b *certificates.ClusterTrustBundle) field.ErrorList {
		return certificatesvalidation.ValidateClusterTrustBundle(b, certificatesvalidation.ValidateClusterTrustBundleOptions{})
	},
	validateUpdate: func(b, old *certificates.ClusterTrustBundle, _ string) field.ErrorList {
		return certificatesvalidation.ValidateClusterTrustBundleUpdate(b, old)
	},
	fields: func(b *certificatesv1.ClusterTrustBundle) fields.Set {
		return fields.Set{"spec.signerName": b.Spec.SignerName}
	},
})
