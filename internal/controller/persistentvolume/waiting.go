package persistentvolume

import (
	"sync"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
)

// need is for what a claim without a volume may be waiting.
type need struct {
	class   string
	classed bool   // whether it has a class; if not, the default one will be its
	volume  string // that it names
}

// waiting are the claims without a volume, by which events of what may help them find them. It is made anew by looking at all claims after
// a start.
type waiting struct {
	mu     sync.Mutex
	claims map[api.Key]need
}

// note keeps, or forgets, what a claim waits for. It is called before the rest is read: what comes in between wakes the claim.
func (w *waiting) note(claim *corev1.PersistentVolumeClaim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if metav1.HasAnnotation(claim.ObjectMeta, storage.AnnBindCompleted) {
		delete(w.claims, api.KeyOf(claim))
		return
	}
	w.claims[api.KeyOf(claim)] = need{storage.GetPersistentVolumeClaimClass(claim), storage.PersistentVolumeClaimHasClass(claim), claim.Spec.VolumeName}
}

func (w *waiting) forget(key api.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.claims, key)
}

// those returns the claims whose need f means.
func (w *waiting) those(f func(need) bool) (keys []api.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, n := range w.claims {
		if f(n) {
			keys = append(keys, key)
		}
	}
	return keys
}

// forVolume maps a volume to itself, the claims that it names and named, and those that it may be for.
func (w *waiting) forVolume(e client.Event) []api.Key {
	v := e.Object.(*corev1.PersistentVolume)
	keys := []api.Key{api.KeyOf(v)}
	for _, o := range []api.Object{e.Object, e.Old} {
		if v, ok := o.(*corev1.PersistentVolume); ok && v.Spec.ClaimRef != nil {
			keys = append(keys, api.Key{Namespace: v.Spec.ClaimRef.Namespace, Name: v.Spec.ClaimRef.Name})
		}
	}
	free := v.Spec.ClaimRef == nil && v.Status.Phase == corev1.VolumeAvailable
	class := storage.GetPersistentVolumeClass(v)
	return append(keys, w.those(func(n need) bool { return n.volume == v.Name || free && n.volume == "" && n.class == class })...)
}

// forClass maps a class to the claims of it, and a default one to those that have none.
func (w *waiting) forClass(e client.Event) []api.Key {
	class := e.Object.(*storagev1.StorageClass)
	fallback := volume.DefaultClass([]*storagev1.StorageClass{class}) != nil
	return w.those(func(n need) bool { return n.classed && n.class == class.Name || fallback && !n.classed })
}

// forPod maps a pod to the claims without a volume that it uses.
func (w *waiting) forPod(e client.Event) (keys []api.Key) {
	pod := e.Object.(*corev1.Pod)
	names := volume.ClaimNames(pod)
	if len(names) == 0 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range names {
		key := api.Key{Namespace: pod.Namespace, Name: name}
		if _, waits := w.claims[key]; waits {
			keys = append(keys, key)
		}
	}
	return keys
}

// forNode maps a node that may have room for a local volume to all claims that wait for one: few, as most wait for a pod.
func (w *waiting) forNode(e client.Event) []api.Key {
	now, _ := e.Object.(*corev1.Node)
	old, _ := e.Old.(*corev1.Node)
	if e.Type == client.Deleted || old != nil && usable(old) == usable(now) && old.Annotations[volume.LocalCapacity] == now.Annotations[volume.LocalCapacity] {
		return nil
	}
	return w.those(func(n need) bool { return n.classed && n.volume == "" })
}
