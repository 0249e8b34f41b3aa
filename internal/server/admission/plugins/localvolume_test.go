package plugins

import (
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/server/admission"
)

func TestLocalVolumesAreLabelledWithTheirNode(t *testing.T) {
	volume := func(driver string, labels map[string]string) *corev1.PersistentVolume {
		pv := &corev1.PersistentVolume{ObjectMeta: meta("", "pv")}
		pv.Labels = labels
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "h"}
		pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}}}}
		return pv
	}
	for name, tc := range map[string]struct {
		pv   *corev1.PersistentVolume
		want string
	}{
		"a new one":                 {volume(localvolume.Driver, nil), "n1"},
		"one that says otherwise":   {volume(localvolume.Driver, map[string]string{localvolume.NodeLabel: "n2"}), "n1"},
		"one of another's driver's": {volume("csi.example.com", nil), ""},
	} {
		for _, op := range []admission.Operation{admission.Create, admission.Update} {
			a := create(tc.pv.DeepCopy())
			a.Operation, a.Old = op, tc.pv
			wantError(t, run(LocalVolumeNode{}, a), "")
			if got := a.Object.GetLabels()[localvolume.NodeLabel]; got != tc.want {
				t.Errorf("%s, %s: %q", name, op, got)
			}
		}
	}
}
