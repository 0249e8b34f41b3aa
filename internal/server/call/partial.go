package call

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// MetaKind is the kind of meta.k8s.io into which a client wants objects turned: Table, PartialObjectMetadata or
// PartialObjectMetadataList, in either of their versions; empty for any other.
func MetaKind(as schema.GroupVersionKind) string {
	if gv := as.GroupVersion(); gv == metav1.SchemeGroupVersion || gv == metav1beta1.SchemeGroupVersion {
		return as.Kind
	}
	return ""
}

// Partial returns an object's metadata as an object of its own, in a version of meta.k8s.io.
func Partial(m metav1.Object, version string) *metav1.PartialObjectMetadata {
	p := meta.AsPartialObjectMetadata(m)
	p.SetGroupVersionKind(schema.GroupVersionKind{Group: metav1.GroupName, Version: version, Kind: "PartialObjectMetadata"})
	return p
}
