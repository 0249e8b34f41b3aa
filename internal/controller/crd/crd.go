// Package crd keeps the status of custom resource definitions, and deletes a definition's objects before it goes.
//
// What flows through it: [New] reconciles the definitions of one API group together, since they contend for names: plan.go decides which
// names each gets and what its conditions say. [NewCleanup] reconciles a definition that is being deleted: its objects are deleted,
// waited for, and then its finalizer is taken off. What must stay true: only the leader runs this; a definition is Established
// once this server serves it; a definition whose schema is broken can be deleted like any other
// (TestDefinitionLivesAndDies, TestNamesThatAreTaken).
package crd

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	definitions "github.com/knarr-io/knarr/internal/server/crd"
)

// servedSoon is when a definition is looked at again whose names were accepted and which is not served yet.
const servedSoon = 10 * time.Millisecond

// Several servers serve what is new a moment after each other: each follows the store by itself. A definition is Established this long
// after its names were accepted, where there are several.
const settled = time.Second

// Config is what the controllers of definitions need besides a client.
type Config struct {
	// Catalog returns what this server serves at present.
	Catalog func() *api.Catalog
	// Several reports whether there are other servers; nil where there are none.
	Several func() bool
}

type reconciler struct {
	client client.Client
	cfg    Config

	mu         sync.Mutex
	structures map[string]structure // by the definition's name
}

// structure is what is to be said of the schemas of a definition. It takes a while to find out, and changes with its generation alone.
type structure struct {
	uid        types.UID
	generation int64
	condition  *condition
}

// New declares the controller of names and conditions. Its keys are API groups.
func New(c client.Client, cfg Config) controller.Controller {
	return controller.Controller{
		Name:    "crd-status",
		Workers: 2,
		Watches: []controller.Watch{{Resource: api.CustomResourceDefinitions, Keys: groupKeys}},
		Writes: []controller.Write{
			controller.Sets(api.CustomResourceDefinitions, "status", "acceptedNames"),
			controller.Sets(api.CustomResourceDefinitions, "status", "conditions", string(apiextensionsv1.NamesAccepted)),
			controller.Sets(api.CustomResourceDefinitions, "status", "conditions", string(apiextensionsv1.Established)),
			controller.Sets(api.CustomResourceDefinitions, "status", "conditions", string(apiextensionsv1.NonStructuralSchema)),
			controller.Sets(api.CustomResourceDefinitions, "status", "conditions", string(apiextensionsv1.KubernetesAPIApprovalPolicyConformant)),
		},
		Reconciler: &reconciler{client: c, cfg: cfg, structures: map[string]structure{}},
	}
}

// groupKeys maps a definition to its group.
func groupKeys(e client.Event) []api.Key {
	return []api.Key{{Name: e.Object.(*apiextensionsv1.CustomResourceDefinition).Spec.Group}}
}

// Reconcile writes the status of the definitions of the group named key.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	all, err := client.List[*apiextensionsv1.CustomResourceDefinition](ctx, r.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	r.forget(all)
	var group []*apiextensionsv1.CustomResourceDefinition
	for _, def := range all {
		if def.Spec.Group == key.Name {
			group = append(group, def)
		}
	}
	var after time.Duration
	var failed error
	now := metav1.NewTime(time.Now().Truncate(time.Second))
	for i, def := range group {
		served, wait := r.served(def)
		status := planStatus(def, group, served, r.structureOf(def), now)
		if wait > 0 && (after == 0 || wait < after) {
			after = wait
		}
		if apiequality.Semantic.DeepEqual(status, &def.Status) {
			continue
		}
		written := *def
		written.Status = *status
		out, err := r.client.Update(ctx, &written, "status")
		switch {
		case err == nil:
			group[i] = out.(*apiextensionsv1.CustomResourceDefinition)
			after = servedSoon
		case !apierrors.IsNotFound(err):
			failed = errors.Join(failed, fmt.Errorf("writing the status of %s: %w", def.Name, err))
		}
	}
	return after, failed
}

// structureOf returns nonStructural of a definition.
func (r *reconciler) structureOf(def *definition) *condition {
	r.mu.Lock()
	known, ok := r.structures[def.Name]
	r.mu.Unlock()
	if ok && known.uid == def.UID && known.generation == def.Generation {
		return known.condition
	}
	found := structure{def.UID, def.Generation, nonStructural(def)}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.structures[def.Name] = found
	return found.condition
}

// forget drops what is known of definitions that are no longer there.
func (r *reconciler) forget(all []*definition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.structures) <= len(all) {
		return
	}
	there := make(map[string]bool, len(all))
	for _, def := range all {
		there[def.Name] = true
	}
	maps.DeleteFunc(r.structures, func(name string, _ structure) bool { return !there[name] })
}

// served reports whether clients find what def defines, or else when to look again; 0 where nothing is expected to come.
func (r *reconciler) served(def *apiextensionsv1.CustomResourceDefinition) (bool, time.Duration) {
	accepted := conditionOf(&def.Status, apiextensionsv1.NamesAccepted)
	if accepted == nil || accepted.Status != apiextensionsv1.ConditionTrue || conditionTrue(&def.Status, apiextensionsv1.Established) {
		return false, 0
	}
	if r.cfg.Several != nil && r.cfg.Several() {
		if since := time.Since(accepted.LastTransitionTime.Time); since < settled {
			return false, settled - since
		}
	}
	if res := stored(r.cfg.Catalog(), def); res != nil && res.Edition == definitions.Edition(def) {
		return true, 0
	}
	return false, servedSoon
}

// stored returns the resource in whose version the objects of def are stored, or nil where it is not served.
func stored(catalog *api.Catalog, def *apiextensionsv1.CustomResourceDefinition) *api.Resource {
	for _, v := range def.Spec.Versions {
		if v.Storage {
			return catalog.Kind(schema.GroupVersionKind{Group: def.Spec.Group, Version: v.Name, Kind: def.Status.AcceptedNames.Kind})
		}
	}
	return nil
}
