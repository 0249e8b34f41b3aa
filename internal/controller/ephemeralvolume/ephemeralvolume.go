// Package ephemeralvolume makes the claims of the generic ephemeral volumes of pods (KEP-1698): POD-VOLUME, which belongs to the pod and goes
// with it.
//
// What flows through it: a pod with such volumes and the claims of their names are read, [planPod] says which to create, and they are. What
// must stay true: a claim of that name that is not the pod's is left alone, and the pod is told (TestAClaimOfSomebodyElse); one that is
// deleted while its pod lives is made again (TestClaimsOfAPod).
package ephemeralvolume

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	"github.com/knarr-io/knarr/internal/controller/event"
)

const component = "ephemeral_volume"

type maker struct{ client client.Client }

// New declares the controller.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name: "ephemeral-volume", Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.Pods, Keys: podKeys},
			{Resource: api.PersistentVolumeClaims, Keys: ownerKeys},
		},
		Writes:     []controller.Write{controller.Creates(api.PersistentVolumeClaims)},
		Reconciler: &maker{c},
	}
}

// podKeys maps a new pod that has ephemeral volumes to itself; these never change.
func podKeys(e client.Event) []api.Key {
	pod := e.Object.(*corev1.Pod)
	if e.Type != client.Added || !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Ephemeral != nil }) {
		return nil
	}
	return []api.Key{api.KeyOf(pod)}
}

// ownerKeys maps a claim that is gone to the pod that it was made for.
func ownerKeys(e client.Event) []api.Key {
	owner := metav1.GetControllerOfNoCopy(e.Object)
	if e.Type != client.Deleted || owner == nil || owner.Kind != "Pod" {
		return nil
	}
	return []api.Key{{Namespace: e.Object.GetNamespace(), Name: owner.Name}}
}

// Reconcile makes the claims that the pod named key lacks.
func (m *maker) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	pod, err := client.Get[*corev1.Pod](ctx, m.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	claims := map[string]*corev1.PersistentVolumeClaim{}
	for _, name := range volume.ClaimNames(pod) {
		claim, err := client.Get[*corev1.PersistentVolumeClaim](ctx, m.client, api.Key{Namespace: key.Namespace, Name: name})
		if err == nil {
			claims[name] = claim
		} else if !apierrors.IsNotFound(err) {
			return 0, err
		}
	}
	plan := planPod(pod, claims)
	var events []event.Event
	var failure error
	fail := func(err error) {
		failure = fmt.Errorf("pod %s: %w", key, err)
		events = append(events, event.Warning(pod, "FailedBinding", "%v", err))
	}
	for _, err := range plan.taken {
		fail(err)
	}
	for name, claim := range plan.create {
		_, err := m.client.Create(ctx, claim)
		if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			return 0, nil
		}
		if err != nil {
			fail(fmt.Errorf("ephemeral volume %s: create PVC %s: %w", name, claim.Name, err))
		}
	}
	event.Write(ctx, m.client, component, time.Now(), events...)
	return 0, failure
}
