package local

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/client"
)

// protection is the finalizer of a PersistentVolume that a claim is bound to.
const protection = "kubernetes.io/pv-protection"

// again is how long a volume that could not be removed yet waits.
const again = 2 * time.Second

// Events records what happens to the node's volumes.
type Events interface {
	NodeEvent(kind, reason, message string)
}

// Keeper removes the directories of volumes that are being deleted.
type Keeper struct {
	Store  *Store
	Client client.Client
	Node   string
	Events Events
	Log    *slog.Logger
	// Used reports whether a pod of the node uses a volume, by its handle.
	Used func(handle string) bool

	mu    sync.Mutex
	known map[string]bool // handles of the node's volumes in the API; nil before the first look
}

// Run follows the node's volumes in the API until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	if err := k.Store.Sweep(); err != nil {
		k.Log.Warn("removing what is left of local volumes failed", "err", err)
	}
	changed := make(chan struct{}, 1)
	ended := map[string]*corev1.PersistentVolume{} // being deleted, by name
	var mu sync.Mutex
	done := make(chan struct{})
	go func() {
		defer close(done)
		client.Follow(ctx, k.Log, k.Client, api.PersistentVolumes, Of(k.Node), func(b client.Batch) {
			mu.Lock()
			defer mu.Unlock()
			k.take(b, ended)
			select {
			case changed <- struct{}{}:
			default:
			}
		})
	}()
	defer func() { <-done }()
	for {
		mu.Lock()
		due := make([]*corev1.PersistentVolume, 0, len(ended))
		for _, pv := range ended {
			due = append(due, pv)
		}
		mu.Unlock()
		left := false
		for _, pv := range due {
			left = !k.end(ctx, pv) || left
		}
		var timer <-chan time.Time
		if left {
			timer = time.After(again)
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		case <-timer:
		}
	}
}

// Of chooses the volumes of a node.
func Of(node string) client.ListOptions {
	return client.ListOptions{Labels: labels.SelectorFromSet(labels.Set{localvolume.NodeLabel: node})}
}

// take notes which volumes there are and which of this node's are to be ended.
func (k *Keeper) take(b client.Batch, ended map[string]*corev1.PersistentVolume) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if b.Full {
		clear(ended)
		k.known = map[string]bool{}
	}
	lost := b.Full
	for _, e := range b.Events {
		pv := e.Object.(*corev1.PersistentVolume)
		if !localvolume.Is(pv) {
			continue
		}
		delete(ended, pv.Name)
		if e.Type == client.Deleted {
			delete(k.known, pv.Spec.CSI.VolumeHandle)
			lost = lost || localvolume.On(pv, k.Node)
			continue
		}
		k.known[pv.Spec.CSI.VolumeHandle] = true
		if mayEnd(pv, k.Node) {
			ended[pv.Name] = pv
		}
	}
	if lost {
		k.lookForOrphans()
	}
}

// mayEnd reports whether a volume may be ended as soon as no pod uses it: it is this node's, being deleted, and only waits for that.
func mayEnd(pv *corev1.PersistentVolume, node string) bool {
	return pv.DeletionTimestamp != nil && localvolume.On(pv, node) && slices.Contains(pv.Finalizers, localvolume.Finalizer) &&
		!slices.Contains(pv.Finalizers, protection)
}

// Release takes the finalizer off a volume whose directory is gone, if that is all that it waits for. It reports whether it did.
func Release(ctx context.Context, c client.Client, node string, pv *corev1.PersistentVolume) (written bool, err error) {
	if !mayEnd(pv, node) {
		return false, nil
	}
	_, err = client.Mutate(ctx, c, api.KeyOf(pv), "", func(now *corev1.PersistentVolume) bool {
		written = now.UID == pv.UID && mayEnd(now, node)
		if written {
			now.Finalizers = slices.DeleteFunc(now.Finalizers, func(f string) bool { return f == localvolume.Finalizer })
		}
		return written
	})
	if apierrors.IsNotFound(err) {
		return false, nil
	}
	return written, err
}

// lookForOrphans says which directories are of no volume. k.mu must be held.
func (k *Keeper) lookForOrphans() {
	there, err := k.Store.List()
	if err != nil {
		k.Log.Warn("listing local volumes failed", "err", err)
		return
	}
	for handle, a := range there {
		if k.known[handle] {
			continue
		}
		k.Log.Warn("a local volume is of no PersistentVolume; its data stays", "handle", handle, "claim", a.Namespace+"/"+a.Claim, "dir", k.Store.Dir)
		k.Events.NodeEvent(corev1.EventTypeWarning, "LocalVolumeOrphaned",
			fmt.Sprintf("Local volume %s (claim %s/%s) is of no PersistentVolume; its data stays in %s until somebody removes it.", handle, a.Namespace, a.Claim, k.Store.Dir))
	}
}

// end removes a volume's directory, unless it is to be retained, and then the finalizer. It reports whether nothing is left to do.
func (k *Keeper) end(ctx context.Context, pv *corev1.PersistentVolume) bool {
	handle := pv.Spec.CSI.VolumeHandle
	retained := pv.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRetain
	if !retained {
		ended, err := k.Store.Remove(handle, func() bool { return k.Used(handle) })
		if err != nil {
			k.Log.Warn("removing a local volume failed, trying again", "volume", pv.Name, "err", err)
		}
		if !ended || err != nil {
			return false
		}
	}
	written, err := Release(ctx, k.Client, k.Node, pv)
	if err != nil {
		if ctx.Err() == nil {
			k.Log.Warn("saying that a local volume is removed failed, trying again", "volume", pv.Name, "err", err)
		}
		return false
	}
	if written {
		k.Log.Info("local volume ended", "volume", pv.Name, "handle", handle, "dataRetained", retained)
	}
	return true
}
