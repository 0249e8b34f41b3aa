package registry_test

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// TestVolumesComeWithTheirPods: a pod is bound with volumes for all its claims or with none, whether they are made or there already, and two pods
// that come together share one.
func TestVolumesComeWithTheirPods(t *testing.T) {
	ctx := context.Background()
	c := clienttest.New(t)
	key := func(name string) api.Key { return api.Key{Namespace: "default", Name: name} }
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for _, name := range []string{"mine", "shared", "late", "static"} {
		claims[name] = clienttest.Create(t, c, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: new("local"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("1Gi")}}}})
	}
	for _, name := range []string{"p", "q", "r"} {
		clienttest.Create(t, c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}})
	}
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "local"}}
	there := clienttest.Create(t, c, &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "there"}, Spec: corev1.PersistentVolumeSpec{StorageClassName: "local",
		Capacity: corev1.ResourceList{"storage": resource.MustParse("2Gi")}, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/v"}}}})
	taken := there.DeepCopy()
	taken.ObjectMeta = metav1.ObjectMeta{Name: "taken"}
	taken.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "default", Name: "somebody", UID: "x"}
	taken = clienttest.Create(t, c, taken)

	made := func(name string) client.VolumeBinding {
		return client.VolumeBinding{Claim: key(name), UID: claims[name].UID, Volume: volume.NewLocal(claims[name], class, "host"), New: true}
	}
	bound := func(name string, v *corev1.PersistentVolume) client.VolumeBinding {
		return client.VolumeBinding{Claim: key(name), UID: claims[name].UID, Volume: v}
	}
	bind := func(pod string, all ...client.VolumeBinding) client.Binding {
		return client.Binding{Pod: key(pod), Node: "n1", Volumes: all}
	}
	get := func(name string) *corev1.PersistentVolumeClaim {
		got, err := client.Get[*corev1.PersistentVolumeClaim](ctx, c, key(name))
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	gone := there.DeepCopy()
	gone.Name = "gone"
	for _, tc := range []struct {
		wrong client.VolumeBinding
		says  string
	}{
		{bound("late", nil), "is not bound"},
		{bound("late", gone), "volume gone is gone"},
		{bound("late", taken), "is another claim's by now"},
		{client.VolumeBinding{Claim: key("late"), UID: "other", Volume: there}, "is another one by now"},
		{client.VolumeBinding{Claim: key("none"), UID: "x", Volume: there}, "is gone"},
	} {
		err := c.BindMany(ctx, []client.Binding{bind("p", made("mine"), tc.wrong)})[0].Err
		if !apierrors.IsConflict(err) || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%v, want %q", err, tc.says)
		}
	}
	if got := get("mine"); got.Spec.VolumeName != "" || got.Status.Phase != corev1.ClaimPending {
		t.Fatalf("no pod was bound, and the claim is %+v", got)
	}
	if all, err := client.List[*corev1.PersistentVolume](ctx, c, client.ListOptions{}); err != nil || len(all) != 2 {
		t.Fatalf("no pod was bound, and there are %d volumes: %v", len(all), err)
	}

	results := c.BindMany(ctx, []client.Binding{bind("p", made("mine"), made("shared")), bind("q", bound("shared", nil), bound("static", there)), bind("r")})
	for i, r := range results {
		if r.Err != nil {
			t.Errorf("binding %d: %v", i, r.Err)
		}
	}
	for name, of := range map[string]string{"mine": "pvc-" + string(claims["mine"].UID), "shared": "pvc-" + string(claims["shared"].UID), "static": "there"} {
		claim := get(name)
		v, err := client.Get[*corev1.PersistentVolume](ctx, c, api.Key{Name: of})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if claim.Spec.VolumeName != of || !volume.Complete(claim) || claim.Status.Phase != corev1.ClaimBound || v.Status.Phase != corev1.VolumeBound || v.Spec.ClaimRef.UID != claim.UID ||
			v.UID == "" || v.Status.LastPhaseTransitionTime.IsZero() {
			t.Errorf("%s: %+v %+v", name, claim, v)
		}
		if name != "static" && v.ResourceVersion != claim.ResourceVersion {
			t.Errorf("the claim is of revision %s, its volume of %s", claim.ResourceVersion, v.ResourceVersion)
		}
	}
	if err := c.BindMany(ctx, []client.Binding{bind("r", made("static"))})[0].Err; !apierrors.IsConflict(err) {
		t.Errorf("a claim gets another volume, for a pod that is bound: %v", err)
	}
}
