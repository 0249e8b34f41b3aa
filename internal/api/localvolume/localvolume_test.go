package localvolume

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

func TestHandlesNameOneDirectory(t *testing.T) {
	for handle, ok := range map[string]bool{
		"pvc-1f0c": true, "a b": true, "": false, ".": false, "..": false, ".gone-x": false, "a/b": false, "../x": false, "/": false, "a\x00": false,
		strings.Repeat("x", 201): false,
	} {
		if err := CheckHandle(handle); (err == nil) != ok {
			t.Errorf("%q: %v", handle, err)
		}
	}
}

func TestWhoseVolumeItIs(t *testing.T) {
	volume := func(driver string, terms ...corev1.NodeSelectorTerm) *corev1.PersistentVolume {
		pv := &corev1.PersistentVolume{}
		pv.Spec.CSI = &corev1.CSIPersistentVolumeSource{Driver: driver, VolumeHandle: "pvc-1"}
		if terms != nil {
			pv.Spec.NodeAffinity = &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: terms}}
		}
		return pv
	}
	host := func(op corev1.NodeSelectorOperator, names ...string) corev1.NodeSelectorTerm {
		return corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: op, Values: names}}}
	}
	for name, tc := range map[string]struct {
		pv   *corev1.PersistentVolume
		want bool
	}{
		"this node":          {volume(Driver, host(corev1.NodeSelectorOpIn, "n1")), true},
		"another node":       {volume(Driver, host(corev1.NodeSelectorOpIn, "n2")), false},
		"one of two":         {volume(Driver, host(corev1.NodeSelectorOpIn, "n1", "n2")), false},
		"either of two":      {volume(Driver, host(corev1.NodeSelectorOpIn, "n1"), host(corev1.NodeSelectorOpIn, "n2")), false},
		"not this node":      {volume(Driver, host(corev1.NodeSelectorOpNotIn, "n1")), false},
		"any node":           {volume(Driver), false},
		"another driver's":   {volume("csi.example.com", host(corev1.NodeSelectorOpIn, "n1")), false},
		"no driver's at all": {&corev1.PersistentVolume{}, false},
	} {
		if got := On(tc.pv, "n1"); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestMarkedOnce(t *testing.T) {
	pv := &corev1.PersistentVolume{}
	if Made(pv) || !Mark(pv, time.Unix(0, 0)) || !Made(pv) {
		t.Errorf("marked first: %v", pv.Annotations)
	}
	if Mark(pv, time.Unix(9, 0)) || pv.Annotations[MadeAnnotation] != "1970-01-01T00:00:00Z" {
		t.Errorf("marked again: %v", pv.Annotations)
	}
}
