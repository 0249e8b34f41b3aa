// Package storageprotection keeps claims that pods use, and volumes that claims have, until that ends (KEP-498, KEP-499), and says on a claim
// whether it is used.
//
// What flows through it: admission gives new objects a finalizer; one that is deleted is looked at whenever what uses it changes
// ([planClaim], [planVolume]), and loses the finalizer when nothing does. What must stay true: a claim does not go while a pod with a node
// means it (TestAUsedClaimStays), nor a volume while it is bound (TestABoundVolumeStays).
package storageprotection

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

type claims struct{ client client.Client }

// NewClaims declares the controller of PersistentVolumeClaims.
func NewClaims(c client.Client) controller.Controller {
	return controller.Controller{
		Name: "pvc-protection", Workers: 5,
		Watches: []controller.Watch{{Resource: api.PersistentVolumeClaims}, {Resource: api.Pods, Keys: claimsOfPod}},
		Writes: []controller.Write{
			controller.Sets(api.PersistentVolumeClaims, "metadata", "finalizers", volume.ClaimProtection),
			controller.Sets(api.PersistentVolumeClaims, "status", "conditions", string(corev1.PersistentVolumeClaimUnused)),
		},
		Reconciler: &claims{c},
	}
}

// claimsOfPod maps a pod to the claims of its volumes, where something has changed that makes a difference to them.
func claimsOfPod(e client.Event) (keys []api.Key) {
	pod := e.Object.(*corev1.Pod)
	names := volume.ClaimNames(pod)
	if old, _ := e.Old.(*corev1.Pod); len(names) == 0 || e.Type == client.Modified && old != nil && old.UID == pod.UID &&
		old.Spec.NodeName == pod.Spec.NodeName && ended(old) == ended(pod) && (old.DeletionTimestamp == nil) == (pod.DeletionTimestamp == nil) {
		return nil
	}
	for _, name := range names {
		keys = append(keys, api.Key{Namespace: pod.Namespace, Name: name})
	}
	return keys
}

// Reconcile takes the next step with the claim named key.
func (r *claims) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	claim, err := client.Get[*corev1.PersistentVolumeClaim](ctx, r.client, key)
	if err != nil {
		return 0, notFoundIsFine(err)
	}
	pods, err := client.List[*corev1.Pod](ctx, r.client, client.ListOptions{Index: client.IndexVolumeClaim, Value: key.Namespace + "/" + key.Name})
	if err != nil {
		return 0, err
	}
	meta, status := planClaim(claim, pods, time.Now())
	if meta != nil {
		return 0, write(ctx, r.client, meta, "")
	}
	if status != nil {
		return 0, write(ctx, r.client, status, "status")
	}
	return 0, nil
}

type volumes struct{ client client.Client }

// NewVolumes declares the controller of PersistentVolumes.
func NewVolumes(c client.Client) controller.Controller {
	return controller.Controller{
		Name:       "pv-protection",
		Watches:    []controller.Watch{{Resource: api.PersistentVolumes}},
		Writes:     []controller.Write{controller.Sets(api.PersistentVolumes, "metadata", "finalizers", volume.VolumeProtection)},
		Reconciler: &volumes{c},
	}
}

// Reconcile takes the next step with the volume named key.
func (r *volumes) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	v, err := client.Get[*corev1.PersistentVolume](ctx, r.client, key)
	if err != nil {
		return 0, notFoundIsFine(err)
	}
	if next := planVolume(v); next != nil {
		return 0, write(ctx, r.client, next, "")
	}
	return 0, nil
}

func write(ctx context.Context, c client.Client, obj api.Object, sub string) error {
	if _, err := c.Update(ctx, obj, sub); notFoundIsFine(err) != nil {
		return fmt.Errorf("writing %s: %w", api.KeyOf(obj), err)
	}
	return nil
}

func notFoundIsFine(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
