// Package clusterroleaggregation fills cluster roles that have an aggregationRule with the rules of the roles that it selects,
// so that a custom resource's author can add to admin, edit and view
// (https://kubernetes.io/docs/reference/access-authn-authz/rbac/#aggregated-clusterroles).
//
// What flows through it: the rules of the selected ClusterRoles go into the aggregating one. What must stay true: the result
// does not depend on the order of events; a role is written only where its rules change. Tests: TestDefaultRolesGrow.
package clusterroleaggregation

import (
	"context"
	"fmt"
	"slices"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
)

// all is the one key: what a change of one role means for others depends on their selectors, and there are few roles.
var all = api.Key{Name: "all"}

type reconciler struct {
	client client.Client
}

// New declares the cluster role aggregation controller.
func New(c client.Client) controller.Controller {
	return controller.Controller{
		Name:    "clusterroleaggregation",
		Watches: []controller.Watch{{Resource: api.ClusterRoles, Keys: func(client.Event) []api.Key { return []api.Key{all} }}},
		Writes: []controller.Write{
			controller.Sets(api.ClusterRoles, "rules").Of("that aggregate"),
		},
		Reconciler: &reconciler{client: c},
	}
}

// Reconcile writes the rules of every aggregating role. A role that aggregates another aggregating one is right after
// the second round, which its own write brings about.
func (r *reconciler) Reconcile(ctx context.Context, _ api.Key) (time.Duration, error) {
	roles, err := client.List[*rbacv1.ClusterRole](ctx, r.client, client.ListOptions{})
	if err != nil {
		return 0, err
	}
	for _, role := range roles {
		if role.AggregationRule == nil {
			continue
		}
		rules, err := aggregate(role, roles)
		if err != nil {
			return 0, controller.Terminal(fmt.Errorf("aggregating ClusterRole %s: %w", role.Name, err))
		}
		if equality.Semantic.DeepEqual(rules, role.Rules) {
			continue
		}
		next := role.DeepCopy()
		next.Rules = rules
		if _, err := r.client.Update(ctx, next, ""); err != nil && !apierrors.IsNotFound(err) {
			return 0, fmt.Errorf("aggregating ClusterRole %s: %w", role.Name, err)
		}
	}
	return 0, nil
}

// aggregate returns the rules that role gathers from roles, which are ordered by name: each rule once, selector by selector.
func aggregate(role *rbacv1.ClusterRole, roles []*rbacv1.ClusterRole) ([]rbacv1.PolicyRule, error) {
	var rules []rbacv1.PolicyRule
	for i := range role.AggregationRule.ClusterRoleSelectors {
		selector, err := metav1.LabelSelectorAsSelector(&role.AggregationRule.ClusterRoleSelectors[i])
		if err != nil {
			return nil, err
		}
		for _, from := range roles {
			if from.Name == role.Name || !selector.Matches(labels.Set(from.Labels)) {
				continue
			}
			for _, rule := range from.Rules {
				if !slices.ContainsFunc(rules, func(have rbacv1.PolicyRule) bool { return equality.Semantic.DeepEqual(have, rule) }) {
					rules = append(rules, rule)
				}
			}
		}
	}
	return rules, nil
}
