package plugins

import (
	"crypto/x509"
	"encoding/pem"
	"slices"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/server/admission"
)

// restrictClaim lets a node say of a claim only what resizing its file system is about (KEP-284, KEP-1790).
func restrictClaim(a *admission.Attributes, node string) error {
	if a.Subresource != "status" {
		return forbidden(a, "may only update PVC status")
	}
	if a.Operation != admission.Update {
		return forbidden(a, "unexpected operation %q", a.Operation)
	}
	if !equality.Semantic.DeepEqual(withoutResize(a.Old.(*corev1.PersistentVolumeClaim)), withoutResize(a.Object.(*corev1.PersistentVolumeClaim))) {
		return forbidden(a, "node %q is not allowed to update fields other than status.quantity and status.conditions", node)
	}
	return nil
}

// restrictVolume lets a node say of a volume that it has made its directory, and of one that is being deleted that it has removed it, and
// nothing else.
func restrictVolume(a *admission.Attributes, node string) error {
	if a.Operation != admission.Update || a.Subresource != "" {
		return forbidden(a, "unexpected operation %q", a.Operation)
	}
	old, pv := a.Old.(*corev1.PersistentVolume), a.Object.(*corev1.PersistentVolume).DeepCopy()
	if made := pv.Annotations[localvolume.MadeAnnotation]; made != "" && !localvolume.Made(old) && slices.Equal(pv.Finalizers, old.Finalizers) {
		if delete(pv.Annotations, localvolume.MadeAnnotation); len(pv.Annotations) == 0 {
			pv.Annotations = old.Annotations
		}
	} else {
		own := func(f string) bool { return f == localvolume.Finalizer }
		if old.DeletionTimestamp == nil || !slices.Equal(pv.Finalizers, slices.DeleteFunc(slices.Clone(old.Finalizers), own)) {
			return forbidden(a, "node %q may only take finalizer %s from a volume that is being deleted", node, localvolume.Finalizer)
		}
	}
	pv.ResourceVersion, pv.ManagedFields, pv.Finalizers = old.ResourceVersion, old.ManagedFields, old.Finalizers
	if !equality.Semantic.DeepEqual(old, pv) {
		return forbidden(a, "node %q may only change the finalizers of a volume, and say that it is made", node)
	}
	return nil
}

// withoutResize returns a claim without what a node may change, and without what changes by itself.
func withoutResize(claim *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
	c := claim.DeepCopy()
	c.ResourceVersion, c.ManagedFields = "", nil
	c.Status.Capacity, c.Status.Conditions = nil, nil
	c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil
	return c
}

// restrictRequest lets a node ask for certificates in its own name only.
func restrictRequest(a *admission.Attributes, node string) error {
	if a.Operation != admission.Create || a.Subresource != "" {
		return nil
	}
	spec := &a.Object.(*certificatesv1.CertificateSigningRequest).Spec
	if spec.SignerName != certificatesv1.KubeletServingSignerName && spec.SignerName != certificatesv1.KubeAPIServerClientKubeletSignerName {
		return nil
	}
	block, _ := pem.Decode(spec.Request)
	if block == nil {
		return forbidden(a, "unable to parse csr: PEM block type must be CERTIFICATE REQUEST")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return forbidden(a, "unable to parse csr: %v", err)
	}
	if want := "system:node:" + node; csr.Subject.CommonName != want {
		return forbidden(a, "can only create a node CSR with CN=%s", want)
	}
	return nil
}

// restrictSlice holds a node to its own devices, when it adds some and when it deletes many at once; all else the Node authorizer looks at.
func restrictSlice(a *admission.Attributes, node string) error {
	own := func(obj api.Object) bool { return ptr.Deref(obj.(*resourcev1.ResourceSlice).Spec.NodeName, "") == node }
	switch {
	case a.Operation == admission.Create && !own(a.Object):
		return forbidden(a, "can only create ResourceSlice with the same NodeName as the requesting node")
	case a.Operation == admission.Delete && !own(a.Old):
		return forbidden(a, "can only delete ResourceSlice with the same NodeName as the requesting node")
	}
	return nil
}
