package attachdetach

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/api/volume"
)

func disk(change ...func(*corev1.PersistentVolume)) *corev1.PersistentVolume {
	v := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
		AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: "d", VolumeHandle: "h"}}}}
	for _, f := range change {
		f(v)
	}
	return v
}

func on(node, name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: node}}
}

func to(node string, change ...func(*storagev1.VolumeAttachment)) *storagev1.VolumeAttachment {
	a := attachment(disk(), node)
	for _, f := range change {
		f(a)
	}
	return a
}

func leaving(a *storagev1.VolumeAttachment) { a.DeletionTimestamp = &metav1.Time{} }

func machine(name string, change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: corev1.NodeStatus{Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}}}
	for _, f := range change {
		f(n)
	}
	return n
}

func inUse(n *corev1.Node) {
	n.Status.VolumesInUse = []corev1.UniqueVolumeName{volume.UniqueName("d", "h")}
}
func silent(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown }
func off(n *corev1.Node) {
	n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Effect: corev1.TaintEffectNoExecute}}
}

// says writes an outcome down.
func says(o outcome) string {
	var out []string
	for _, a := range o.create {
		out = append(out, "attach "+a.Spec.NodeName)
	}
	for _, a := range o.remove {
		out = append(out, "detach "+a.Spec.NodeName)
	}
	for _, e := range o.events {
		out = append(out, e.About.GetName()+" "+e.Reason+": "+e.Message)
	}
	if o.again > 0 {
		out = append(out, "again after "+o.again.String())
	}
	return strings.Join(out, "; ")
}

func viewOf(v *corev1.PersistentVolume, users []*corev1.Pod, attachments ...*storagev1.VolumeAttachment) view {
	return view{volume: v, users: users, attachments: attachments, nodes: map[string]*corev1.Node{"n1": machine("n1"), "n2": machine("n2")}, now: time.Unix(1000, 0)}
}

func TestPlan(t *testing.T) {
	a, b, c := on("n1", "a"), on("n2", "b"), on("n1", "c")
	many := func(v *corev1.PersistentVolume) {
		v.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}
	}
	failed := func(a *storagev1.VolumeAttachment) { a.Status.AttachError = &storagev1.VolumeError{Message: "no disk"} }
	for name, tc := range map[string]struct {
		view view
		want string
	}{
		"nobody uses it":            {viewOf(disk(), nil), ""},
		"one pod":                   {viewOf(disk(), []*corev1.Pod{a}), "attach n1"},
		"two of one node":           {viewOf(disk(), []*corev1.Pod{a, c}), "attach n1"},
		"it is attached":            {viewOf(disk(), []*corev1.Pod{a}, to("n1")), ""},
		"it could not be attached":  {viewOf(disk(), []*corev1.Pod{a}, to("n1", failed)), `a FailedAttachVolume: AttachVolume.Attach failed for volume "pv" : no disk`},
		"another node has it":       {viewOf(disk(), []*corev1.Pod{a, b}, to("n1")), `b FailedAttachVolume: Multi-Attach error for volume "pv" Volume is already used by pod(s) a`},
		"another gives it back":     {viewOf(disk(), []*corev1.Pod{b}, to("n1", leaving)), `b FailedAttachVolume: Multi-Attach error for volume "pv" Volume is already exclusively attached to one node and can't be attached to another`},
		"many nodes may have it":    {viewOf(disk(many), []*corev1.Pod{a, b}, to("n1")), "attach n2"},
		"its node is not there":     {viewOf(disk(), []*corev1.Pod{on("n3", "x")}), ""},
		"a volume of Knarr's own":   {viewOf(disk(func(v *corev1.PersistentVolume) { v.Spec.CSI.Driver = localvolume.Driver }), []*corev1.Pod{a}), ""},
		"a volume of no driver":     {viewOf(disk(func(v *corev1.PersistentVolume) { v.Spec.CSI = nil }), []*corev1.Pod{a}), ""},
		"the volume is gone":        {viewOf(nil, nil, to("n3")), "again after 6m0s"},
		"nobody uses it any longer": {viewOf(disk(), nil, to("n1"), to("n2", leaving)), "detach n1"},
	} {
		if got := says(plan(tc.view)); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
	v := viewOf(disk(), []*corev1.Pod{a})
	v.driver = &storagev1.CSIDriver{Spec: storagev1.CSIDriverSpec{AttachRequired: new(false)}}
	if got := says(plan(v)); got != "" {
		t.Errorf("a driver that attaches nothing: %q", got)
	}
}

// Two exclusive attachments are never asked for at once, also not for pods that come together.
func TestOneNodeAtATime(t *testing.T) {
	if got := says(plan(viewOf(disk(), []*corev1.Pod{on("n1", "a"), on("n2", "b")}))); !strings.HasPrefix(got, "attach n1; b FailedAttachVolume: Multi-Attach error") {
		t.Errorf("%q", got)
	}
}

func TestDetaching(t *testing.T) {
	for name, tc := range map[string]struct {
		node   *corev1.Node
		unused time.Duration // since when no pod uses it
		want   string
	}{
		"the node has given it back":           {machine("n1"), 0, "detach n1"},
		"it has it in use":                     {machine("n1", inUse), 0, "again after 6m0s"},
		"for long":                             {machine("n1", inUse), time.Hour, "again after 6m0s"},
		"it is not heard of":                   {machine("n1", inUse, silent), time.Minute, "again after 5m0s"},
		"for long it is not":                   {machine("n1", inUse, silent), 6 * time.Minute, "detach n1"},
		"somebody says that it is off":         {machine("n1", inUse, silent, off), 0, "detach n1"},
		"it is gone":                           {nil, time.Minute, "again after 5m0s"},
		"it is gone for long":                  {nil, 7 * time.Minute, "detach n1"},
		"it is not heard of, but gave it back": {machine("n1", silent), 0, "detach n1"},
	} {
		v := viewOf(disk(), nil, to("n1"))
		delete(v.nodes, "n1")
		if tc.node != nil {
			v.nodes["n1"] = tc.node
		}
		if tc.unused > 0 {
			v.unused = map[string]time.Time{to("n1").Name: v.now.Add(-tc.unused)}
		}
		if got := says(plan(v)); got != tc.want {
			t.Errorf("%s: %q, want %q", name, got, tc.want)
		}
	}
}

func TestOver(t *testing.T) {
	state := func(s corev1.ContainerState) []corev1.ContainerStatus { return []corev1.ContainerStatus{{State: s}} }
	running, ended := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}, corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
	for name, tc := range map[string]struct {
		deleted bool
		status  corev1.PodStatus
		want    bool
	}{
		"runs":                    {false, corev1.PodStatus{ContainerStatuses: state(running)}, false},
		"waits to be begun again": {false, corev1.PodStatus{ContainerStatuses: state(ended)}, false},
		"succeeded":               {false, corev1.PodStatus{Phase: corev1.PodSucceeded}, true},
		"ends":                    {true, corev1.PodStatus{ContainerStatuses: state(running)}, false},
		"has ended":               {true, corev1.PodStatus{ContainerStatuses: state(ended)}, true},
	} {
		p := on("n1", "p")
		p.Status = tc.status
		if tc.deleted {
			p.DeletionTimestamp = &metav1.Time{}
		}
		if got := over(p); got != tc.want {
			t.Errorf("a pod that %s: %v", name, got)
		}
	}
}
