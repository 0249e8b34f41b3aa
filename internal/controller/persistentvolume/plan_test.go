package persistentvolume

import (
	"fmt"
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

type (
	claimChange  = func(*corev1.PersistentVolumeClaim)
	volumeChange = func(*corev1.PersistentVolume)
)

func newClaim(class string, change ...claimChange) *corev1.PersistentVolumeClaim {
	c := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c", UID: "uid-c"}, Spec: corev1.PersistentVolumeClaimSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources:   corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("5Gi")}}},
		Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimPending}}
	if class != "none" {
		c.Spec.StorageClassName = &class
	}
	for _, f := range change {
		f(c)
	}
	return c
}

func newVolume(name, class string, change ...volumeChange) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PersistentVolumeSpec{
		Capacity: corev1.ResourceList{"storage": resource.MustParse("5Gi")}, StorageClassName: class, PersistentVolumeReclaimPolicy: corev1.PersistentVolumeReclaimRetain,
		AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/srv/" + name}}},
		Status: corev1.PersistentVolumeStatus{Phase: corev1.VolumeAvailable}}
	for _, f := range change {
		f(v)
	}
	return v
}

func names(v string) claimChange {
	return func(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeName = v }
}

func claimAnnotation(key, value string) claimChange {
	return func(c *corev1.PersistentVolumeClaim) { metav1.SetMetaDataAnnotation(&c.ObjectMeta, key, value) }
}

var complete = claimAnnotation(storage.AnnBindCompleted, "yes")

func refersTo(name, uid string) volumeChange {
	return func(v *corev1.PersistentVolume) {
		v.Spec.ClaimRef = &corev1.ObjectReference{Kind: "PersistentVolumeClaim", APIVersion: "v1", Namespace: "a", Name: name, UID: types.UID(uid)}
	}
}

func volumeAnnotation(key, value string) volumeChange {
	return func(v *corev1.PersistentVolume) { metav1.SetMetaDataAnnotation(&v.ObjectMeta, key, value) }
}

func phase(p corev1.PersistentVolumePhase) volumeChange {
	return func(v *corev1.PersistentVolume) { v.Status.Phase = p }
}

func policy(p corev1.PersistentVolumeReclaimPolicy) volumeChange {
	return func(v *corev1.PersistentVolume) { v.Spec.PersistentVolumeReclaimPolicy = p }
}

func newClass(name, provisioner string, mode storagev1.VolumeBindingMode) *storagev1.StorageClass {
	return &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &mode}
}

// says writes an outcome in few words.
func says(o outcome) string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if v := o.volume; v != nil {
		ref := "free"
		if r := v.Spec.ClaimRef; r != nil {
			ref = "of " + r.Name + "/" + string(r.UID)
		}
		add("%s %s %s", v.Name, v.Status.Phase, ref)
	}
	if c := o.claim; c != nil {
		add("claim %s %q", c.Status.Phase, c.Spec.VolumeName)
		if c.Spec.StorageClassName != nil && c.Status.Phase == corev1.ClaimPending {
			add("class %s", *c.Spec.StorageClassName)
		}
		if p := c.Annotations[storage.AnnStorageProvisioner]; p != "" {
			add("by %s", p)
		}
	}
	if o.remove {
		add("removed")
	}
	if o.local {
		add("local")
	}
	if o.failure != nil {
		add("error")
	}
	for _, e := range o.events {
		add("%s: %s", e.Reason, e.Message)
	}
	return strings.Join(parts, "; ")
}

func TestPlanClaim(t *testing.T) {
	immediate, waits := storagev1.VolumeBindingImmediate, storagev1.VolumeBindingWaitForFirstConsumer
	lost := func(c *corev1.PersistentVolumeClaim) { c.Status.Phase = corev1.ClaimLost }
	for _, tc := range []struct {
		name string
		view claimView
		want string
	}{
		{"a volume suits", claimView{claim: newClaim(""), volumes: []*corev1.PersistentVolume{newVolume("v", "")}}, `v Bound of c/uid-c; claim Bound "v"`},
		{"there is no volume and no class", claimView{claim: newClaim("")}, "FailedBinding: no persistent volumes available for this claim and no storage class is set"},
		{"there is a default class by now", claimView{claim: newClaim("none"), fallback: newClass("gold", "x", immediate)}, `claim Pending ""; class gold`},
		{"it wants no class", claimView{claim: newClaim(""), fallback: newClass("gold", "x", immediate)}, "FailedBinding: no persistent volumes available for this claim and no storage class is set"},
		{"its class is not there", claimView{claim: newClaim("gold")}, `ProvisioningFailed: storageclass.storage.k8s.io "gold" not found`},
		{"its class is of a provisioner", claimView{claim: newClaim("gold"), class: newClass("gold", "csi.example.com", immediate)},
			`claim Pending ""; class gold; by csi.example.com; ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'csi.example.com' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.`},
		{"its class makes nothing", claimView{claim: newClaim("gold"), class: newClass("gold", storage.NotSupportedProvisioner, immediate)},
			"ProvisioningFailed: no volume plugin matched name: kubernetes.io/no-provisioner"},
		{"no pod uses it", claimView{claim: newClaim("gold"), class: newClass("gold", "x", waits), volumes: []*corev1.PersistentVolume{newVolume("v", "gold")}},
			"WaitForFirstConsumer: waiting for first consumer to be created before binding"},
		{"a pod uses it", claimView{claim: newClaim("gold"), class: newClass("gold", "x", waits), waiting: []string{"p"}}, "WaitForPodScheduled: waiting for pod p to be scheduled"},
		{"pods use it", claimView{claim: newClaim("gold"), class: newClass("gold", "x", waits), waiting: []string{"q", "p"}}, "WaitForPodScheduled: waiting for pods p,q to be scheduled"},
		{"its pod has a node", claimView{claim: newClaim("gold", claimAnnotation(storage.AnnSelectedNode, "n")), class: newClass("gold", volume.Local, waits)}, `claim Pending ""; class gold; by local.knarr.io; local`},
		{"its class makes local volumes", claimView{claim: newClaim("gold", claimAnnotation(storage.AnnStorageProvisioner, volume.Local), claimAnnotation(storage.AnnBetaStorageProvisioner, volume.Local)),
			class: newClass("gold", volume.Local, immediate)}, "local"},
		{"a local volume cannot be shared", claimView{claim: newClaim("gold", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
		}), class: newClass("gold", volume.Local, immediate)},
			"ProvisioningFailed: volumes of local.knarr.io are on one node: access mode ReadWriteMany is not possible, ReadWriteOnce and ReadWriteOncePod are"},
		{"which is said before a pod comes", claimView{claim: newClaim("gold", func(c *corev1.PersistentVolumeClaim) {
			c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadOnlyMany}
		}), class: newClass("gold", volume.Local, waits)},
			"ProvisioningFailed: volumes of local.knarr.io are on one node: access mode ReadOnlyMany is not possible, ReadWriteOnce and ReadWriteOncePod are"},

		{"it names a volume that is not there", claimView{claim: newClaim("", names("v"))}, ""},
		{"it names a free one", claimView{claim: newClaim("", names("v")), named: newVolume("v", "")}, `v Bound of c/uid-c; claim Bound "v"`},
		{"it names one that does not suit", claimView{claim: newClaim("", names("v")), named: newVolume("v", "gold")}, `VolumeMismatch: Cannot bind to requested volume "v": storageClassName does not match`},
		{"it names one that is reserved for it", claimView{claim: newClaim("", names("v")), named: newVolume("v", "", refersTo("c", ""))}, `v Bound of c/uid-c; claim Bound "v"`},
		{"it names one of another", claimView{claim: newClaim("", names("v")), named: newVolume("v", "", refersTo("d", "uid-d"))}, `FailedBinding: volume "v" already bound to a different claim.`},
		{"it names one of a claim of its name before it", claimView{claim: newClaim("", names("v")), named: newVolume("v", "", refersTo("c", "uid-before"))}, `FailedBinding: volume "v" already bound to a different claim.`},

		{"it was bound and names nothing", claimView{claim: newClaim("", complete)}, `claim Lost ""; ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the volume is lost!`},
		{"its volume is gone", claimView{claim: newClaim("", complete, names("v"))}, `claim Lost "v"; ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!`},
		{"it has been lost for long", claimView{claim: newClaim("", complete, names("v"), lost)}, ""},
		{"its volume came back", claimView{claim: newClaim("", complete, names("v"), lost), named: newVolume("v", "")}, `v Bound of c/uid-c; claim Bound "v"`},
		{"its volume is another's", claimView{claim: newClaim("", complete, names("v")), named: newVolume("v", "", refersTo("d", "uid-d"))}, `claim Lost "v"; ClaimMisbound: Two claims are bound to the same volume, this one is bound incorrectly`},
		{"its volume does not say so yet", claimView{claim: newClaim("", complete, names("v")), named: newVolume("v", "", refersTo("c", "uid-c"))}, `v Bound of c/uid-c; claim Bound "v"`},
	} {
		if got := says(planClaim(tc.view)); got != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

func TestPlanVolume(t *testing.T) {
	bound := newClaim("", complete, names("v"))
	for _, tc := range []struct {
		name   string
		volume *corev1.PersistentVolume
		claim  *corev1.PersistentVolumeClaim
		want   string
	}{
		{"new", newVolume("v", "", phase(corev1.VolumePending)), nil, "v Available free"},
		{"free", newVolume("v", ""), nil, ""},
		{"reserved", newVolume("v", "", phase(corev1.VolumePending), refersTo("c", "")), nil, "v Available of c/"},
		{"being bound", newVolume("v", "", refersTo("c", "uid-c")), newClaim(""), ""},
		{"bound", newVolume("v", "", refersTo("c", "uid-c")), bound, "v Bound of c/uid-c"},
		{"bound, and says so", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeBound)), bound, ""},
		{"its claim is gone", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeBound)), nil, "v Released of c/uid-c"},
		{"its claim is another by now", newVolume("v", "", refersTo("c", "uid-before"), phase(corev1.VolumeBound)), bound, "v Released of c/uid-before"},
		{"kept", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeReleased)), nil, ""},
		{"a local one goes", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeBound), policy(corev1.PersistentVolumeReclaimDelete),
			volumeAnnotation(storage.AnnDynamicallyProvisioned, volume.Local)), nil, "v Released of c/uid-c; removed"},
		{"a local one that is kept", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeBound), volumeAnnotation(storage.AnnDynamicallyProvisioned, volume.Local)), nil, "v Released of c/uid-c"},
		{"its provisioner deletes it", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeBound), policy(corev1.PersistentVolumeReclaimDelete),
			volumeAnnotation(storage.AnnDynamicallyProvisioned, "csi.example.com")), nil, "v Released of c/uid-c"},
		{"nobody deletes it", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeBound), policy(corev1.PersistentVolumeReclaimDelete)), nil,
			`v Failed of c/uid-c; VolumeFailedDelete: error getting deleter volume plugin for volume "v": no deletable volume plugin matched`},
		{"nobody wipes it", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeBound), policy(corev1.PersistentVolumeReclaimRecycle)), nil,
			"v Failed of c/uid-c; VolumeFailedRecycle: No recycler plugin found for the volume!"},
		{"it has failed", newVolume("v", "", refersTo("c", "uid-c"), phase(corev1.VolumeFailed), policy(corev1.PersistentVolumeReclaimRecycle)), nil, ""},
		{"its claim chose another", newVolume("w", "", refersTo("c", "uid-c"), volumeAnnotation(storage.AnnBoundByController, "yes")), bound, "w Available free"},
		{"its claim chose another though it was reserved", newVolume("w", "", refersTo("c", "uid-c")), bound, "w Available of c/"},
		{"its claim chose another though it was made for it", newVolume("w", "", refersTo("c", "uid-c"), policy(corev1.PersistentVolumeReclaimDelete),
			volumeAnnotation(storage.AnnDynamicallyProvisioned, volume.Local)), bound, "w Released of c/uid-c; removed"},
	} {
		if got := says(planVolume(tc.volume, tc.claim)); got != tc.want {
			t.Errorf("%s:\n%s\nwant\n%s", tc.name, got, tc.want)
		}
	}
}

func TestPlanLocal(t *testing.T) {
	node := func(name string, room string, change ...func(*corev1.Node)) *corev1.Node {
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: "host-" + name}, Annotations: map[string]string{}},
			Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
		if room != "" {
			n.Annotations[volume.LocalCapacity] = room
		}
		for _, f := range change {
			f(n)
		}
		return n
	}
	class := newClass("gold", volume.Local, storagev1.VolumeBindingImmediate)
	on := func(name string) *corev1.PersistentVolume {
		other := newClaim("gold", func(c *corev1.PersistentVolumeClaim) { c.UID = types.UID("on-" + name) })
		return volume.NewLocal(other, class, "host-"+name)
	}
	cordoned := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	down := func(n *corev1.Node) { n.Status.Conditions = nil }
	tainted := func(n *corev1.Node) {
		n.Spec.Taints = []corev1.Taint{{Key: "x", Effect: corev1.TaintEffectNoSchedule}}
	}
	for _, tc := range []struct {
		name    string
		claim   *corev1.PersistentVolumeClaim
		nodes   []*corev1.Node
		volumes []*corev1.PersistentVolume
		want    string
	}{
		{"there is no node", newClaim("gold"), nil, nil, "no node is ready, takes pods and has room for a local volume of 5368709120 bytes"},
		{"none that takes pods", newClaim("gold"), []*corev1.Node{node("a", "", cordoned), node("b", "", down), node("c", "", tainted)}, nil,
			"no node is ready, takes pods and has room for a local volume of 5368709120 bytes"},
		{"the one with least on it", newClaim("gold"), []*corev1.Node{node("a", ""), node("b", "")}, []*corev1.PersistentVolume{on("a")}, "host-b"},
		{"the one with room", newClaim("gold"), []*corev1.Node{node("a", "5368709119"), node("b", "10737418240")}, []*corev1.PersistentVolume{on("b")}, "host-b"},
		{"none has room", newClaim("gold"), []*corev1.Node{node("b", "10737418239")}, []*corev1.PersistentVolume{on("b")},
			"no node is ready, takes pods and has room for a local volume of 5368709120 bytes"},
		{"the one that was selected", newClaim("gold", claimAnnotation(storage.AnnSelectedNode, "b")), []*corev1.Node{node("a", ""), node("b", "", cordoned)}, nil, "host-b"},
		{"the one that was selected is full", newClaim("gold", claimAnnotation(storage.AnnSelectedNode, "b")), []*corev1.Node{node("a", ""), node("b", "0")}, nil,
			"node b has no room for a local volume of 5368709120 bytes"},
	} {
		v, got := planLocal(tc.claim, class, tc.nodes, tc.volumes)
		if v != nil {
			got = volume.LocalHost(v)
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}
