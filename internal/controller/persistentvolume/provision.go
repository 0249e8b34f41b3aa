package persistentvolume

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// provision makes a local volume for a claim that does not wait for a pod, and binds it. The scheduler, which makes those of the others, learns of it
// by watching: what both give away within one moment may be more than a node has, which is a limit of quantity and not of safety.
func (b *binder) provision(ctx context.Context, key api.Key, class *storagev1.StorageClass) error {
	b.local.Lock()
	defer b.local.Unlock()
	claim, err := found(client.Get[*corev1.PersistentVolumeClaim](ctx, b.client, key))
	if err != nil || claim == nil || claim.Spec.VolumeName != "" {
		return err
	}
	nodes, err := client.List[*corev1.Node](ctx, b.client, client.ListOptions{})
	if err != nil {
		return err
	}
	volumes, err := client.List[*corev1.PersistentVolume](ctx, b.client, client.ListOptions{})
	if err != nil {
		return err
	}
	made, why := planLocal(claim, class, nodes, volumes)
	if made == nil {
		event.Write(ctx, b.client, component, time.Now(), event.Warning(claim, "ProvisioningFailed", "%s", why))
		return nil
	}
	out, err := b.client.Create(ctx, made)
	if apierrors.IsAlreadyExists(err) { // made before a restart: it names the claim, which finds it
		return nil
	}
	if err != nil {
		return fmt.Errorf("creating volume %s: %w", made.Name, err)
	}
	event.Write(ctx, b.client, component, time.Now(), event.Normal(claim, "ProvisioningSucceeded", "Successfully provisioned volume %s", made.Name))
	return b.write(ctx, bind(out.(*corev1.PersistentVolume), claim), claim)
}
