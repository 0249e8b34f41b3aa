package persistent

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/node/csi"
)

// Inline returns the volume that stands in a pod's specification, which goes with the pod (KEP-596).
func Inline(pod *corev1.Pod, v *corev1.Volume) *Volume {
	s := v.CSI
	of := &corev1.CSIPersistentVolumeSource{Driver: s.Driver, VolumeHandle: fmt.Sprintf("csi-%x", sha256.Sum256([]byte(string(pod.UID)+v.Name))),
		ReadOnly: ptr.Deref(s.ReadOnly, false), FSType: ptr.Deref(s.FSType, ""), VolumeAttributes: s.VolumeAttributes}
	if s.NodePublishSecretRef != nil {
		of.NodePublishSecretRef = &corev1.SecretReference{Namespace: pod.Namespace, Name: s.NodePublishSecretRef.Name}
	}
	pv := &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: v.Name}, Spec: corev1.PersistentVolumeSpec{
		AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: of}}}
	return &Volume{Name: v.Name, Claim: &corev1.PersistentVolumeClaim{}, PV: pv, ReadOnly: of.ReadOnly, Inline: true}
}

// foreign has a volume of another driver published for a pod.
func (m *Mounter) foreign(ctx context.Context, pod *corev1.Pod, v *Volume, r *Record, dir string) (Mounted, error) {
	out := Mounted{ReadOnly: r.ReadOnly, Device: r.Block}
	if m.CSI == nil {
		return out, fmt.Errorf("driver name %s not found in the list of registered CSI drivers", r.Driver)
	}
	ready := filepath.Join(dir, readyFile)
	again := booted(ready)
	if !again {
		if err := ignoreMissing(os.Remove(ready)); err != nil {
			return out, err
		}
	}
	got, err := m.CSI.Publish(ctx, &csi.Request{Ref: r.ref(), Pod: pod, PV: v.PV, ReadOnly: r.ReadOnly, Again: again})
	if err != nil {
		return out, err
	}
	if out.Path = got.Path; r.Block {
		if out.Path, err = blockDevice(got.Path); err != nil {
			return out, err
		}
	}
	if got.Again != r.Again {
		if err := r.again(dir, got.Again); err != nil {
			return out, err
		}
	}
	if got.Group && !out.ReadOnly {
		if err := own(ctx, out.Path, pod.Spec.SecurityContext); err != nil {
			return out, fmt.Errorf("applyFSGroup failed for vol %s: %w", v.PV.Name, err)
		}
	}
	return out, os.WriteFile(ready, []byte(csi.Boot()), 0o600)
}

// booted reports whether a volume was made ready since the machine started: what was mounted before is no longer.
func booted(ready string) bool {
	in, err := os.ReadFile(ready)
	return err == nil && strings.TrimSpace(string(in)) == csi.Boot()
}

// releaseForeign gives back what a pod had of another driver's.
func (m *Mounter) releaseForeign(ctx context.Context, mine *Record) error {
	if m.CSI == nil {
		return fmt.Errorf("driver name %s not found in the list of registered CSI drivers", mine.Driver)
	}
	return m.CSI.Unpublish(ctx, mine.ref(), func() (bool, error) {
		all, err := allRecords(m.Pods)
		return !slices.ContainsFunc(all, func(r *Record) bool {
			return r.Driver == mine.Driver && r.Handle == mine.Handle && (r.Pod != mine.Pod || r.Name != mine.Name)
		}), err
	})
}

// InUse returns the volumes that have to stay attached to the node, in order: a pod has them, or had, and has not given them back.
func (m *Mounter) InUse() []corev1.UniqueVolumeName {
	if m == nil {
		return nil
	}
	all, err := allRecords(m.Pods)
	if err != nil {
		return nil
	}
	var out []corev1.UniqueVolumeName
	for _, r := range all {
		if r.foreign() && !r.Inline {
			out = append(out, volume.UniqueName(r.Driver, r.Handle))
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Again returns the names of a pod's volumes whose drivers want to be told of them from time to time.
func (m *Mounter) Again(pod types.UID) ([]string, error) {
	mine, err := records(m.Pods, string(pod))
	var out []string
	for _, r := range mine {
		if r.Again {
			out = append(out, r.Name)
		}
	}
	return out, err
}
