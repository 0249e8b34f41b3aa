package persistentvolume

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

// start is a cluster with namespace a and both controllers.
func start(c *controllertest.Cluster) {
	controllertest.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	c.Start(New(c), NewDirectories(c))
}

func called(name string) claimChange {
	return func(c *corev1.PersistentVolumeClaim) { c.Name, c.UID = name, "" }
}

func getClaim(c *controllertest.Cluster, name string) *corev1.PersistentVolumeClaim {
	c.T.Helper()
	return controllertest.Get[*corev1.PersistentVolumeClaim](c, "a", name)
}

func getVolume(c *controllertest.Cluster, name string) *corev1.PersistentVolume {
	c.T.Helper()
	return controllertest.Get[*corev1.PersistentVolume](c, "", name)
}

// bound fails the test unless claim and volume have each other.
func bound(c *controllertest.Cluster, claim, name string) {
	c.T.Helper()
	cl, v := getClaim(c, claim), getVolume(c, name)
	if cl.Status.Phase != corev1.ClaimBound || !volume.Complete(cl) || cl.Spec.VolumeName != name || v.Status.Phase != corev1.VolumeBound || v.Spec.ClaimRef == nil || v.Spec.ClaimRef.UID != cl.UID {
		c.T.Errorf("claim %s is %s with %q, volume %s is %s with %+v", claim, cl.Status.Phase, cl.Spec.VolumeName, name, v.Status.Phase, v.Spec.ClaimRef)
	}
}

// A claim gets a volume whether it comes before or after it, and a volume that is reserved goes to nobody else.
func TestStaticBinding(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, newClaim("", called("first")))
		c.Settle()
		if got := getClaim(c, "first").Status.Phase; got != corev1.ClaimPending {
			t.Fatalf("without a volume the claim is %s", got)
		}
		controllertest.Make(c, newVolume("v", ""))
		c.Settle()
		bound(c, "first", "v")

		controllertest.Make(c, newVolume("w", "", refersTo("mine", "")))
		controllertest.Make(c, newClaim("", called("other")))
		c.Settle()
		if got := getVolume(c, "w"); got.Status.Phase != corev1.VolumeAvailable || got.Spec.ClaimRef.UID != "" {
			t.Errorf("a reserved volume: %+v", got)
		}
		controllertest.Make(c, newClaim("", called("mine")))
		c.Settle()
		bound(c, "mine", "w")
		if got := getClaim(c, "other").Status.Phase; got != corev1.ClaimPending {
			t.Errorf("other is %s", got)
		}

		controllertest.Delete[*corev1.PersistentVolumeClaim](c, "a", "other", metav1.DeleteOptions{})
		controllertest.Make(c, newClaim("", called("named"), names("x")))
		c.Settle()
		controllertest.Make(c, newVolume("x", ""))
		c.Settle()
		bound(c, "named", "x")
	})
}

// Twenty claims and ten volumes at once: each volume has one claim, and each claim one volume at most.
func TestOneVolumePerClaim(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		for i := range 20 {
			controllertest.Make(c, newClaim("", called(fmt.Sprintf("c%d", i))))
			if i%2 == 0 {
				controllertest.Make(c, newVolume(fmt.Sprintf("v%d", i), ""))
			}
		}
		c.Pass(time.Minute)
		has := map[string]string{}
		for _, cl := range controllertest.All[*corev1.PersistentVolumeClaim](c, "a") {
			if cl.Status.Phase == corev1.ClaimBound {
				if other := has[cl.Spec.VolumeName]; other != "" {
					t.Errorf("%s and %s have %s", other, cl.Name, cl.Spec.VolumeName)
				}
				has[cl.Spec.VolumeName] = cl.Name
				bound(c, cl.Name, cl.Spec.VolumeName)
			}
		}
		if len(has) != 10 {
			t.Errorf("%d claims are bound, 10 volumes are there", len(has))
		}
	})
}

// A default class that comes later is that of claims that wait without one, and its provisioner is asked.
func TestADefaultClassThatComesLater(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, newClaim("none", called("c")))
		c.Settle()
		class := newClass("gold", "csi.example.com", storagev1.VolumeBindingImmediate)
		class.Annotations = map[string]string{volume.DefaultClassAnnotations()[0]: "true"}
		controllertest.Make(c, class)
		c.Settle()
		got := getClaim(c, "c")
		if got.Spec.StorageClassName == nil || *got.Spec.StorageClassName != "gold" || got.Annotations[storage.AnnStorageProvisioner] != "csi.example.com" || got.Annotations[storage.AnnBetaStorageProvisioner] == "" {
			t.Fatalf("%+v", got)
		}
		if len(c.Events("ExternalProvisioning")) != 1 {
			t.Errorf("events %q", c.Events("ExternalProvisioning"))
		}
		// The provisioner makes the volume, with the claim in it.
		controllertest.Make(c, newVolume("made", "gold", refersTo("c", string(got.UID)), volumeAnnotation(storage.AnnDynamicallyProvisioned, "csi.example.com")))
		c.Settle()
		bound(c, "c", "made")
	})
}

// A volume lives as long as its claim, and then as its policy says.
func TestReclaiming(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, newVolume("kept", ""))
		controllertest.Make(c, newClaim("", called("keep")))
		class := newClass("local", volume.Local, storagev1.VolumeBindingImmediate)
		controllertest.Make(c, class)
		node := controllertest.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{corev1.LabelHostname: "n"}}})
		controllertest.Make(c, newClaim("local", called("gone")))
		c.Settle()
		if got := c.Events("ProvisioningFailed"); len(got) != 1 {
			t.Errorf("no node is ready: %q", got)
		}
		controllertest.Change(c, "", node.Name, "status", func(n *corev1.Node) {
			n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
		})
		c.Settle()
		bound(c, "keep", "kept")
		made := getClaim(c, "gone").Spec.VolumeName
		bound(c, "gone", made)

		for _, name := range []string{"keep", "gone"} {
			controllertest.Delete[*corev1.PersistentVolumeClaim](c, "a", name, metav1.DeleteOptions{})
		}
		c.Settle()
		if v := getVolume(c, "kept"); v.Status.Phase != corev1.VolumeReleased || v.DeletionTimestamp != nil {
			t.Errorf("kept: %+v", v.Status)
		}
		v := getVolume(c, made)
		if v.DeletionTimestamp == nil || !slices.Contains(v.Finalizers, volume.LocalDirectory) {
			t.Fatalf("made: %+v", v)
		}
		// Its node's agent would let it go. The node is gone for good instead.
		controllertest.Change(c, "", made, "", func(v *corev1.PersistentVolume) {
			v.Finalizers = slices.DeleteFunc(v.Finalizers, func(f string) bool { return f == volume.VolumeProtection })
		})
		c.Pass(10 * time.Minute)
		getVolume(c, made) // still there
		controllertest.Delete[*corev1.Node](c, "", "n", metav1.DeleteOptions{})
		c.Pass(10 * time.Minute)
		if !controllertest.Gone[*corev1.PersistentVolume](c, "", made) {
			t.Errorf("%s waits for a node that is gone", made)
		}
	})
}

// A claim whose volume was taken away is lost, and says so.
func TestALostClaim(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, newVolume("v", ""))
		controllertest.Make(c, newClaim("", called("c")))
		c.Settle()
		bound(c, "c", "v")
		controllertest.Delete[*corev1.PersistentVolume](c, "", "v", metav1.DeleteOptions{})
		c.Settle()
		if got := getClaim(c, "c").Status.Phase; got != corev1.ClaimLost || len(c.Events("ClaimLost")) != 1 {
			t.Errorf("%s, events %q", got, c.Events("ClaimLost"))
		}
	})
}

// A claim that waits for a pod says for which.
func TestAClaimWaitsForItsPod(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, newClass("late", "csi.example.com", storagev1.VolumeBindingWaitForFirstConsumer))
		controllertest.Make(c, newClaim("late", called("c")))
		c.Settle()
		if got := c.Events("WaitForFirstConsumer"); len(got) != 1 {
			t.Errorf("%q", got)
		}
		controllertest.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "p"}, Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "c", Image: "i"}},
			Volumes:    []corev1.Volume{{Name: "d", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "c"}}}}}})
		c.Settle()
		if got := c.Events("WaitForPodScheduled"); len(got) != 1 || got[0] != "waiting for pod p to be scheduled" {
			t.Errorf("%q", got)
		}
		controllertest.Change(c, "a", "c", "", claimAnnotation(storage.AnnSelectedNode, "n"))
		c.Settle()
		if got := getClaim(c, "c").Annotations[storage.AnnStorageProvisioner]; got != "csi.example.com" {
			t.Errorf("the provisioner that is asked is %q", got)
		}
	})
}
