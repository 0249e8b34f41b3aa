package volume

import (
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/node/persistent"
)

// Ref is what a volume is built from: a ConfigMap, Secret or claim of the pod's namespace, any of the ClusterTrustBundles, or the answers to the
// pod's PodCertificateRequests; the latter two have no name.
type Ref struct{ Kind, Name string }

// The kinds of a Ref.
const (
	ConfigMap             = "ConfigMap"
	Secret                = "Secret"
	Claim                 = "PersistentVolumeClaim"
	ClusterTrustBundle    = "ClusterTrustBundle"
	PodCertificateRequest = "PodCertificateRequest"
)

// Refs returns what the pod's volumes are built from.
func Refs(pod *corev1.Pod) []Ref {
	var out []Ref
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		switch {
		case v.ConfigMap != nil:
			out = append(out, Ref{ConfigMap, v.ConfigMap.Name})
		case v.Secret != nil:
			out = append(out, Ref{Secret, v.Secret.SecretName})
		case v.PersistentVolumeClaim != nil, v.Ephemeral != nil:
			out = append(out, Ref{Claim, persistent.ClaimName(pod, v)})
		case v.Projected != nil:
			for j := range v.Projected.Sources {
				out = append(out, projectedRefs(&v.Projected.Sources[j])...)
			}
		}
	}
	return out
}

func projectedRefs(s *corev1.VolumeProjection) []Ref {
	switch {
	case s.ConfigMap != nil:
		return []Ref{{ConfigMap, s.ConfigMap.Name}}
	case s.Secret != nil:
		return []Ref{{Secret, s.Secret.Name}}
	case s.ClusterTrustBundle != nil:
		return []Ref{{Kind: ClusterTrustBundle}}
	case s.PodCertificate != nil:
		return []Ref{{Kind: PodCertificateRequest}}
	}
	return nil
}

// Refers reports whether one of the pod's volumes is built from ref.
func Refers(pod *corev1.Pod, ref Ref) bool { return slices.Contains(Refs(pod), ref) }
