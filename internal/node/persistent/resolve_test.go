package persistent

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// objects is a cluster of claims and volumes, by name.
type objects struct {
	claims  map[string]*corev1.PersistentVolumeClaim
	volumes map[string]*corev1.PersistentVolume
}

func (o *objects) Claim(_ context.Context, _, name string) (*corev1.PersistentVolumeClaim, error) {
	if c := o.claims[name]; c != nil {
		return c, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumeclaims"), name)
}

func (o *objects) PersistentVolume(_ context.Context, name string) (*corev1.PersistentVolume, error) {
	if v := o.volumes[name]; v != nil {
		return v, nil
	}
	return nil, apierrors.NewNotFound(corev1.Resource("persistentvolumes"), name)
}

// bound returns claim default/data, bound to volume pv.
func bound() *objects {
	claim := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "data", UID: "claim"},
		Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv"}, Status: corev1.PersistentVolumeClaimStatus{Phase: corev1.ClaimBound}}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{ClaimRef: &corev1.ObjectReference{Namespace: "default", Name: "data", UID: "claim"}}}
	return &objects{map[string]*corev1.PersistentVolumeClaim{"data": claim}, map[string]*corev1.PersistentVolume{"pv": pv}}
}

// podWith returns pod p, whose container mounts volume v, which is claim default/data.
func podWith(change ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "uid-1"}, Spec: corev1.PodSpec{
		Volumes:    []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}},
		Containers: []corev1.Container{{Name: "c", VolumeMounts: []corev1.VolumeMount{{Name: "v", MountPath: "/data"}}}}}}
	for _, f := range change {
		f(p)
	}
	return p
}

func asDevice(p *corev1.Pod) {
	c := &p.Spec.Containers[0]
	c.VolumeMounts, c.VolumeDevices = nil, []corev1.VolumeDevice{{Name: "v", DevicePath: "/dev/data"}}
}

func asEphemeral(p *corev1.Pod) {
	p.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}
}

func blockMode(pv *corev1.PersistentVolume) { pv.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) }

func TestWhyAPodWaits(t *testing.T) {
	const prefix = "Unable to attach or mount volumes: unmounted volumes=[v], unattached volumes=[], failed to process volumes=[v]: "
	const data = prefix + "error processing PVC default/data: "
	for name, tc := range map[string]struct {
		pod    func(*corev1.Pod)
		change func(*objects)
		want   string
	}{
		"nothing":        {nil, nil, ""},
		"no claim":       {nil, func(o *objects) { delete(o.claims, "data") }, data + `failed to fetch PVC from API server: persistentvolumeclaims "data" not found`},
		"an ended claim": {nil, func(o *objects) { o.claims["data"].DeletionTimestamp = &metav1.Time{} }, data + "PVC is being deleted"},
		"a claim that ends after its pods": {nil, func(o *objects) {
			o.claims["data"].DeletionTimestamp, o.claims["data"].Finalizers = &metav1.Time{}, []string{protected}
		}, ""},
		"an unbound claim": {nil, func(o *objects) { o.claims["data"].Status.Phase = corev1.ClaimPending }, data + "PVC is not bound"},
		"a lost claim":     {nil, func(o *objects) { o.claims["data"].Status.Phase = corev1.ClaimLost }, data + "PVC is not bound"},
		"no volume name":   {nil, func(o *objects) { o.claims["data"].Spec.VolumeName = "" }, data + "PVC has empty pvc.Spec.VolumeName"},
		"no volume":        {nil, func(o *objects) { delete(o.volumes, "pv") }, data + `failed to fetch PV pv from API server: persistentvolumes "pv" not found`},
		"a free volume": {nil, func(o *objects) { o.volumes["pv"].Spec.ClaimRef = nil },
			data + "found PV object pv but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim"},
		"another claim's volume": {nil, func(o *objects) { o.volumes["pv"].Spec.ClaimRef.UID = "old" },
			data + "found PV object pv but its pv.Spec.ClaimRef.UID old does not point to claim.UID claim"},
		"a device that is mounted": {nil, func(o *objects) { blockMode(o.volumes["pv"]) }, prefix + "volume v has volumeMode Block, but is specified in volumeMounts"},
		"files as a device":        {asDevice, nil, prefix + "volume v has volumeMode Filesystem, but is specified in volumeDevices"},
		"a device":                 {asDevice, func(o *objects) { blockMode(o.volumes["pv"]) }, ""},
		"another pod's ephemeral volume": {asEphemeral, func(o *objects) { o.claims["p-v"] = o.claims["data"] },
			prefix + "PVC default/data was not created for pod default/p (pod is not owner)"},
		"its ephemeral volume": {asEphemeral, func(o *objects) {
			o.claims["p-v"] = o.claims["data"]
			o.claims["p-v"].OwnerReferences = []metav1.OwnerReference{{UID: "uid-1", Controller: new(true)}}
		}, ""},
	} {
		o := bound()
		if tc.change != nil {
			tc.change(o)
		}
		pod := podWith()
		if tc.pod != nil {
			tc.pod(pod)
		}
		got, err := Resolve(t.Context(), pod, nil, o)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != tc.want || (err == nil) != (got["v"] != nil) {
			t.Errorf("%s:\n got %q\nwant %q", name, text, tc.want)
		}
	}
}

func TestWhatIsHeldOrUnusedIsNotAskedFor(t *testing.T) {
	none := &objects{}
	if got, err := Resolve(t.Context(), podWith(), map[string]Mounted{"v": {}}, none); len(got) != 0 || err != nil {
		t.Errorf("held: %v %v", got, err)
	}
	if got, err := Resolve(t.Context(), podWith(func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil }), nil, none); len(got) != 0 || err != nil {
		t.Errorf("unused: %v %v", got, err)
	}
	init := podWith(func(p *corev1.Pod) {
		p.Spec.InitContainers, p.Spec.Containers = p.Spec.Containers, []corev1.Container{{Name: "d"}}
	})
	if got, err := Resolve(t.Context(), init, nil, bound()); got["v"] == nil || err != nil {
		t.Errorf("used by an init container: %v %v", got, err)
	}
}

func TestAllThatWaitIsNamed(t *testing.T) {
	pod := podWith(func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: "a", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "none"}}})
		p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "a"})
	})
	_, err := Resolve(t.Context(), pod, nil, &objects{})
	if err == nil || !strings.Contains(err.Error(), "unmounted volumes=[a v]") || !strings.Contains(err.Error(), "default/data") || !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}
