package volume

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"
)

func claim(change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c", UID: "uid-c"}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: new("gold"), AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("5Gi")}}},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	for _, f := range change {
		f(c)
	}
	return c
}

func vol(name, size string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{"storage": resource.MustParse(size)}, StorageClassName: "gold",
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
	for _, f := range change {
		f(v)
	}
	return v
}

func modes(m ...corev1.PersistentVolumeAccessMode) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) { v.Spec.AccessModes = m }
}

func reserved(name string, uid string) func(*corev1.PersistentVolume) {
	return func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Namespace: "a", Name: name, UID: types.UID(uid)}
	}
}

func TestMatch(t *testing.T) {
	block := corev1.PersistentVolumeBlock
	for _, tc := range []struct {
		name    string
		claim   *corev1.PersistentVolumeClaim
		volumes []*corev1.PersistentVolume
		delayed bool
		want    string
	}{
		{"there is none", claim(), nil, false, ""},
		{"the smallest that is large enough", claim(), []*corev1.PersistentVolume{vol("big", "9Gi"), vol("small", "4Gi"), vol("fits", "6Gi")}, false, "fits"},
		{"the one with the fewest modes, even if it is larger", claim(), []*corev1.PersistentVolume{
			vol("many", "5Gi", modes(corev1.ReadWriteOnce, corev1.ReadOnlyMany)), vol("few", "9Gi")}, false, "few"},
		{"one that has all modes", claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}), []*corev1.PersistentVolume{vol("once", "5Gi")}, false, ""},
		{"one reserved for it before any other", claim(), []*corev1.PersistentVolume{
			vol("fits", "5Gi"), vol("mine", "50Gi", reserved("c", ""), modes(corev1.ReadWriteOnce, corev1.ReadWriteMany))}, false, "mine"},
		{"none that is another's", claim(), []*corev1.PersistentVolume{vol("other", "5Gi", reserved("d", "")), vol("old", "5Gi", reserved("c", "uid-before"))}, false, ""},
		{"of its class", claim(), []*corev1.PersistentVolume{vol("other", "5Gi", func(v *corev1.PersistentVolume) { v.Spec.StorageClassName = "" })}, false, ""},
		{"of its mode", claim(), []*corev1.PersistentVolume{vol("block", "5Gi", func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = &block })}, false, ""},
		{"with its labels", claim(func(c *corev1.PersistentVolumeClaim) {
			c.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"disk": "fast"}}
		}), []*corev1.PersistentVolume{vol("slow", "5Gi"), vol("fast", "8Gi", func(v *corev1.PersistentVolume) { v.Labels = map[string]string{"disk": "fast"} })}, false, "fast"},
		{"that is not on its way out", claim(), []*corev1.PersistentVolume{vol("going", "5Gi", func(v *corev1.PersistentVolume) { v.DeletionTimestamp = &metav1.Time{} })}, false, ""},
		{"that is available", claim(), []*corev1.PersistentVolume{vol("failed", "5Gi", func(v *corev1.PersistentVolume) { v.Status.Phase = corev1.VolumeFailed })}, false, ""},
		{"a pod has to come first", claim(), []*corev1.PersistentVolume{vol("fits", "5Gi")}, true, ""},
		{"a pod has to come first, but for one that is reserved", claim(), []*corev1.PersistentVolume{vol("fits", "5Gi"), vol("mine", "5Gi", reserved("c", ""))}, true, "mine"},
	} {
		got, err := Match(tc.claim, tc.volumes, tc.delayed)
		if name := ""; err != nil {
			t.Errorf("%s: %v", tc.name, err)
		} else if got != nil {
			if name = got.Name; name != tc.want {
				t.Errorf("%s: got %q, want %q", tc.name, name, tc.want)
			}
		} else if tc.want != "" {
			t.Errorf("%s: got none, want %q", tc.name, tc.want)
		}
	}
}

func TestBindTwice(t *testing.T) {
	v, c := vol("v", "6Gi"), claim()
	before := v.DeepCopy()
	boundVolume, boundClaim, err := Bind(v, c)
	if err != nil {
		t.Fatal(err)
	}
	if !equality.Semantic.DeepEqual(v, before) {
		t.Error("the volume that was given has changed")
	}
	size := boundClaim.Status.Capacity[corev1.ResourceStorage]
	if ref := boundVolume.Spec.ClaimRef; ref == nil || ref.UID != c.UID || ref.Kind != "PersistentVolumeClaim" || boundVolume.Status.Phase != corev1.VolumeBound ||
		boundVolume.Annotations[storage.AnnBoundByController] != "yes" || boundClaim.Annotations[storage.AnnBoundByController] != "yes" ||
		!Complete(boundClaim) || boundClaim.Spec.VolumeName != "v" || boundClaim.Status.Phase != corev1.ClaimBound || size.String() != "6Gi" {
		t.Errorf("bound: %+v %+v", boundVolume, boundClaim)
	}
	againVolume, againClaim, err := Bind(boundVolume, boundClaim)
	if err != nil || !equality.Semantic.DeepEqual(againVolume, boundVolume) || !equality.Semantic.DeepEqual(againClaim, boundClaim) {
		t.Errorf("bound again: %v %+v %+v", err, againVolume, againClaim)
	}
	if free := Unbind(boundVolume); free.Spec.ClaimRef != nil || free.Annotations != nil || free.Status.Phase != corev1.VolumeAvailable {
		t.Errorf("unbound: %+v", free)
	}
	// What a user has bound stays reserved.
	mine, _, err := Bind(vol("v", "6Gi", reserved("c", "")), c)
	if err != nil || len(mine.Annotations) > 0 {
		t.Fatalf("%v %+v", err, mine)
	}
	if free := Unbind(mine); free.Spec.ClaimRef == nil || free.Spec.ClaimRef.UID != "" || free.Spec.ClaimRef.Name != "c" {
		t.Errorf("unbound: %+v", free)
	}
}

// A volume that has grown, and whose file system has not yet, gives its claim what that has.
func TestTheSizeOfAFileSystemThatHasNotGrown(t *testing.T) {
	_, c, err := Bind(vol("v", "6Gi", func(v *corev1.PersistentVolume) { v.Annotations = map[string]string{resizing: "5Gi"} }), claim())
	if size := c.Status.Capacity[corev1.ResourceStorage]; err != nil || size.String() != "5Gi" {
		t.Errorf("%v %s", err, size.String())
	}
}

func TestUnsuitable(t *testing.T) {
	block := corev1.PersistentVolumeBlock
	for _, tc := range []struct {
		v    *corev1.PersistentVolume
		want string
	}{
		{vol("v", "5Gi"), ""},
		{vol("v", "4Gi"), "requested PV is too small"},
		{vol("v", "5Gi", func(v *corev1.PersistentVolume) { v.DeletionTimestamp = &metav1.Time{} }), `the volume is marked for deletion "v"`},
		{vol("v", "5Gi", func(v *corev1.PersistentVolume) { v.Spec.StorageClassName = "x" }), "storageClassName does not match"},
		{vol("v", "5Gi", func(v *corev1.PersistentVolume) { v.Spec.VolumeMode = &block }), "incompatible volumeMode"},
		{vol("v", "5Gi", modes(corev1.ReadOnlyMany)), "incompatible accessMode"},
		{vol("v", "5Gi", func(v *corev1.PersistentVolume) { v.Spec.VolumeAttributesClassName = new("x") }), "volumeAttributesClassName does not match"},
	} {
		got := ""
		if err := Unsuitable(tc.v, claim()); err != nil {
			got = err.Error()
		}
		if got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestNewLocal(t *testing.T) {
	waits := storagev1.VolumeBindingWaitForFirstConsumer
	class := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: LocalClass}, Provisioner: Local, Parameters: map[string]string{"a": "b"}, MountOptions: []string{"noatime"}, VolumeBindingMode: &waits}
	v := NewLocal(claim(), class, "host-1")
	if v.Name != "pvc-uid-c" || v.Spec.CSI.VolumeHandle != v.Name || v.Spec.CSI.Driver != Local || v.Spec.CSI.VolumeAttributes["a"] != "b" || v.Spec.MountOptions[0] != "noatime" ||
		v.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete || Bytes(v) != 5<<30 || LocalHost(v) != "host-1" || !storage.IsVolumeBoundToClaim(v, claim()) {
		t.Errorf("%+v", v)
	}
	if LocalHost(vol("v", "1Gi")) != "" {
		t.Error("a volume of somebody else has a host")
	}
	if why := LocalRefusal(claim()); why != "" {
		t.Error(why)
	}
	if why := LocalRefusal(claim(func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = append(c.Spec.AccessModes, corev1.ReadWriteMany)
	})); why == "" {
		t.Error("many nodes cannot have a directory of one")
	}
	if why := LocalRefusal(claim(func(c *corev1.PersistentVolumeClaim) {
		c.Spec.DataSourceRef = &corev1.TypedObjectReference{Kind: "VolumeSnapshot", Name: "s"}
	})); why == "" {
		t.Error("an empty volume passes for a snapshot's data")
	}
	for value, want := range map[string]bool{"": false, "x": false, "-1": false, "0": true, " 12\n": true} {
		if _, limited := LocalRoom(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{LocalCapacity: value}}}); limited != want {
			t.Errorf("room %q: limited %v", value, limited)
		}
	}
}

func TestDefaultClass(t *testing.T) {
	at := func(name string, second int64, annotation string) *storagev1.StorageClass {
		return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(second, 0)), Annotations: map[string]string{annotation: "true"}}}
	}
	ga, beta := DefaultClassAnnotations()[0], DefaultClassAnnotations()[1]
	got := DefaultClass([]*storagev1.StorageClass{at("old", 1, ga), at("b", 5, beta), at("a", 5, ga), at("new", 9, "x")})
	if got == nil || got.Name != "a" || DefaultClass(nil) != nil {
		t.Errorf("%+v", got)
	}
}

func TestReaches(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"zone": "a", "disk": "fast"}}}
	term := func(key string, values ...string) corev1.TopologySelectorTerm {
		return corev1.TopologySelectorTerm{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: key, Values: values}}}
	}
	for _, tc := range []struct {
		terms []corev1.TopologySelectorTerm
		want  bool
	}{
		{nil, true}, {[]corev1.TopologySelectorTerm{{}}, false}, {[]corev1.TopologySelectorTerm{term("zone", "b", "a")}, true},
		{[]corev1.TopologySelectorTerm{term("zone", "b"), term("disk", "fast")}, true}, {[]corev1.TopologySelectorTerm{term("rack", "a")}, false},
	} {
		if got := Reaches(&storagev1.StorageClass{AllowedTopologies: tc.terms}, node); got != tc.want {
			t.Errorf("%v: %v", tc.terms, got)
		}
	}
}
