// Package policycheck says in the status of a ValidatingAdmissionPolicy which of its expressions do not fit the types of the resources that it names
// (https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/#type-checking).
//
// What flows through it: the expressions of a policy are compiled against the schemas of what is served, built-in or custom, as its own OpenAPI
// documents have them (schemas.go); what the compiler says becomes status.typeChecking. What must stay true: warnings never change what a policy
// does; a generation of a policy is checked once. Tests: TestWarnings, TestCheckedOnce.
package policycheck

import (
	"context"
	"fmt"
	"time"

	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/admission/plugin/policy/validating"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

type reconciler struct {
	client  client.Client
	catalog func() *api.Catalog
}

// New declares the controller. catalog returns what is served at present.
func New(c client.Client, catalog func() *api.Catalog) controller.Controller {
	return controller.Controller{
		Name:       "validatingadmissionpolicy-status",
		Workers:    2,
		Watches:    []controller.Watch{{Resource: api.ValidatingAdmissionPolicies}},
		Writes:     []controller.Write{controller.Sets(api.ValidatingAdmissionPolicies, "status")},
		Reconciler: &reconciler{c, catalog},
	}
}

// Reconcile checks the policy named key, if that generation of it has not been checked.
func (r *reconciler) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	p, err := client.Get[*admissionregistrationv1.ValidatingAdmissionPolicy](ctx, r.client, key)
	if apierrors.IsNotFound(err) {
		return 0, nil
	}
	if err != nil || p.Generation <= p.Status.ObservedGeneration {
		return 0, err
	}
	catalog := r.catalog()
	checker := &validating.TypeChecker{SchemaResolver: schemas{catalog}, RestMapper: mapper{catalog: catalog}}
	out := p.DeepCopy()
	out.Status.ObservedGeneration = p.Generation
	out.Status.TypeChecking = &admissionregistrationv1.TypeChecking{ExpressionWarnings: checker.Check(p)}
	if _, err := r.client.Update(ctx, out, "status"); err != nil && !apierrors.IsNotFound(err) {
		return 0, fmt.Errorf("writing what is wrong with the types of ValidatingAdmissionPolicy %s: %w", p.Name, err)
	}
	return 0, nil
}
