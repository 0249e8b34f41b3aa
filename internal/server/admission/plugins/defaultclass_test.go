package plugins

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func marked(m metav1.ObjectMeta, annotation string, born time.Time) metav1.ObjectMeta {
	m.Annotations, m.CreationTimestamp = map[string]string{annotation: "true"}, metav1.NewTime(born)
	return m
}

// The newest class that is marked as the default is given to who asks for none; of several of one second, the first by name.
func TestDefaultClasses(t *testing.T) {
	early, late := time.Unix(100, 0), time.Unix(200, 0)
	storage := func(name, annotation string, born time.Time) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: marked(meta("", name), annotation, born)}
	}
	const ga, beta = "storageclass.kubernetes.io/is-default-class", "storageclass.beta.kubernetes.io/is-default-class"
	classes := objects{storage("old", ga, early), storage("z", ga, late), storage("b", beta, late), storage("a", "other", late)}
	for name, tc := range map[string]struct {
		classes   objects
		asked     *string
		annotated bool
		want      string
	}{
		"the newest":              {classes, nil, false, "b"},
		"none marked":             {classes[3:], nil, false, "-"},
		"asked for another":       {classes, ptr.To("x"), false, "x"},
		"asked for none":          {classes, ptr.To(""), false, ""},
		"asked by old annotation": {classes, nil, true, "-"},
	} {
		claim := &corev1.PersistentVolumeClaim{ObjectMeta: meta("shop", "c"), Spec: corev1.PersistentVolumeClaimSpec{StorageClassName: tc.asked}}
		if tc.annotated {
			claim.Annotations = map[string]string{"volume.beta.kubernetes.io/storage-class": ""}
		}
		wantError(t, run(DefaultStorageClass{tc.classes}, create(claim)), "")
		if got := ptr.Deref(claim.Spec.StorageClassName, "-"); got != tc.want {
			t.Errorf("%s: class %q, want %q", name, got, tc.want)
		}
	}

	front := &networkingv1.IngressClass{ObjectMeta: marked(meta("", "front"), "ingressclass.kubernetes.io/is-default-class", early)}
	for name, tc := range map[string]struct {
		asked     *string
		annotated bool
		want      string
	}{"the default": {nil, false, "front"}, "asked for another": {ptr.To("x"), false, "x"}, "asked by old annotation": {nil, true, "-"}} {
		ingress := &networkingv1.Ingress{ObjectMeta: meta("shop", "i"), Spec: networkingv1.IngressSpec{IngressClassName: tc.asked}}
		if tc.annotated {
			ingress.Annotations = map[string]string{"kubernetes.io/ingress.class": "y"}
		}
		wantError(t, run(DefaultIngressClass{objects{front}}, create(ingress)), "")
		if got := ptr.Deref(ingress.Spec.IngressClassName, "-"); got != tc.want {
			t.Errorf("%s: class %q, want %q", name, got, tc.want)
		}
	}
}
