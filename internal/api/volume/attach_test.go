package volume

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
)

// External-attachers find the object by this name, and the kubelet's words for a volume are those of dashboards.
func TestNamesOfAttachments(t *testing.T) {
	if got, want := AttachmentName("handle", "driver", "node"), "csi-fdef298eb16db6fa42906ef1ff09a93a7f3028f8290cc9d71628ff91c237bfa7"; got != want {
		t.Errorf("%s", got)
	}
	if got := UniqueName("d", "h"); got != "kubernetes.io/csi/d^h" {
		t.Errorf("%s", got)
	}
}

func TestAttachable(t *testing.T) {
	of := func(driver string) *corev1.PersistentVolume {
		return vol("v", "1Gi", func(v *corev1.PersistentVolume) { v.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver} })
	}
	says := func(b *bool) *storagev1.CSIDriver {
		return &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{AttachRequired: b}}
	}
	for _, tc := range []struct {
		v      *corev1.PersistentVolume
		driver *storagev1.CSIDriver
		want   bool
	}{
		{of("d"), nil, true}, {of("d"), says(nil), true}, {of("d"), says(new(true)), true}, {of("d"), says(new(false)), false},
		{of(Local), nil, false}, {vol("v", "1Gi"), nil, false},
	} {
		if got := Attachable(tc.v, tc.driver); got != tc.want {
			t.Errorf("%+v %+v: %v", tc.v.Spec.CSI, tc.driver, got)
		}
	}
}
