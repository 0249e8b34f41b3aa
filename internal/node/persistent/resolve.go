package persistent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Reader reads the objects that claims lead to.
type Reader interface {
	Claim(ctx context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*corev1.PersistentVolume, error)
}

// Volume is a volume of a pod that is claimed.
type Volume struct {
	Name     string // in the pod
	Claim    *corev1.PersistentVolumeClaim
	PV       *corev1.PersistentVolume
	ReadOnly bool
	// Inline says that the volume stands in the pod's specification (csi): there is no claim, and PV was made for it.
	Inline bool
}

// Block reports whether the volume is a device.
func (v *Volume) Block() bool {
	return v.PV.Spec.VolumeMode != nil && *v.PV.Spec.VolumeMode == corev1.PersistentVolumeBlock
}

// ClaimName returns the claim of one of the pod's volumes; that of an ephemeral one is called after pod and volume (KEP-1698). "" for none.
func ClaimName(pod *corev1.Pod, v *corev1.Volume) string {
	switch {
	case v.PersistentVolumeClaim != nil:
		return v.PersistentVolumeClaim.ClaimName
	case v.Ephemeral != nil:
		return pod.Name + "-" + v.Name
	}
	return ""
}

// protected is the finalizer of a claim that pods use.
const protected = "kubernetes.io/pvc-protection"

// waiting is why a pod has not got all its volumes, as the kubelet says it: which, and what came of each.
type waiting struct {
	names []string
	why   []error
}

func (w *waiting) Error() string {
	why := make([]string, len(w.why))
	for i, err := range w.why {
		why[i] = err.Error()
	}
	return fmt.Sprintf("Unable to attach or mount volumes: unmounted volumes=%v, unattached volumes=[], failed to process volumes=%v: %s", w.names, w.names, strings.Join(why, "; "))
}

// Unwrap lets the causes be found.
func (w *waiting) Unwrap() []error { return w.why }

// Resolve returns the volumes that a pod's containers use by claims, by name in the pod, but for those that it has. All must be there.
func Resolve(ctx context.Context, pod *corev1.Pod, have map[string]Mounted, from Reader) (map[string]*Volume, error) {
	out := map[string]*Volume{}
	w := &waiting{}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		claim := ClaimName(pod, v)
		mounted, device := uses(pod, v.Name)
		if _, ok := have[v.Name]; ok || claim == "" || !mounted && !device {
			continue
		}
		got, err := one(ctx, pod, v, claim, from)
		if err == nil {
			err = checkMode(got, mounted, device)
		}
		if err != nil {
			w.names, w.why = append(w.names, v.Name), append(w.why, err)
			continue
		}
		out[v.Name] = got
	}
	if len(w.why) > 0 {
		slices.Sort(w.names)
		return nil, w
	}
	return out, nil
}

// uses reports whether a container mounts a volume, and whether one has it as a device.
func uses(pod *corev1.Pod, volume string) (mounted, device bool) {
	look := func(c *corev1.Container) {
		mounted = mounted || slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == volume })
		device = device || slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == volume })
	}
	for i := range pod.Spec.InitContainers {
		look(&pod.Spec.InitContainers[i])
	}
	for i := range pod.Spec.Containers {
		look(&pod.Spec.Containers[i])
	}
	for i := range pod.Spec.EphemeralContainers {
		look((*corev1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon))
	}
	return mounted, device
}

func one(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, name string, from Reader) (*Volume, error) {
	claim, err := from.Claim(ctx, pod.Namespace, name)
	if err != nil {
		err = fmt.Errorf("failed to fetch PVC from API server: %w", err)
	} else {
		err = checkClaim(claim)
	}
	if err != nil {
		return nil, fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err)
	}
	if v.Ephemeral != nil && !metav1.IsControlledBy(claim, pod) {
		return nil, fmt.Errorf("PVC %s/%s was not created for pod %s/%s (pod is not owner)", claim.Namespace, claim.Name, pod.Namespace, pod.Name)
	}
	pv, err := from.PersistentVolume(ctx, claim.Spec.VolumeName)
	switch {
	case err != nil:
		err = fmt.Errorf("failed to fetch PV %s from API server: %w", claim.Spec.VolumeName, err)
	case pv.Spec.ClaimRef == nil:
		err = fmt.Errorf("found PV object %s but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim", pv.Name)
	case pv.Spec.ClaimRef.UID != claim.UID:
		err = fmt.Errorf("found PV object %s but its pv.Spec.ClaimRef.UID %s does not point to claim.UID %s", pv.Name, pv.Spec.ClaimRef.UID, claim.UID)
	}
	if err != nil {
		return nil, fmt.Errorf("error processing PVC %s/%s: %w", pod.Namespace, name, err)
	}
	return &Volume{Name: v.Name, Claim: claim, PV: pv, ReadOnly: v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ReadOnly}, nil
}

// checkClaim returns why a pod cannot have what a claim is bound to. One that is being deleted and protected is in use: pods that run keep it.
func checkClaim(claim *corev1.PersistentVolumeClaim) error {
	switch {
	case claim.DeletionTimestamp != nil && !slices.Contains(claim.Finalizers, protected):
		return errors.New("PVC is being deleted")
	case claim.Status.Phase != corev1.ClaimBound:
		return errors.New("PVC is not bound")
	case claim.Spec.VolumeName == "":
		return errors.New("PVC has empty pvc.Spec.VolumeName")
	}
	return nil
}

// checkMode returns why containers cannot use a volume as they say, as files or as a device.
func checkMode(v *Volume, mounted, device bool) error {
	mode, list := corev1.PersistentVolumeFilesystem, "volumeDevices"
	if v.Block() {
		mode, list = corev1.PersistentVolumeBlock, "volumeMounts"
	}
	if v.Block() && mounted || !v.Block() && device {
		return fmt.Errorf("volume %s has volumeMode %s, but is specified in %s", v.Name, mode, list)
	}
	return nil
}
