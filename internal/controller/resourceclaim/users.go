package resourceclaim

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

type keeperOfUsers struct{ client client.Client }

// NewUsers declares the controller that keeps true who a claim is reserved for, and gives back the devices of claims that nobody uses.
func NewUsers(c client.Client) controller.Controller {
	return controller.Controller{
		Name: "resourceclaim-users", Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.ResourceClaims},
			{Resource: api.Pods, Keys: claimKeys},
		},
		Writes: []controller.Write{
			controller.Sets(api.ResourceClaims, "status"),
			controller.Sets(api.ResourceClaims, "metadata", "finalizers", resourcev1.Finalizer),
			controller.Deletes(api.ResourceClaims),
		},
		Reconciler: &keeperOfUsers{client: c},
	}
}

// Reconcile takes the next step with the claim named key.
func (k *keeperOfUsers) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	claim, err := client.Get[*resourcev1.ResourceClaim](ctx, k.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pods, err := k.observe(ctx, claim)
	if err != nil {
		return 0, err
	}
	c := planClaim(claim, pods)
	if c.status != nil {
		next := claim.DeepCopy()
		next.Status = *c.status
		obj, err := k.client.Update(ctx, next, "status")
		if err != nil {
			return 0, notFoundIsFine(err, "writing the users of", key)
		}
		claim = obj.(*resourcev1.ResourceClaim)
	}
	if c.release {
		next := claim.DeepCopy()
		next.Finalizers = slices.DeleteFunc(next.Finalizers, func(f string) bool { return f == resourcev1.Finalizer })
		if _, err := k.client.Update(ctx, next, ""); err != nil {
			return 0, notFoundIsFine(err, "releasing", key)
		}
	}
	if c.remove {
		slog.DebugContext(ctx, "claim deleted", "claim", key.String(), "why", c.why)
		err := k.client.Delete(ctx, api.ResourceClaims, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &claim.UID}})
		return 0, notFoundIsFine(err, "deleting", key)
	}
	return 0, nil
}

func notFoundIsFine(err error, doing string, key api.Key) error {
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s ResourceClaim %s: %w", doing, key, err)
}

// observe reads the pods that use a claim, for which it is reserved, and for which it was made. As all are read from one copy, in which
// changes come in the order in which they were made, a pod that a claim names and that is not there is gone.
func (k *keeperOfUsers) observe(ctx context.Context, claim *resourcev1.ResourceClaim) (map[string]*corev1.Pod, error) {
	users, err := client.List[*corev1.Pod](ctx, k.client, client.ListOptions{Index: client.IndexClaim, Value: claim.Namespace + "/" + claim.Name})
	if err != nil {
		return nil, err
	}
	pods := map[string]*corev1.Pod{}
	for _, p := range users {
		pods[p.Name] = p
	}
	var named []string
	for _, r := range claim.Status.ReservedFor {
		if r.APIGroup == "" && r.Resource == "pods" {
			named = append(named, r.Name)
		}
	}
	if owner := metav1.GetControllerOfNoCopy(claim); owner != nil && owner.Kind == "Pod" {
		named = append(named, owner.Name)
	}
	for _, name := range named {
		if pods[name] != nil {
			continue
		}
		pod, err := client.Get[*corev1.Pod](ctx, k.client, api.Key{Namespace: claim.Namespace, Name: name})
		if err == nil {
			pods[name] = pod
		} else if !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return pods, nil
}
