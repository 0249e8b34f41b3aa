package attachdetach

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

// A volume follows its pod from one node to another, once the first has given it back.
func TestAVolumeFollowsItsPod(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		c.Start(New(c))
		storage := corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}
		claim := controllertest.Make(c, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: new(""), VolumeName: "pv", Resources: corev1.VolumeResourceRequirements{Requests: storage}}})
		pv := disk()
		pv.Spec.Capacity, pv.Spec.PersistentVolumeReclaimPolicy = storage, corev1.PersistentVolumeReclaimRetain
		pv.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "data", UID: claim.UID}
		controllertest.Make(c, pv)
		for _, name := range []string{"n1", "n2"} {
			controllertest.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}})
			controllertest.Change(c, "", name, "status", func(n *corev1.Node) {
				n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
			})
		}
		pod := func(name, node string) {
			controllertest.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node,
				Containers: []corev1.Container{{Name: "c", Image: "i"}},
				Volumes:    []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}}})
		}
		first, second := volume.AttachmentName("h", "d", "n1"), volume.AttachmentName("h", "d", "n2")
		there := func(name string) bool { return !controllertest.Gone[*storagev1.VolumeAttachment](c, "", name) }
		pod("one", "n1")
		c.Settle()
		if !there(first) {
			t.Fatal("the volume is not attached")
		}
		controllertest.Change(c, "", first, "status", func(a *storagev1.VolumeAttachment) { a.Status.Attached = true })
		controllertest.Change(c, "", "n1", "status", inUse)
		pod("two", "n2")
		zero := int64(0)
		controllertest.Delete[*corev1.Pod](c, "default", "one", metav1.DeleteOptions{GracePeriodSeconds: &zero})
		c.Settle()
		if !there(first) || there(second) {
			t.Errorf("the first node has the volume in use: attached to it %v, to the second %v", there(first), there(second))
		}
		controllertest.Change(c, "", "n1", "status", func(n *corev1.Node) { n.Status.VolumesInUse = nil })
		c.Settle()
		if there(first) || !there(second) {
			t.Errorf("the first node has given the volume back: attached to it %v, to the second %v", there(first), there(second))
		}
		if a, b := c.Events("SuccessfulAttachVolume"), c.Events("FailedAttachVolume"); len(a) == 0 || len(b) == 0 {
			t.Errorf("events: %q, %q", a, b)
		}
	})
}
