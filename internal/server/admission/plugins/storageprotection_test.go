package plugins

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
)

func TestStorageObjectInUseProtection(t *testing.T) {
	claim := func(finalizers ...string) api.Object {
		return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Finalizers: finalizers}}
	}
	for _, tc := range []struct {
		name string
		a    admission.Attributes
		want []string
	}{
		{"a claim", admission.Attributes{Resource: api.PersistentVolumeClaims, Object: claim()}, []string{"kubernetes.io/pvc-protection"}},
		{"one that has it", admission.Attributes{Resource: api.PersistentVolumeClaims, Object: claim("x", "kubernetes.io/pvc-protection")}, []string{"x", "kubernetes.io/pvc-protection"}},
		{"a volume", admission.Attributes{Resource: api.PersistentVolumes, Object: &corev1.PersistentVolume{}}, []string{"kubernetes.io/pv-protection"}},
		{"a change", admission.Attributes{Resource: api.PersistentVolumeClaims, Operation: admission.Update, Object: claim()}, nil},
		{"something else", admission.Attributes{Resource: api.ConfigMaps, Object: &corev1.ConfigMap{}}, nil},
	} {
		if tc.a.Operation == "" {
			tc.a.Operation = admission.Create
		}
		if err := (StorageObjectInUseProtection{}).Admit(t.Context(), &tc.a); err != nil || !slices.Equal(tc.a.Object.GetFinalizers(), tc.want) {
			t.Errorf("%s: %v %v", tc.name, err, tc.a.Object.GetFinalizers())
		}
	}
}
