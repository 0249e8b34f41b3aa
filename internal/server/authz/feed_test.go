package authz_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

func TestTheIndexIsFreshAfterAWrite(t *testing.T) {
	var s *store.Store
	c, _ := clienttest.NewRegistry(t, func(cfg *registry.Config) { s = cfg.Store })
	z := authz.NewRBAC()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- z.Run(ctx, s, func() { close(ready) }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-ready

	for i := range 200 {
		name := fmt.Sprintf("user-%d", i)
		for _, o := range []api.Object{
			&rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"get"}, APIGroups: []string{""}, Resources: []string{"pods"}}}},
			&rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{APIGroup: "rbac.authorization.k8s.io", Kind: "ClusterRole", Name: name},
				Subjects: []rbacv1.Subject{{APIGroup: "rbac.authorization.k8s.io", Kind: "User", Name: name}}},
		} {
			if _, err := c.Create(ctx, o); err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Fresh(ctx, s); err != nil {
			t.Fatal(err)
		}
		d, why, err := z.Authorize(ctx, &authz.Attributes{User: &user.DefaultInfo{Name: name}, Verb: "get", Resource: "pods", Namespace: "shop", IsResource: true})
		if d != authz.Allow {
			t.Fatalf("%s may not do what its role allows: %v %s %v", name, d, why, err)
		}
	}

	short, stop := context.WithTimeout(ctx, time.Millisecond)
	defer stop()
	<-short.Done()
	if err := authz.NewRBAC().Fresh(short, s); err == nil {
		t.Error("an index that follows nothing says that it is fresh")
	}
}
