package call

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Partial returns an object's metadata as an object of its own.
func Partial(m metav1.Object) *metav1.PartialObjectMetadata {
	p := meta.AsPartialObjectMetadata(m)
	p.SetGroupVersionKind(PartialKind)
	return p
}
