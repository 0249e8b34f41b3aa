package authz

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"golang.org/x/sync/errgroup"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// Writer is what Bootstrap needs of a client.Client.
type Writer interface {
	Get(ctx context.Context, res *api.Resource, key api.Key) (api.Object, error)
	Create(ctx context.Context, obj api.Object) (api.Object, error)
	Update(ctx context.Context, obj api.Object, sub string) (api.Object, error)
	Delete(ctx context.Context, res *api.Resource, key api.Key, opts metav1.DeleteOptions) error
}

// Bootstrap puts the default roles and bindings in place: it makes those that are missing and adds what others lack. It takes
// nothing away, and leaves alone what is annotated rbac.authorization.kubernetes.io/autoupdate: "false". Namespace
// kube-system must exist.
func Bootstrap(ctx context.Context, w Writer) error {
	policy, err := Policy()
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(len(policy)) // all at once: the store puts concurrent writes into one transaction
	for _, want := range policy {
		g.Go(func() error {
			err := ensure(ctx, w, want)
			for tries := 0; tries < 3 && (apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)); tries++ {
				err = ensure(ctx, w, want)
			}
			if err != nil {
				return fmt.Errorf("default %s %s: %w", want.GetObjectKind().GroupVersionKind().Kind, want.GetName(), err)
			}
			return nil
		})
	}
	return g.Wait()
}

func ensure(ctx context.Context, w Writer, want api.Object) error {
	res := resourceOf(want)
	have, err := w.Get(ctx, res, api.KeyOf(want))
	if apierrors.IsNotFound(err) {
		_, err = w.Create(ctx, want.DeepCopyObject().(api.Object))
		return err
	}
	if err != nil {
		return err
	}
	next, replace := reconciled(have, want)
	switch {
	case next == nil:
		return nil
	case replace:
		// A binding's roleRef cannot be changed.
		uid := have.GetUID()
		if err := w.Delete(ctx, res, api.KeyOf(want), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); err != nil {
			return err
		}
		_, err = w.Create(ctx, next)
	default:
		_, err = w.Update(ctx, next, "")
	}
	if err == nil {
		slog.Info("brought a default role or binding up to date", "kind", res.Kind, "name", want.GetName())
	}
	return err
}

// reconciled returns have with what it lacks of want, or nil if it lacks nothing. replace says that it has to be made anew.
func reconciled(have, want api.Object) (next api.Object, replace bool) {
	if have.GetAnnotations()[autoUpdate] == "false" {
		return nil, false
	}
	next = have.DeepCopyObject().(api.Object)
	next.SetLabels(merged(want.GetLabels(), have.GetLabels()))
	next.SetAnnotations(merged(want.GetAnnotations(), have.GetAnnotations()))
	switch n := next.(type) {
	case *rbacv1.ClusterRole:
		w := want.(*rbacv1.ClusterRole)
		n.Rules = addRules(n.Rules, w.Rules)
		if w.AggregationRule != nil {
			if n.AggregationRule == nil {
				n.AggregationRule = &rbacv1.AggregationRule{}
			}
			for _, s := range w.AggregationRule.ClusterRoleSelectors {
				if !slices.ContainsFunc(n.AggregationRule.ClusterRoleSelectors, func(h metav1.LabelSelector) bool { return equality.Semantic.DeepEqual(h, s) }) {
					n.AggregationRule.ClusterRoleSelectors = append(n.AggregationRule.ClusterRoleSelectors, s)
				}
			}
		}
	case *rbacv1.Role:
		n.Rules = addRules(n.Rules, want.(*rbacv1.Role).Rules)
	case *rbacv1.ClusterRoleBinding:
		w := want.(*rbacv1.ClusterRoleBinding)
		if n.RoleRef != w.RoleRef {
			return w.DeepCopy(), true
		}
		n.Subjects = addSubjects(n.Subjects, w.Subjects)
	case *rbacv1.RoleBinding:
		w := want.(*rbacv1.RoleBinding)
		if n.RoleRef != w.RoleRef {
			return w.DeepCopy(), true
		}
		n.Subjects = addSubjects(n.Subjects, w.Subjects)
	}
	if equality.Semantic.DeepEqual(next, have) {
		return nil, false
	}
	return next, false
}

func merged(base, over map[string]string) map[string]string {
	out := maps.Clone(base)
	maps.Copy(out, over)
	return out
}

// addRules adds those of want that have does not cover.
func addRules(have, want []rbacv1.PolicyRule) []rbacv1.PolicyRule {
	held := have
	for i := range want {
		missing := slices.ContainsFunc(split(&want[i]), func(atom rbacv1.PolicyRule) bool {
			return !slices.ContainsFunc(held, func(h rbacv1.PolicyRule) bool { return covers(&h, &atom) })
		})
		if missing {
			have = append(have, want[i])
		}
	}
	return have
}

func addSubjects(have, want []rbacv1.Subject) []rbacv1.Subject {
	for _, s := range want {
		if !slices.Contains(have, s) {
			have = append(have, s)
		}
	}
	return have
}

func resourceOf(obj api.Object) *api.Resource {
	switch obj.(type) {
	case *rbacv1.ClusterRole:
		return api.ClusterRoles
	case *rbacv1.Role:
		return api.Roles
	case *rbacv1.ClusterRoleBinding:
		return api.ClusterRoleBindings
	default:
		return api.RoleBindings
	}
}
