package workload

import (
	"cmp"
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/event"
	"github.com/knarr-io/knarr/internal/controller/ownership"
)

// Pods reads and writes the pods of owners of one kind.
type Pods struct {
	Client    client.Client
	Kind      schema.GroupVersionKind
	Component string // in whose name events are written
	Owners    *Owners
	Index     string // of pods by the UID of their controller, where not all pods matter; "" means all
	Finalizer string // which pods have as long as they are an owner's; "" means none
}

// Of returns the pods that owner controls and, if an orphan that matches has not been looked for or has shown up since, those that nobody
// controls.
func (p *Pods) Of(ctx context.Context, owner api.Object, selector labels.Selector) ([]*corev1.Pod, error) {
	pods, err := client.List[*corev1.Pod](ctx, p.Client, client.ListOptions{
		Namespace: owner.GetNamespace(), Index: cmp.Or(p.Index, client.IndexOwner), Value: string(owner.GetUID())})
	if err != nil || !p.Owners.Look(api.KeyOf(owner), owner.GetUID()) {
		return pods, err
	}
	all, err := client.List[*corev1.Pod](ctx, p.Client, client.ListOptions{Namespace: owner.GetNamespace(), Labels: selector})
	if err != nil {
		p.Owners.Again(api.KeyOf(owner))
		return pods, err
	}
	for _, pod := range all {
		if metav1.GetControllerOfNoCopy(pod) == nil {
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

// Claim writes what ownership.Sort decided, and returns the pods that owner has got.
func (p *Pods) Claim(ctx context.Context, owner api.Object, adopt, release []*corev1.Pod) (adopted []*corev1.Pod, err error) {
	var finalizers []string
	if p.Finalizer != "" {
		finalizers = []string{p.Finalizer}
	}
	for _, pod := range release {
		if err := ownership.Release(ctx, p.Client, owner, pod, finalizers...); err != nil {
			return nil, err
		}
	}
	for _, pod := range adopt {
		got, err := ownership.Adopt(ctx, p.Client, owner, p.Kind, pod, finalizers...)
		if err != nil {
			p.Owners.Again(api.KeyOf(owner)) // not all of them are adopted
			return nil, err
		}
		if got != nil {
			adopted = append(adopted, got)
		}
	}
	return adopted, nil
}

// Create makes pods in batches of 1, 2, 4, ... and stops after the first batch in which one fails; its error is returned. Where the
// namespace is being deleted nothing can be made any longer, and nothing needs to be.
func (p *Pods) Create(ctx context.Context, owner api.Object, pods []*corev1.Pod) (failed error) {
	var events []event.Event
	defer func() { event.Write(ctx, p.Client, p.Component, time.Now(), events...) }()
	for size := 1; len(pods) > 0 && failed == nil; size *= 2 {
		batch := make([]api.Object, min(size, len(pods)))
		for i := range batch {
			batch[i] = pods[i]
		}
		pods = pods[len(batch):]
		for _, res := range p.Client.CreateMany(ctx, batch) {
			switch {
			case res.Err == nil:
				events = append(events, event.Normal(owner, "SuccessfulCreate", "Created pod: %s", res.Object.GetName()))
			case apierrors.HasStatusCause(res.Err, corev1.NamespaceTerminatingCause):
				return failed
			default:
				events = append(events, event.Warning(owner, "FailedCreate", "Error creating: %v", res.Err))
				if failed == nil { // they are mostly alike
					failed = res.Err
				}
			}
		}
	}
	return failed
}

// Delete deletes pods, and returns the first error. A pod that is gone, perhaps with a successor of the same name, is none.
func (p *Pods) Delete(ctx context.Context, owner api.Object, pods []*corev1.Pod) (failed error) {
	doomed := make([]api.Object, len(pods))
	for i := range pods {
		doomed[i] = pods[i]
	}
	var events []event.Event
	for i, res := range p.Client.DeleteMany(ctx, doomed, metav1.DeleteOptions{}) {
		switch err := res.Err; {
		case err == nil:
			events = append(events, event.Normal(owner, "SuccessfulDelete", "Deleted pod: %s", pods[i].Name))
		case apierrors.IsNotFound(err) || apierrors.IsConflict(err):
		default:
			events = append(events, event.Warning(owner, "FailedDelete", "Error deleting: %v", err))
			if failed == nil {
				failed = err
			}
		}
	}
	event.Write(ctx, p.Client, p.Component, time.Now(), events...)
	return failed
}

// WriteStatus lets change set the status of owner as it is stored now, unless owner is gone or another object has its name. change
// reports whether there is anything to write.
func WriteStatus[T api.Object](ctx context.Context, c client.Client, owner T, change func(stored T) bool) error {
	_, err := client.Mutate(ctx, c, api.KeyOf(owner), "status", func(stored T) bool {
		return stored.GetUID() == owner.GetUID() && change(stored)
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
