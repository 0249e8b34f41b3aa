// Package attachdetach says which volumes of CSI drivers are attached to which nodes, in VolumeAttachments that the drivers' external-attachers
// carry out.
//
// What flows through it: a PersistentVolume with the pods that use it and its attachments is read, decided about ([plan]) and written; a change of a
// pod, a claim, a volume, an attachment or a node asks for a look at the volumes that it concerns. What must stay true: a volume that one node at a
// time can have is attached to one (TestPlan); none is detached that a node has in use, unless the node is out of service, or has not been
// heard of for long (TestDetaching).
package attachdetach

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
)

const component = "attachdetach-controller"

type attacher struct {
	client client.Client

	mu     sync.Mutex
	unused map[string]time.Time // attachments that no pod uses, by when that was first seen
	made   map[string]bool      // attachments that were made here and are not attached yet
	// onNode are the volumes that have an attachment to a node.
	onNode map[string]map[string]bool
}

// New declares the controller. Its keys are those of volumes, which have no namespace, and of claims.
func New(c client.Client) controller.Controller {
	a := &attacher{client: c, unused: map[string]time.Time{}, made: map[string]bool{}, onNode: map[string]map[string]bool{}}
	return controller.Controller{
		Name: "attachdetach", Workers: 10,
		Watches: []controller.Watch{
			{Resource: api.VolumeAttachments, Keys: a.forAttachment},
			{Resource: api.PersistentVolumes, Keys: forVolume},
			{Resource: api.PersistentVolumeClaims, Keys: forClaim},
			{Resource: api.Pods, Keys: forPod},
			{Resource: api.Nodes, Keys: a.forNode},
		},
		Writes:     []controller.Write{controller.Creates(api.VolumeAttachments), controller.Deletes(api.VolumeAttachments)},
		Reconciler: a,
	}
}

func (a *attacher) forAttachment(e client.Event) []api.Key {
	at := e.Object.(*storagev1.VolumeAttachment)
	name := at.Spec.Source.PersistentVolumeName
	if name == nil {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if e.Type == client.Deleted {
		delete(a.unused, at.Name)
		delete(a.made, at.Name)
		if delete(a.onNode[at.Spec.NodeName], *name); len(a.onNode[at.Spec.NodeName]) == 0 {
			delete(a.onNode, at.Spec.NodeName)
		}
	} else {
		if a.onNode[at.Spec.NodeName] == nil {
			a.onNode[at.Spec.NodeName] = map[string]bool{}
		}
		a.onNode[at.Spec.NodeName][*name] = true
	}
	return []api.Key{{Name: *name}}
}

func forVolume(e client.Event) []api.Key {
	if e.Object.(*corev1.PersistentVolume).Spec.CSI == nil {
		return nil
	}
	return []api.Key{api.KeyOf(e.Object)}
}

func forClaim(e client.Event) []api.Key {
	if name := e.Object.(*corev1.PersistentVolumeClaim).Spec.VolumeName; name != "" {
		return []api.Key{{Name: name}}
	}
	return nil
}

// forPod maps a pod to its claims, where something has changed that makes a difference to their volumes.
func forPod(e client.Event) (keys []api.Key) {
	pod := e.Object.(*corev1.Pod)
	if old, _ := e.Old.(*corev1.Pod); pod.Spec.NodeName == "" || e.Type == client.Modified && old != nil && old.UID == pod.UID &&
		old.Spec.NodeName == pod.Spec.NodeName && over(old) == over(pod) {
		return nil
	}
	for _, name := range volume.ClaimNames(pod) {
		keys = append(keys, api.Key{Namespace: pod.Namespace, Name: name})
	}
	return keys
}

func (a *attacher) forNode(e client.Event) (keys []api.Key) {
	now := e.Object.(*corev1.Node)
	if old, _ := e.Old.(*corev1.Node); e.Type == client.Modified && old != nil && ready(old) == ready(now) &&
		equality.Semantic.DeepEqual(old.Status.VolumesInUse, now.Status.VolumesInUse) && equality.Semantic.DeepEqual(old.Spec.Taints, now.Spec.Taints) {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for name := range a.onNode[now.Name] {
		keys = append(keys, api.Key{Name: name})
	}
	return keys
}

// over reports whether nothing of a pod runs any more.
func over(p *corev1.Pod) bool {
	if p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return true
	}
	if p.DeletionTimestamp == nil {
		return false
	}
	for _, list := range [][]corev1.ContainerStatus{p.Status.InitContainerStatuses, p.Status.ContainerStatuses, p.Status.EphemeralContainerStatuses} {
		for i := range list {
			if s := list[i].State; s.Terminated == nil && s.Waiting == nil {
				return false
			}
		}
	}
	return true
}

// Reconcile takes the next step with a volume, or with that of a claim.
func (a *attacher) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	if key.Namespace != "" {
		claim, err := found(client.Get[*corev1.PersistentVolumeClaim](ctx, a.client, key))
		if err != nil || claim == nil || claim.Spec.VolumeName == "" {
			return 0, err
		}
		key = api.Key{Name: claim.Spec.VolumeName}
	}
	v, err := a.view(ctx, key.Name)
	if err != nil {
		return 0, err
	}
	o := plan(v)
	return o.again, a.write(ctx, &v, &o)
}

// found takes NotFound for nothing.
func found[T any](obj *T, err error) (*T, error) {
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return obj, err
}

// view reads what the decision about a volume depends on.
func (a *attacher) view(ctx context.Context, name string) (v view, err error) {
	v = view{nodes: map[string]*corev1.Node{}, unused: map[string]time.Time{}, now: time.Now()}
	if v.volume, err = found(client.Get[*corev1.PersistentVolume](ctx, a.client, api.Key{Name: name})); err != nil {
		return v, err
	}
	all, err := client.List[*storagev1.VolumeAttachment](ctx, a.client, client.ListOptions{})
	if err != nil {
		return v, err
	}
	a.mu.Lock()
	for _, at := range all {
		if of := at.Spec.Source.PersistentVolumeName; of != nil && *of == name {
			v.attachments = append(v.attachments, at)
			if since, ok := a.unused[at.Name]; ok {
				v.unused[at.Name] = since
			}
		}
	}
	a.mu.Unlock()
	if v.volume != nil && v.volume.Spec.CSI != nil {
		if v.driver, err = found(client.Get[*storagev1.CSIDriver](ctx, a.client, api.Key{Name: v.volume.Spec.CSI.Driver})); err != nil {
			return v, err
		}
		if v.users, err = a.users(ctx, v.volume); err != nil {
			return v, err
		}
	}
	names := map[string]bool{}
	for _, p := range v.users {
		names[p.Spec.NodeName] = true
	}
	for _, at := range v.attachments {
		names[at.Spec.NodeName] = true
	}
	for n := range names {
		node, err := found(client.Get[*corev1.Node](ctx, a.client, api.Key{Name: n}))
		if err != nil {
			return v, err
		}
		if node != nil {
			v.nodes[n] = node
		}
	}
	return v, nil
}

// users returns the pods with a node that use a volume, or may still.
func (a *attacher) users(ctx context.Context, pv *corev1.PersistentVolume) ([]*corev1.Pod, error) {
	ref := pv.Spec.ClaimRef
	if ref == nil {
		return nil, nil
	}
	claim, err := found(client.Get[*corev1.PersistentVolumeClaim](ctx, a.client, api.Key{Namespace: ref.Namespace, Name: ref.Name}))
	if err != nil || claim == nil || claim.UID != ref.UID || claim.Spec.VolumeName != pv.Name {
		return nil, err
	}
	pods, err := client.List[*corev1.Pod](ctx, a.client, client.ListOptions{Index: client.IndexVolumeClaim, Value: ref.Namespace + "/" + ref.Name})
	var out []*corev1.Pod
	for _, p := range pods {
		if p.Spec.NodeName != "" && !over(p) {
			out = append(out, p)
		}
	}
	return out, err
}

// write carries an outcome out.
func (a *attacher) write(ctx context.Context, v *view, o *outcome) error {
	a.mu.Lock()
	for _, name := range o.idle {
		if a.unused[name].IsZero() {
			a.unused[name] = v.now
		}
	}
	for _, at := range v.attachments {
		if a.made[at.Name] && at.Status.Attached {
			delete(a.made, at.Name)
			for _, p := range v.users {
				if p.Spec.NodeName == at.Spec.NodeName {
					o.events = append(o.events, event.Normal(p, "SuccessfulAttachVolume", "AttachVolume.Attach succeeded for volume %q ", *at.Spec.Source.PersistentVolumeName))
				}
			}
		}
		if !slices.Contains(o.idle, at.Name) {
			delete(a.unused, at.Name)
		}
	}
	a.mu.Unlock()
	var errs []error
	for _, at := range o.remove {
		uid := at.UID
		err := a.client.Delete(ctx, api.VolumeAttachments, api.KeyOf(at), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("detaching %s from %s: %w", *at.Spec.Source.PersistentVolumeName, at.Spec.NodeName, err))
		}
	}
	for _, at := range o.create {
		_, err := a.client.Create(ctx, at)
		if err != nil && !apierrors.IsAlreadyExists(err) {
			errs = append(errs, fmt.Errorf("attaching %s to %s: %w", v.volume.Name, at.Spec.NodeName, err))
			continue
		}
		a.mu.Lock()
		a.made[at.Name] = true
		a.mu.Unlock()
	}
	event.Write(ctx, a.client, component, v.now, o.events...)
	return errors.Join(errs...)
}
