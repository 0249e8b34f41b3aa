package clusterroleaggregation

import (
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/server/authz"
)

func resources(t *testing.T, c client.Client, name string) map[string]bool {
	t.Helper()
	synctest.Wait()
	r, err := client.Get[*rbacv1.ClusterRole](t.Context(), c, api.Key{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for _, rule := range r.Rules {
		for _, res := range rule.Resources {
			for _, v := range rule.Verbs {
				out[v+" "+res] = true
			}
		}
	}
	return out
}

// The default roles: view goes into edit, edit into admin; a custom resource's author adds to view.
func TestDefaultRolesGrow(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		t := c.T
		clienttest.Create(t, c.Client, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})
		c.Start(New(c.Client))
		if err := authz.Bootstrap(t.Context(), c.Client); err != nil {
			t.Fatal(err)
		}
		for role, want := range map[string]map[string]bool{
			"view":  {"get pods": true, "create pods": false, "get secrets": false, "create roles": false},
			"edit":  {"get pods": true, "create pods": true, "get secrets": true, "create roles": false},
			"admin": {"get pods": true, "create pods": true, "get secrets": true, "create roles": true},
		} {
			got := resources(t, c.Client, role)
			for what, is := range want {
				if got[what] != is {
					t.Errorf("%s may %s: %v", role, what, got[what])
				}
			}
		}
		clienttest.Create(t, c.Client, &rbacv1.ClusterRole{
			ObjectMeta: metav1.ObjectMeta{Name: "crontabs", Labels: map[string]string{"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
			Rules:      []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{"stable.example.com"}, Resources: []string{"crontabs"}}},
		})
		if !resources(t, c.Client, "admin")["get crontabs"] {
			t.Error("what is added to view does not reach admin")
		}
		if err := client.Delete[*rbacv1.ClusterRole](t.Context(), c.Client, api.Key{Name: "crontabs"}, metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if resources(t, c.Client, "admin")["get crontabs"] {
			t.Error("what is taken away stays in admin")
		}
		// A second start finds nothing to do.
		before, err := client.Get[*rbacv1.ClusterRole](t.Context(), c.Client, api.Key{Name: "admin"})
		if err != nil {
			t.Fatal(err)
		}
		if err := authz.Bootstrap(t.Context(), c.Client); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		after, err := client.Get[*rbacv1.ClusterRole](t.Context(), c.Client, api.Key{Name: "admin"})
		if err != nil || before.ResourceVersion != after.ResourceVersion {
			t.Errorf("written again: %s, then %s (%v)", before.ResourceVersion, after.ResourceVersion, err)
		}
	})
}
