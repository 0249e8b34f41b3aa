package ephemeralvolume

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

func spec() corev1.PersistentVolumeClaimSpec {
	return corev1.PersistentVolumeClaimSpec{AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}
}

func newPod() *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes: []corev1.Volume{
			{Name: "none", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			{Name: "d", VolumeSource: corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{VolumeClaimTemplate: &corev1.PersistentVolumeClaimTemplate{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "a"}, Annotations: map[string]string{"note": "n"}}, Spec: spec()}}}}}}}
}

// A pod gets a claim for each ephemeral volume, which is its own, and another one if that is deleted.
func TestClaimsOfAPod(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		c.Start(New(c))
		pod := controllertest.Make(c, newPod())
		c.Settle()
		claim := controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", "p-d")
		if !metav1.IsControlledBy(claim, pod) || claim.Labels["app"] != "a" || claim.Annotations["note"] != "n" || !*claim.OwnerReferences[0].BlockOwnerDeletion {
			t.Errorf("%+v", claim)
		}
		if n := len(controllertest.All[*corev1.PersistentVolumeClaim](c, "")); n != 1 {
			t.Errorf("%d claims", n)
		}
		controllertest.Delete[*corev1.PersistentVolumeClaim](c, "default", "p-d", metav1.DeleteOptions{})
		c.Settle()
		if again := controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", "p-d"); again.UID == claim.UID {
			t.Error("the claim is the old one")
		}
	})
}

// A claim that has the name is somebody else's: the pod says so, until that is gone.
func TestAClaimOfSomebodyElse(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		controllertest.Make(c, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p-d"}, Spec: spec()})
		c.Start(New(c))
		pod := controllertest.Make(c, newPod())
		c.Settle()
		if got := c.Events("FailedBinding"); len(got) != 1 || !strings.HasPrefix(got[0], "ephemeral volume d: PVC default/p-d was not created for pod default/p (pod is not owner)") {
			t.Errorf("%q", got)
		}
		controllertest.Delete[*corev1.PersistentVolumeClaim](c, "default", "p-d", metav1.DeleteOptions{})
		c.Pass(20 * time.Minute) // it is tried again, ever more seldom
		if claim := controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", "p-d"); !metav1.IsControlledBy(claim, pod) {
			t.Errorf("%+v", claim)
		}
	})
}

func TestAPodThatEndsNeedsNoClaims(t *testing.T) {
	pod := newPod()
	if got := planPod(pod, nil); len(got.create) != 1 {
		t.Errorf("%+v", got)
	}
	pod.DeletionTimestamp = &metav1.Time{}
	if got := planPod(pod, nil); len(got.create) != 0 {
		t.Errorf("%+v", got)
	}
}
