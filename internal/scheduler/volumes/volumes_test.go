package volumes

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api/volume"
)

func newNode(name string, annotations ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: "host-" + name}, Annotations: map[string]string{}}}
	if len(annotations) > 0 {
		n.Annotations[volume.LocalCapacity] = annotations[0]
	}
	return n
}

func newClaim(name, class string, change ...func(*corev1.PersistentVolumeClaim)) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("10")}}},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	for _, f := range change {
		f(c)
	}
	return c
}

func newVolume(name, class, host string, change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := volume.NewLocal(newClaim(name, class), &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: class}}, "host-"+host)
	v.Name, v.Spec.ClaimRef, v.Spec.PersistentVolumeSource = name, nil, corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv"}}
	v.Status.Phase = corev1.VolumeAvailable
	for _, f := range change {
		f(v)
	}
	return v
}

func newPod(name string, claims ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID("uid-" + name)}}
	for i, c := range claims {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("v", i),
			VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c}}})
	}
	return p
}

func newClass(name, provisioner string, change ...func(*storagev1.StorageClass)) *storagev1.StorageClass {
	waits := storagev1.VolumeBindingWaitForFirstConsumer
	c := &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &waits}
	for _, f := range change {
		f(c)
	}
	return c
}

// known is a State with classes of local volumes, of a CSI driver, of none that makes volumes, and of one that does not wait.
func known() *State {
	s := New()
	s.SetClass(newClass("local", volume.Local))
	s.SetClass(newClass("csi", "csi.example.com"))
	s.SetClass(newClass("static", storage.NotSupportedProvisioner))
	s.SetClass(newClass("zoned", volume.Local, func(c *storagev1.StorageClass) {
		c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{{Key: corev1.LabelHostname, Values: []string{"host-n1"}}}}}
	}))
	at := storagev1.VolumeBindingImmediate
	s.SetClass(newClass("at-once", "csi.example.com", func(c *storagev1.StorageClass) { c.VolumeBindingMode = &at }))
	return s
}

// bind makes claim and volume known as bound to each other.
func bind(s *State, c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
	v, c, err := volume.Bind(v, c)
	if err != nil {
		panic(err)
	}
	s.SetVolume(v)
	s.SetClaim(c)
}

// on says what a pod gets on a node: "" if all is well.
func on(s *State, pod *corev1.Pod, node *corev1.Node) string {
	w, reason := s.Wants(pod)
	if reason != "" {
		return "pod: " + reason
	}
	if w == nil {
		return ""
	}
	_, why := w.On(node)
	return strings.TrimPrefix(why.By+": "+why.Reason, ": ")
}

func TestReasons(t *testing.T) {
	once := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	}
	many := func(c *corev1.PersistentVolumeClaim) {
		c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	}
	two, yes := int32(2), true
	for _, tc := range []struct {
		name string
		set  func(s *State)
		node *corev1.Node
		want string
	}{
		{"there is no claim", func(*State) {}, newNode("n1"), `pod: persistentvolumeclaim "c" not found`},
		{"it is lost", func(s *State) {
			s.SetClaim(newClaim("c", "local", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName, c.Status.Phase = "v", corev1.ClaimLost }))
		}, newNode("n1"), `pod: persistentvolumeclaim "c" bound to non-existent persistentvolume "v"`},
		{"it is deleted", func(s *State) {
			s.SetClaim(newClaim("c", "local", func(c *corev1.PersistentVolumeClaim) { c.DeletionTimestamp = &metav1.Time{} }))
		}, newNode("n1"), `pod: persistentvolumeclaim "c" is being deleted`},
		{"it is to be bound at once", func(s *State) { s.SetClaim(newClaim("c", "at-once")) }, newNode("n1"), "pod: pod has unbound immediate PersistentVolumeClaims"},
		{"it has no class", func(s *State) { s.SetClaim(newClaim("c", "")) }, newNode("n1"), "pod: pod has unbound immediate PersistentVolumeClaims"},
		{"it names a volume, which is not bound", func(s *State) {
			s.SetClaim(newClaim("c", "local", func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = "v" }))
		}, newNode("n1"), "pod: pod has unbound immediate PersistentVolumeClaims"},
		{"a local volume", func(s *State) { s.SetClaim(newClaim("c", "local")) }, newNode("n1"), ""},
		{"a local volume cannot be shared", func(s *State) { s.SetClaim(newClaim("c", "local", many)) }, newNode("n1"),
			"VolumeBinding: volumes of local.knarr.io are on one node: access mode ReadWriteMany is not possible, ReadWriteOnce and ReadWriteOncePod are"},
		{"the node has no room", func(s *State) { s.SetClaim(newClaim("c", "local")) }, newNode("n1", "9"), "VolumeBinding: node(s) did not have enough free storage"},
		{"the node has just the room", func(s *State) { s.SetClaim(newClaim("c", "local")) }, newNode("n1", "10"), ""},
		{"the class is of other nodes", func(s *State) { s.SetClaim(newClaim("c", "zoned")) }, newNode("n2"), "VolumeBinding: node(s) didn't find available persistent volumes to bind"},
		{"nobody makes volumes", func(s *State) { s.SetClaim(newClaim("c", "static")) }, newNode("n1"), "VolumeBinding: node(s) didn't find available persistent volumes to bind"},
		{"a volume is there", func(s *State) { s.SetClaim(newClaim("c", "static")); s.SetVolume(newVolume("v", "static", "n1")) }, newNode("n1"), ""},
		{"a volume is there, on another node", func(s *State) { s.SetClaim(newClaim("c", "static")); s.SetVolume(newVolume("v", "static", "n2")) }, newNode("n1"),
			"VolumeBinding: node(s) didn't find available persistent volumes to bind"},
		{"its volume is here", func(s *State) { bind(s, newClaim("c", "static"), newVolume("v", "static", "n1")) }, newNode("n1"), ""},
		{"its volume is elsewhere", func(s *State) { bind(s, newClaim("c", "static"), newVolume("v", "static", "n2")) }, newNode("n1"),
			"VolumeBinding: node(s) had volume node affinity conflict"},
		{"its volume is gone", func(s *State) {
			bind(s, newClaim("c", "static"), newVolume("v", "static", "n2"))
			s.RemoveVolume("v")
		}, newNode("n1"), `pod: persistentvolume "v" not found`},
		{"another node was asked for", func(s *State) {
			s.SetClaim(newClaim("c", "csi", func(c *corev1.PersistentVolumeClaim) {
				c.Annotations = map[string]string{storage.AnnSelectedNode: "n2"}
			}))
		}, newNode("n1"), "VolumeBinding: node(s) didn't find available persistent volumes to bind"},
		{"another pod has it for itself", func(s *State) {
			bind(s, newClaim("c", "static", once), newVolume("v", "static", "n1", func(v *corev1.PersistentVolume) { v.Spec.AccessModes = newClaim("c", "", once).Spec.AccessModes }))
			s.SetUser(newPod("q", "c"), "n1")
		}, newNode("n1"), "VolumeRestrictions: node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"},
		{"the pod itself has it", func(s *State) {
			bind(s, newClaim("c", "static", once), newVolume("v", "static", "n1"))
			s.SetUser(newPod("p", "c"), "n1")
			s.SetUser(newPod("q", "c"), "n1")
			s.RemoveUser(newPod("q", "c"), "n1")
		}, newNode("n1"), ""},
		{"its zone is another", func(s *State) {
			bind(s, newClaim("c", "static"), newVolume("v", "static", "n1", func(v *corev1.PersistentVolume) { v.Labels = map[string]string{corev1.LabelTopologyZone: "a__b"} }))
		}, func() *corev1.Node { n := newNode("n1"); n.Labels[corev1.LabelTopologyZone] = "c"; return n }(), "VolumeZone: node(s) had no available volume zone"},
		{"its zone is one of them", func(s *State) {
			bind(s, newClaim("c", "static"), newVolume("v", "static", "n1", func(v *corev1.PersistentVolume) {
				v.Labels = map[string]string{corev1.LabelFailureDomainBetaZone: "a__b"}
			}))
		}, func() *corev1.Node { n := newNode("n1"); n.Labels[corev1.LabelTopologyZone] = "b"; return n }(), ""},
		{"the driver has too many", func(s *State) {
			s.SetNode(&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: "csi.example.com", Allocatable: &storagev1.VolumeNodeResources{Count: &two}}}}})
			s.SetClaim(newClaim("d", "csi"))
			s.SetClaim(newClaim("e", "csi"))
			s.SetUser(newPod("q", "d", "e"), "n1")
			s.SetClaim(newClaim("c", "csi"))
		}, newNode("n1"), "NodeVolumeLimits: node(s) exceed max volume count"},
		{"the driver has it already", func(s *State) {
			s.SetNode(&storagev1.CSINode{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{
				{Name: "csi.example.com", Allocatable: &storagev1.VolumeNodeResources{Count: &two}}}}})
			s.SetClaim(newClaim("c", "csi"))
			s.SetClaim(newClaim("e", "csi"))
			s.SetUser(newPod("q", "c", "e"), "n1")
		}, newNode("n1"), ""},
		{"the driver is not there", func(s *State) {
			s.SetDriver(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "csi.example.com"}, Spec: storagev1.CSIDriverSpec{PreventPodSchedulingIfMissing: &yes}})
			s.SetClaim(newClaim("c", "csi"))
		}, newNode("n1"), "NodeVolumeLimits: csi.example.com CSI driver is not installed on the node"},
		{"the driver has no room", func(s *State) {
			s.SetDriver(&storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: "csi.example.com"}, Spec: storagev1.CSIDriverSpec{StorageCapacity: &yes}})
			s.SetCapacity(&storagev1.CSIStorageCapacity{ObjectMeta: metav1.ObjectMeta{Name: "x"}, StorageClassName: "csi", NodeTopology: &metav1.LabelSelector{}, Capacity: resource.NewQuantity(9, resource.BinarySI)})
			s.SetClaim(newClaim("c", "csi"))
		}, newNode("n1"), "VolumeBinding: node(s) did not have enough free storage"},
	} {
		s := known()
		tc.set(s)
		if got := on(s, newPod("p", "c"), tc.node); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
	if got := on(known(), newPod("p"), newNode("n1")); got != "" {
		t.Errorf("a pod without volumes: %q", got)
	}
}

// place takes what a pod gets on a node, and returns what binding it does.
func place(t *testing.T, s *State, pod *corev1.Pod, node *corev1.Node) []volume.Binding {
	t.Helper()
	w, reason := s.Wants(pod)
	if reason != "" {
		t.Fatal(reason)
	}
	f, why := w.On(node)
	if why != (Refusal{}) {
		t.Fatal(why)
	}
	return s.Assume(pod, w, f)
}

// A node has room for two volumes. Whatever is heard of them in which order, there is never room for a third.
func TestRoomIsGivenOnce(t *testing.T) {
	events := map[string]func(s *State, c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume){
		"nothing":    func(*State, *corev1.PersistentVolumeClaim, *corev1.PersistentVolume) {},
		"the claim":  func(s *State, c *corev1.PersistentVolumeClaim, _ *corev1.PersistentVolume) { s.SetClaim(c) },
		"the volume": func(s *State, _ *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) { s.SetVolume(v) },
		"the claim, then the volume": func(s *State, c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			s.SetClaim(c)
			s.SetVolume(v)
		},
		"the volume, then the claim": func(s *State, c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			s.SetVolume(v)
			s.SetClaim(c)
		},
		"the volume twice": func(s *State, c *corev1.PersistentVolumeClaim, v *corev1.PersistentVolume) {
			s.SetVolume(v)
			s.SetVolume(v)
			s.SetClaim(c)
		},
	}
	for name, heard := range events {
		s, node := known(), newNode("n1", "25")
		for _, c := range []string{"a", "b", "c"} {
			s.SetClaim(newClaim(c, "local"))
		}
		for _, c := range []string{"a", "b"} {
			b := place(t, s, newPod(c, c), node)
			if len(b) != 1 || !b[0].New || b[0].Volume.Name != "pvc-uid-"+c || volume.LocalHost(b[0].Volume) != "host-n1" {
				t.Fatalf("%s: %+v", name, b)
			}
			v, claim, err := volume.Bind(b[0].Volume, newClaim(c, "local"))
			if err != nil {
				t.Fatal(err)
			}
			heard(s, claim, v)
		}
		if got := on(s, newPod("p", "c"), node); got != "VolumeBinding: node(s) did not have enough free storage" {
			t.Errorf("after %s: %q", name, got)
		}
		if got := on(s, newPod("q", "a"), newNode("n2")); got != "VolumeBinding: node(s) had volume node affinity conflict" {
			t.Errorf("after %s, another pod with the first claim: %q", name, got)
		}
		if name == "nothing" {
			if !s.NotBound("uid-a") || s.NotBound("uid-a") {
				t.Error("what was not bound is given back once")
			}
		} else {
			s.SetVolume(newVolume("pvc-uid-a", "x", "n1")) // it is not a local one any longer
		}
		if got := on(s, newPod("p", "c"), node); got != "" {
			t.Errorf("after %s, and one that went: %q", name, got)
		}
	}
}

// Two claims want the one volume that is there.
func TestAVolumeIsGivenOnce(t *testing.T) {
	s, node := known(), newNode("n1")
	s.SetClaim(newClaim("a", "static"))
	s.SetClaim(newClaim("b", "static"))
	s.SetVolume(newVolume("v", "static", "n1"))
	b := place(t, s, newPod("p", "a"), node)
	if len(b) != 1 || b[0].New || b[0].Volume.Name != "v" {
		t.Fatalf("%+v", b)
	}
	const taken = "VolumeBinding: node(s) didn't find available persistent volumes to bind"
	if got := on(s, newPod("q", "b"), node); got != taken {
		t.Errorf("while it is bound: %q", got)
	}
	s.SetVolume(newVolume("v", "static", "n1", func(v *corev1.PersistentVolume) { v.Labels = map[string]string{"new": "label"} }))
	if got := on(s, newPod("q", "b"), node); got != taken {
		t.Errorf("after a change of something else: %q", got)
	}
	// Another pod with the claim waits for what the first brings.
	if shared := place(t, s, newPod("r", "a"), node); len(shared) != 1 || shared[0].Volume != nil || shared[0].UID != "uid-a" {
		t.Errorf("%+v", shared)
	}
	bind(s, newClaim("a", "static"), newVolume("v", "static", "n1"))
	if len(s.assumed)+len(s.coming) != 0 {
		t.Errorf("it is bound, and still assumed: %v %v", s.assumed, s.coming)
	}
	if got := on(s, newPod("q", "b"), node); got != taken {
		t.Errorf("when it is bound: %q", got)
	}
}

// Of a provisioner that has to be asked, the pod waits for the answer.
func TestAsking(t *testing.T) {
	s, node := known(), newNode("n1")
	s.SetClaim(newClaim("c", "csi"))
	find := func() Found {
		w, _ := s.Wants(newPod("p", "c"))
		f, _ := w.On(node)
		return f
	}
	if f := find(); !slices.Equal(f.Foreign(), []types.NamespacedName{{Namespace: "a", Name: "c"}}) || f.Waits() {
		t.Errorf("before: %+v", f)
	}
	s.SetClaim(newClaim("c", "csi", func(c *corev1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{storage.AnnSelectedNode: "n1"}
	}))
	if f := find(); !f.Waits() {
		t.Errorf("asked: %+v", f)
	}
	bind(s, newClaim("c", "csi"), newVolume("v", "csi", "n1"))
	if f := find(); len(f.Foreign()) != 0 || f.Waits() {
		t.Errorf("answered: %+v", f)
	}
}

// Large claims get the large volumes, though they are looked at after the small ones.
func TestSmallClaimsFirst(t *testing.T) {
	s, node := known(), newNode("n1")
	big := func(c *corev1.PersistentVolumeClaim) { c.Spec.Resources.Requests["storage"] = resource.MustParse("20") }
	s.SetClaim(newClaim("big", "static", big))
	s.SetClaim(newClaim("small", "static"))
	s.SetVolume(newVolume("v10", "static", "n1"))
	s.SetVolume(newVolume("v20", "static", "n1", func(v *corev1.PersistentVolume) { v.Spec.Capacity["storage"] = resource.MustParse("20") }))
	got := map[string]string{}
	for _, b := range place(t, s, newPod("p", "big", "small"), node) {
		got[b.Claim.Name] = b.Volume.Name
	}
	if got["big"] != "v20" || got["small"] != "v10" {
		t.Errorf("%v", got)
	}
}
