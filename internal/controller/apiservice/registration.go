package apiservice

import (
	"context"
	"fmt"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

type registrar struct {
	client  client.Client
	builtin map[string]*apiregistrationv1.APIService

	mu      sync.Mutex
	atStart map[string]bool // the APIServices that were there when the first was reconciled; nil before
	done    map[string]bool // those that were kept since
}

// NewRegistration declares the controller of the APIServices that this server answers. served are the group-versions that are built in. Its keys
// are APIServices.
func NewRegistration(c client.Client, served []schema.GroupVersion) controller.Controller {
	r := &registrar{client: c, builtin: builtin(served), done: map[string]bool{}}
	return controller.Controller{
		Name:    "apiservice-registration",
		Workers: 5,
		Watches: []controller.Watch{
			{Resource: api.APIServices},
			{Resource: api.CustomResourceDefinitions, Keys: definitionKeys},
		},
		Follow: func(ctx context.Context, look func(api.Key)) {
			for name := range r.builtin {
				look(api.Key{Name: name})
			}
			<-ctx.Done()
		},
		Writes: []controller.Write{
			controller.Creates(api.APIServices),
			controller.Sets(api.APIServices, "spec").Of("of group-versions that are served here"),
			controller.Deletes(api.APIServices),
		},
		Reconciler: r,
	}
}

// definitionKeys maps a definition to the APIServices of its versions, those that it no longer has, too.
func definitionKeys(e client.Event) (out []api.Key) {
	for _, o := range []api.Object{e.Object, e.Old} {
		if def, ok := o.(*apiextensionsv1.CustomResourceDefinition); ok {
			for _, v := range def.Spec.Versions {
				out = append(out, api.Key{Name: nameOf(schema.GroupVersion{Group: def.Spec.Group, Version: v.Name})})
			}
		}
	}
	return out
}

// Reconcile keeps the APIService named key.
func (r *registrar) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	done, atStart, err := r.remembered(ctx, key.Name)
	if err != nil {
		return 0, err
	}
	present, err := client.Get[*apiregistrationv1.APIService](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		present, err = nil, nil
	}
	if err != nil {
		return 0, err
	}
	desired := r.builtin[key.Name]
	if desired == nil {
		definitions, err := client.List[*apiextensionsv1.CustomResourceDefinition](ctx, r.client, client.ListOptions{})
		if err != nil {
			return 0, err
		}
		desired = ofDefinitions(key.Name, definitions)
	}
	switch plan(desired, present, done, atStart) {
	case create:
		_, err = r.client.Create(ctx, desired.DeepCopy())
	case update:
		next := present.DeepCopy()
		next.Spec = desired.Spec
		_, err = r.client.Update(ctx, next, "")
	case remove:
		err = r.client.Delete(ctx, api.APIServices, key, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &present.UID}})
	}
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
		return 0, fmt.Errorf("registering %s: %w", key.Name, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[key.Name] = true
	return 0, nil
}

// remembered returns what is known of an APIService since this controller began.
func (r *registrar) remembered(ctx context.Context, name string) (done, atStart bool, _ error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.atStart == nil {
		all, err := client.List[*apiregistrationv1.APIService](ctx, r.client, client.ListOptions{})
		if err != nil {
			return false, false, err
		}
		r.atStart = map[string]bool{}
		for _, s := range all {
			r.atStart[s.Name] = true
		}
	}
	return r.done[name], r.atStart[name], nil
}
