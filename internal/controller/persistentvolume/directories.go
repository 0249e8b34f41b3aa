package persistentvolume

import (
	"context"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// gone is how long a node has to be without its object until its directories count as lost: an agent that registers anew comes before.
const gone = time.Minute

type directories struct {
	client client.Client
	mu     sync.Mutex
	since  map[api.Key]time.Time // volumes that are to go, by when their node was first not there
}

// NewDirectories declares the controller that lets deleted local volumes go whose node is gone for good, with the directory on it.
func NewDirectories(c client.Client) controller.Controller {
	return controller.Controller{
		Name: "local-volume-directories",
		Watches: []controller.Watch{{Resource: api.PersistentVolumes, Keys: func(e client.Event) []api.Key {
			if e.Type != client.Deleted && !lingers(e.Object.(*corev1.PersistentVolume)) {
				return nil
			}
			return []api.Key{api.KeyOf(e.Object)}
		}}},
		Writes:     []controller.Write{controller.Sets(api.PersistentVolumes, "metadata", "finalizers", volume.LocalDirectory)},
		Reconciler: &directories{client: c, since: map[api.Key]time.Time{}},
	}
}

// lingers reports whether a volume that was deleted waits for its directory to be removed.
func lingers(v *corev1.PersistentVolume) bool {
	return v.DeletionTimestamp != nil && slices.Contains(v.Finalizers, volume.LocalDirectory)
}

// Reconcile looks whether the node of a volume that was deleted is still there.
func (d *directories) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	v, err := found(client.Get[*corev1.PersistentVolume](ctx, d.client, key))
	if err != nil {
		return 0, err
	}
	if v == nil || !lingers(v) {
		d.absent(key, false)
		return 0, nil
	}
	nodes, err := client.List[*corev1.Node](ctx, d.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	host := volume.LocalHost(v)
	there := slices.ContainsFunc(nodes, func(n *corev1.Node) bool { return host != "" && n.Labels[corev1.LabelHostname] == host })
	if left := gone - d.absent(key, !there); there || left > 0 {
		return max(left, time.Second), nil
	}
	_, err = client.Mutate(ctx, d.client, key, "", func(o *corev1.PersistentVolume) bool {
		o.Finalizers = slices.DeleteFunc(o.Finalizers, func(f string) bool { return f == volume.LocalDirectory })
		return o.UID == v.UID
	})
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	return 0, err
}

// absent notes whether the node of a volume is not there, and returns since how long it is not.
func (d *directories) absent(key api.Key, now bool) time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !now {
		delete(d.since, key)
		return 0
	}
	if d.since[key].IsZero() {
		d.since[key] = time.Now()
	}
	return time.Since(d.since[key])
}
