// Package flowcontrol keeps the FlowSchemas and PriorityLevelConfigurations that every cluster has, and says in the status of each
// FlowSchema whether its priority level exists
// (https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#defaults).
//
// What flows through it: [Bootstrap] makes what is missing before the API is served; the controller looks again at every change. What
// must stay true: a mandatory object that is deleted or changed comes back; a suggested one whose annotation
// apf.kubernetes.io/autoupdate-spec is "false" stays as its administrator left it. Tests: TestStandardsComeBack,
// TestAnnotationDecides, TestDangling.
package flowcontrol

import (
	"context"
	"errors"
	"fmt"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

type reconciler struct{ client client.Client }

// New declares the controller.
func New(c client.Client) controller.Controller {
	all := func(client.Event) []api.Key { return []api.Key{{Name: "all"}} } // they depend on each other
	return controller.Controller{
		Name:       "priority-and-fairness-config",
		Watches:    []controller.Watch{{Resource: api.FlowSchemas, Keys: all}, {Resource: api.PriorityLevelConfigurations, Keys: all}},
		Writes:     writes(),
		Reconciler: &reconciler{c},
	}
}

func writes() []controller.Write {
	out := []controller.Write{controller.Sets(api.FlowSchemas, "status")}
	for res, spec := range map[*api.Resource][]string{
		api.FlowSchemas:                 {"priorityLevelConfiguration", "matchingPrecedence", "distinguisherMethod", "rules"},
		api.PriorityLevelConfigurations: {"type", "limited", "exempt"},
	} {
		out = append(out, controller.Creates(res), controller.Deletes(res), controller.Sets(res, "metadata", "annotations", flowcontrolv1.AutoUpdateAnnotationKey))
		for _, field := range spec {
			out = append(out, controller.Sets(res, "spec", field))
		}
	}
	return out
}

// Bootstrap makes the objects that are missing, and brings the others up to date.
func Bootstrap(ctx context.Context, c client.Client) error {
	levels, schemas, err := list(ctx, c)
	if err != nil {
		return err
	}
	return ensure(ctx, c, levels, schemas)
}

// Reconcile looks at all objects. There is one key, so it is never called twice at a time.
func (r *reconciler) Reconcile(ctx context.Context, _ api.Key) (time.Duration, error) {
	levels, schemas, err := list(ctx, r.client)
	if err != nil {
		return 0, err
	}
	if err := ensure(ctx, r.client, levels, schemas); err != nil {
		return 0, err
	}
	exists := map[string]bool{}
	for _, l := range levels {
		exists[l.Name] = true
	}
	for _, s := range schemas {
		want := dangling(s, exists[s.Spec.PriorityLevelConfiguration.Name])
		want.LastTransitionTime = metav1.Now()
		_, err := client.Mutate(ctx, r.client, api.KeyOf(s), "status", func(s *flowcontrolv1.FlowSchema) bool { return setCondition(&s.Status.Conditions, want) })
		if err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("writing whether the level of FlowSchema %s exists: %w", s.Name, err)
		}
	}
	return 0, nil
}

func list(ctx context.Context, c client.Client) ([]*flowcontrolv1.PriorityLevelConfiguration, []*flowcontrolv1.FlowSchema, error) {
	levels, err := client.List[*flowcontrolv1.PriorityLevelConfiguration](ctx, c, client.ListOptions{})
	if err != nil {
		return nil, nil, err
	}
	schemas, err := client.List[*flowcontrolv1.FlowSchema](ctx, c, client.ListOptions{})
	return levels, schemas, err
}

// ensure writes what differs from the standard objects.
func ensure(ctx context.Context, c client.Client, levels []*flowcontrolv1.PriorityLevelConfiguration, schemas []*flowcontrolv1.FlowSchema) error {
	var have []api.Object
	for _, l := range levels {
		have = append(have, l)
	}
	for _, s := range schemas {
		have = append(have, s)
	}
	all := standards()
	var missing []api.Object
	for _, s := range all {
		found := false
		for _, o := range have {
			if !s.is(o) {
				continue
			}
			found = true
			if next := s.revised(o); next != nil {
				if _, err := c.Update(ctx, next, ""); err != nil && !apierrors.IsNotFound(err) {
					return fmt.Errorf("updating %T %s: %w", next, next.GetName(), err)
				}
			}
		}
		if !found {
			missing = append(missing, s.object.DeepCopyObject().(api.Object))
		}
	}
	var errs []error
	for i, r := range c.CreateMany(ctx, missing) {
		if r.Err != nil && !apierrors.IsAlreadyExists(r.Err) {
			errs = append(errs, fmt.Errorf("creating %T %s: %w", missing[i], missing[i].GetName(), r.Err))
		}
	}
	for _, o := range have {
		if unwanted(o, all) {
			errs = append(errs, remove(ctx, c, o))
		}
	}
	return errors.Join(errs...)
}

// remove deletes an object that is still as it was seen.
func remove(ctx context.Context, c client.Client, o api.Object) error {
	uid, version := o.GetUID(), o.GetResourceVersion()
	opts := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
	var err error
	if _, level := o.(*flowcontrolv1.PriorityLevelConfiguration); level {
		err = client.Delete[*flowcontrolv1.PriorityLevelConfiguration](ctx, c, api.KeyOf(o), opts)
	} else {
		err = client.Delete[*flowcontrolv1.FlowSchema](ctx, c, api.KeyOf(o), opts)
	}
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil
	}
	return err
}
