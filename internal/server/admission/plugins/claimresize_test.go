package plugins

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission"
)

func TestPersistentVolumeClaimResize(t *testing.T) {
	c, front := clienttest.NewRegistry(t)
	for name, grows := range map[string]*bool{"grows": new(true), "stays": new(false), "silent": nil} {
		clienttest.Create(t, c, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: "example.com/p", AllowVolumeExpansion: grows})
	}
	claim := func(class, size string, phase corev1.PersistentVolumeClaimPhase) *corev1.PersistentVolumeClaim {
		out := &corev1.PersistentVolumeClaim{Status: corev1.PersistentVolumeClaimStatus{Phase: phase}}
		if class != "" {
			out.Spec.StorageClassName = &class
		}
		out.Spec.Resources.Requests = corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}
		return out
	}
	const refused = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
	for _, tc := range []struct {
		class, size string
		phase       corev1.PersistentVolumeClaimPhase
		want        string
	}{
		{"grows", "2Gi", corev1.ClaimBound, ""},
		{"grows", "2Gi", corev1.ClaimPending, "Only bound persistent volume claims can be expanded"},
		{"stays", "2Gi", corev1.ClaimBound, refused},
		{"silent", "2Gi", corev1.ClaimBound, refused},
		{"missing", "2Gi", corev1.ClaimBound, refused},
		{"", "2Gi", corev1.ClaimBound, refused},
		{"stays", "1Gi", corev1.ClaimBound, ""},
	} {
		a := &admission.Attributes{
			Resource: api.PersistentVolumeClaims, Operation: admission.Update,
			Object: claim(tc.class, tc.size, tc.phase), Old: claim(tc.class, "1Gi", tc.phase),
		}
		err := PersistentVolumeClaimResize{front.Reader()}.Validate(t.Context(), a)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("class %q, %s, %s: %v, want %q", tc.class, tc.size, tc.phase, err, tc.want)
		}
	}
}
