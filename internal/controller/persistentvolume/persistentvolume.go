// Package persistentvolume binds claims and PersistentVolumes to each other, asks provisioners for volumes, and reclaims those whose claim is
// gone.
//
// What flows through it: a claim with the volumes that it may have ([planClaim]), or a volume with its claim ([planVolume]), is read, decided
// about and written. Claims that wait for their first pod are bound by the scheduler, in the transaction that binds the pod, and so are volumes
// of Knarr's own driver made; those whose class binds at once get a local volume here. [NewDirectories] lets go of local volumes whose node
// is gone.
//
// What must stay true: planning is a pure function of what was read (TestPlanClaim, TestPlanVolume); a volume has one claim and a claim
// one volume, whatever is written at the same time (TestOneVolumePerClaim); a volume is never deleted while its claim is there
// (TestReclaiming); nothing that was bound is bound to anything else.
package persistentvolume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
)

const component = "persistentvolume-controller"

type binder struct {
	client  client.Client
	waiting waiting
	// local is held by who makes a local volume, so that room is not given away twice.
	local sync.Mutex
}

// New declares the controller. Its keys are those of claims, and of volumes, which have no namespace.
func New(c client.Client) controller.Controller {
	b := &binder{client: c, waiting: waiting{claims: map[api.Key]need{}}}
	return controller.Controller{
		Name: "persistentvolume-binder", Workers: 10,
		Watches: []controller.Watch{
			{Resource: api.PersistentVolumeClaims, Keys: claimKeys},
			{Resource: api.PersistentVolumes, Keys: b.waiting.forVolume},
			{Resource: api.StorageClasses, Keys: b.waiting.forClass},
			{Resource: api.Pods, Keys: b.waiting.forPod},
			{Resource: api.Nodes, Keys: b.waiting.forNode},
		},
		Writes: []controller.Write{
			controller.Creates(api.PersistentVolumes),
			controller.Deletes(api.PersistentVolumes),
			controller.Sets(api.PersistentVolumes, "spec", "claimRef"),
			controller.Sets(api.PersistentVolumes, "metadata", "annotations"),
			controller.Sets(api.PersistentVolumes, "status"),
			controller.Sets(api.PersistentVolumeClaims, "spec", "volumeName"),
			controller.Sets(api.PersistentVolumeClaims, "spec", "storageClassName"),
			controller.Sets(api.PersistentVolumeClaims, "metadata", "annotations"),
			controller.Sets(api.PersistentVolumeClaims, "status", "phase"),
			controller.Sets(api.PersistentVolumeClaims, "status", "accessModes"),
			controller.Sets(api.PersistentVolumeClaims, "status", "capacity"),
			controller.Sets(api.PersistentVolumeClaims, "status", "currentVolumeAttributesClassName"),
		},
		Reconciler: b,
	}
}

// claimKeys maps a claim to itself and to the volume that it names.
func claimKeys(e client.Event) []api.Key {
	keys := []api.Key{api.KeyOf(e.Object)}
	if name := e.Object.(*corev1.PersistentVolumeClaim).Spec.VolumeName; name != "" {
		keys = append(keys, api.Key{Name: name})
	}
	return keys
}

// Reconcile takes the next step with a claim or a volume.
func (b *binder) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	if key.Namespace == "" {
		return 0, b.volume(ctx, key)
	}
	claim, err := client.Get[*corev1.PersistentVolumeClaim](ctx, b.client, key)
	if apierrors.IsNotFound(err) {
		b.waiting.forget(key)
		return 0, b.abandoned(ctx, key)
	}
	if err != nil {
		return 0, err
	}
	b.waiting.note(claim)
	view, err := b.view(ctx, claim)
	if err != nil {
		return 0, err
	}
	o := planClaim(view)
	if err := b.write(ctx, o, view.claim); err != nil {
		return 0, fmt.Errorf("claim %s: %w", key, err)
	}
	if o.local {
		return 0, b.provision(ctx, key, view.class)
	}
	return 0, nil
}

// abandoned takes the next step with the volumes that name a claim which is gone.
func (b *binder) abandoned(ctx context.Context, key api.Key) error {
	named, err := b.indexed(ctx, volume.NamedBy(key.Namespace, key.Name))
	for _, v := range named {
		if err := b.volume(ctx, api.KeyOf(v)); err != nil {
			return err
		}
	}
	return err
}

func (b *binder) indexed(ctx context.Context, value string) ([]*corev1.PersistentVolume, error) {
	return client.List[*corev1.PersistentVolume](ctx, b.client, client.ListOptions{Index: client.IndexVolume, Value: value})
}

// view reads what the decision about a claim depends on.
func (b *binder) view(ctx context.Context, claim *corev1.PersistentVolumeClaim) (v claimView, err error) {
	v.claim = claim
	if name := claim.Spec.VolumeName; name != "" {
		v.named, err = found(client.Get[*corev1.PersistentVolume](ctx, b.client, api.Key{Name: name}))
		return v, err
	}
	class := storage.GetPersistentVolumeClaimClass(claim)
	free, err := b.indexed(ctx, volume.FreeOf(class))
	if err != nil {
		return v, err
	}
	named, err := b.indexed(ctx, volume.NamedBy(claim.Namespace, claim.Name))
	if err != nil {
		return v, err
	}
	v.volumes = append(free, named...)
	if class != "" {
		v.class, err = found(client.Get[*storagev1.StorageClass](ctx, b.client, api.Key{Name: class}))
	} else {
		var classes []*storagev1.StorageClass
		classes, err = client.List[*storagev1.StorageClass](ctx, b.client, client.ListOptions{})
		v.fallback = volume.DefaultClass(classes)
	}
	if err != nil || !volume.Delays(v.class) {
		return v, err
	}
	pods, err := client.List[*corev1.Pod](ctx, b.client, client.ListOptions{Index: client.IndexVolumeClaim, Value: claim.Namespace + "/" + claim.Name})
	for _, p := range pods {
		if p.Spec.NodeName == "" && p.Status.Phase != corev1.PodSucceeded && p.Status.Phase != corev1.PodFailed {
			v.waiting = append(v.waiting, p.Name)
		}
	}
	return v, err
}

// found takes NotFound for nothing.
func found[T any](obj *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return obj, err
}

// volume takes the next step with the volume named key.
func (b *binder) volume(ctx context.Context, key api.Key) error {
	v, err := found(client.Get[*corev1.PersistentVolume](ctx, b.client, key))
	if err != nil || v == nil {
		return err
	}
	var claim *corev1.PersistentVolumeClaim
	if ref := v.Spec.ClaimRef; ref != nil {
		claim, err = found(client.Get[*corev1.PersistentVolumeClaim](ctx, b.client, api.Key{Namespace: ref.Namespace, Name: ref.Name}))
		if err != nil {
			return err
		}
	}
	o := planVolume(v, claim)
	if o.volume == nil {
		o.volume = v
	}
	if err := b.write(ctx, o, claim); err != nil {
		return fmt.Errorf("volume %s: %w", v.Name, err)
	}
	return nil
}

// write carries an outcome out. The volume is written before the claim, so that a claim that says that it is bound has its volume.
func (b *binder) write(ctx context.Context, o outcome, claim *corev1.PersistentVolumeClaim) error {
	if o.failure != nil {
		return o.failure
	}
	if o.volume != nil {
		have, err := found(client.Get[*corev1.PersistentVolume](ctx, b.client, api.KeyOf(o.volume)))
		if err == nil && have != nil {
			if have.ResourceVersion != o.volume.ResourceVersion { // decided from another state
				return apierrors.NewConflict(api.PersistentVolumes.GroupResource(), have.Name, errors.New("it has changed meanwhile"))
			}
			err = update(ctx, b.client, have, o.volume, volume.SameBut(have, o.volume), equality.Semantic.DeepEqual(have.Status, o.volume.Status),
				func(to *corev1.PersistentVolume) { to.Status = o.volume.Status })
		}
		if err != nil {
			return err
		}
	}
	if next := o.claim; next != nil {
		same := equality.Semantic.DeepEqual(claim.Spec, next.Spec) && equality.Semantic.DeepEqual(claim.Annotations, next.Annotations)
		err := update(ctx, b.client, claim, next, same, equality.Semantic.DeepEqual(claim.Status, next.Status),
			func(to *corev1.PersistentVolumeClaim) { to.Status = next.Status })
		if err != nil {
			return err
		}
	}
	event.Write(ctx, b.client, component, time.Now(), o.events...)
	if !o.remove {
		return nil
	}
	err := b.client.Delete(ctx, api.PersistentVolumes, api.KeyOf(o.volume), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &o.volume.UID}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// update writes what next has other than have: first what is not status, then the status. Each is written only over what was seen.
func update[T api.Object](ctx context.Context, c client.Client, have, next T, same, sameStatus bool, status func(to T)) error {
	current := api.Object(have)
	if !same {
		var err error
		if current, err = c.Update(ctx, next.DeepCopyObject().(T), ""); err != nil {
			return err
		}
	}
	if sameStatus {
		return nil
	}
	to := current.DeepCopyObject().(T)
	status(to)
	_, err := c.Update(ctx, to, "status")
	return err
}
