package storageprotection

import (
	"context"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

func newClaim(name string) *corev1.PersistentVolumeClaim {
	return &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: new(""),
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}}
}

func user(name, claim string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "i"}},
		Volumes:    []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}}}}
}

func get(c *controllertest.Cluster, name string) *corev1.PersistentVolumeClaim {
	c.T.Helper()
	return controllertest.Get[*corev1.PersistentVolumeClaim](c, "default", name)
}

// A claim that is deleted stays while a pod that has a node uses it, whatever phase that is in; a pod without a node does not keep it.
func TestAUsedClaimStays(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		c.Start(NewClaims(c), NewVolumes(c))
		for _, name := range []string{"used", "wanted"} {
			controllertest.Make(c, newClaim(name))
			controllertest.Make(c, user(name, name))
		}
		c.Settle()
		if f := get(c, "used").Finalizers; !slices.Contains(f, volume.ClaimProtection) {
			t.Fatalf("finalizers %v", f)
		}
		if r := c.BindMany(context.Background(), []client.Binding{{Pod: api.Key{Namespace: "default", Name: "used"}, Node: "n"}})[0]; r.Err != nil {
			t.Fatal(r.Err)
		}
		for _, name := range []string{"used", "wanted"} {
			controllertest.Delete[*corev1.PersistentVolumeClaim](c, "default", name, metav1.DeleteOptions{})
		}
		c.Settle()
		if !controllertest.Gone[*corev1.PersistentVolumeClaim](c, "default", "wanted") {
			t.Error("a claim waits for a pod that has no node")
		}
		controllertest.Change(c, "default", "used", "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
		c.Settle()
		get(c, "used")
		zero := int64(0)
		controllertest.Delete[*corev1.Pod](c, "default", "used", metav1.DeleteOptions{GracePeriodSeconds: &zero})
		c.Settle()
		if !controllertest.Gone[*corev1.PersistentVolumeClaim](c, "default", "used") {
			t.Error("a claim waits for a pod that is gone")
		}
	})
}

// A volume that is deleted stays while it is bound.
func TestABoundVolumeStays(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		c.Start(NewClaims(c), NewVolumes(c))
		controllertest.Make(c, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "v"}, Spec: corev1.PersistentVolumeSpec{
			Capacity: corev1.ResourceList{"storage": resource.MustParse("1Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/v"}}}})
		c.Settle()
		controllertest.Change(c, "", "v", "status", func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeBound })
		controllertest.Delete[*corev1.PersistentVolume](c, "", "v", metav1.DeleteOptions{})
		c.Settle()
		controllertest.Get[*corev1.PersistentVolume](c, "", "v")
		controllertest.Change(c, "", "v", "status", func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeReleased })
		c.Settle()
		if !controllertest.Gone[*corev1.PersistentVolume](c, "", "v") {
			t.Error("a volume that nobody has is there")
		}
	})
}

// A bound claim says whether a pod uses it, and since when none does.
func TestUnused(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		c.Start(NewClaims(c))
		controllertest.Make(c, newClaim("c"))
		c.Settle()
		if got := get(c, "c").Status.Conditions; len(got) != 0 {
			t.Errorf("before it is bound: %+v", got)
		}
		controllertest.Change(c, "default", "c", "status", func(o *corev1.PersistentVolumeClaim) { o.Status.Phase = corev1.ClaimBound })
		says := func(want corev1.ConditionStatus, reason string) metav1.Time {
			t.Helper()
			c.Settle()
			got := get(c, "c").Status.Conditions
			if len(got) != 1 || got[0].Status != want || got[0].Reason != reason {
				t.Fatalf("%+v", got)
			}
			return got[0].LastTransitionTime
		}
		first := says(corev1.ConditionTrue, "NoPodsUsingPVC")
		controllertest.Make(c, user("p", "c"))
		says(corev1.ConditionFalse, "PodUsingPVC")
		c.Pass(time.Hour)
		controllertest.Change(c, "default", "p", "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed })
		if again := says(corev1.ConditionTrue, "NoPodsUsingPVC"); again.Sub(first.Time) < time.Hour {
			t.Errorf("unused since %v, first since %v", again, first)
		}
	})
}

// A claim that a pod made for itself does not wait for the object of the pod, whose finalizers may wait for the claim.
func TestAnEphemeralClaimGoesWithItsPod(t *testing.T) {
	claim := newClaim("p-d")
	pod := user("p", "")
	pod.UID, pod.Spec.NodeName = "uid-p", "n"
	pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
	claim.Finalizers, claim.DeletionTimestamp = []string{volume.ClaimProtection}, &metav1.Time{}
	goes := func() bool { meta, _ := planClaim(claim, []*corev1.Pod{pod}, time.Time{}); return meta != nil }
	if !goes() {
		t.Error("the claim is not the pod's")
	}
	claim.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "p", UID: "uid-p", Controller: new(true)}}
	if goes() {
		t.Error("the pod has it")
	}
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &metav1.Time{}, new(int64)
	if !goes() {
		t.Error("nothing of the pod is left")
	}
}
