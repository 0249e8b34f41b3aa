package scheduler

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

// volumeSources are the watches of what package volumes knows.
func (s *Scheduler) volumeSources() []*source {
	known := s.state.Volumes()
	helped := func(f func(api.Object)) func(api.Object) {
		return func(o api.Object) {
			f(o)
			s.helps |= placement.ClaimChanged
		}
	}
	gone := func(f func(api.Key)) func(api.Key) {
		return func(key api.Key) {
			f(key)
			s.helps |= placement.ClaimChanged
		}
	}
	byName := func(f func(name string)) func(api.Key) { return gone(func(key api.Key) { f(key.Name) }) }
	return []*source{
		{resource: api.PersistentVolumeClaims, set: helped(func(o api.Object) { known.SetClaim(o.(*corev1.PersistentVolumeClaim)) }),
			remove: gone(known.RemoveClaim), keys: known.ClaimKeys},
		{resource: api.PersistentVolumes, set: helped(func(o api.Object) { known.SetVolume(o.(*corev1.PersistentVolume)) }),
			remove: byName(known.RemoveVolume), keys: known.VolumeKeys},
		{resource: api.StorageClasses, set: helped(func(o api.Object) { known.SetClass(o.(*storagev1.StorageClass)) }),
			remove: byName(known.RemoveClass), keys: known.ClassKeys},
		{resource: api.CSIDrivers, set: helped(func(o api.Object) { known.SetDriver(o.(*storagev1.CSIDriver)) }),
			remove: byName(known.RemoveDriver), keys: known.DriverKeys},
		{resource: api.CSINodes, set: helped(func(o api.Object) { known.SetNode(o.(*storagev1.CSINode)) }),
			remove: byName(known.RemoveNode), keys: known.NodeKeys},
		{resource: api.CSIStorageCapacities, set: helped(func(o api.Object) { known.SetCapacity(o.(*storagev1.CSIStorageCapacity)) }),
			remove: gone(known.RemoveCapacity), keys: known.CapacityKeys},
	}
}

// ask says on the claims of a pod for which node their provisioners are to make volumes. The pod is placed there once it has them; a provisioner
// that cannot do it takes the word back, and another node is looked for.
func (s *Scheduler) ask(ctx context.Context, f *flight) error {
	for _, key := range f.asks {
		_, err := client.Mutate(ctx, s.client, key, "", func(c *corev1.PersistentVolumeClaim) bool {
			if c.Spec.VolumeName != "" || c.Annotations[storage.AnnSelectedNode] != "" {
				return false
			}
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, storage.AnnSelectedNode, f.node)
			return true
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// asked learns what became of that.
func (s *Scheduler) asked(f *flight, err error) {
	p := s.queue.pods[f.key]
	if p == nil || p.pod.UID != f.pod.UID {
		return
	}
	if err != nil {
		s.log.Warn("asking for volumes failed, will retry", "pod", f.key.String(), "node", f.node, "err", err)
		s.queue.fail(p)
		return
	}
	s.queue.reject(p, f.waits)
	s.helps |= placement.ClaimChanged // the volumes may have come before the pod was put aside
}
