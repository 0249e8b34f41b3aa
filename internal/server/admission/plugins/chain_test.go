package plugins_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/admission/plugins"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/server/request"
)

// cluster is a real front door with all plugins, and a way to write as someone.
type cluster struct {
	*client.Local
	registry *registry.Registry
	rbac     *authz.RBAC
}

func start(t *testing.T) *cluster {
	t.Helper()
	rbac := authz.NewRBAC()
	c, reg := clienttest.NewRegistry(t, func(cfg *registry.Config) {
		reader := registry.NewReader(cfg.Store)
		ctx, cancel := context.WithCancel(context.Background())
		ready, done := make(chan struct{}), make(chan error, 1)
		go func() { done <- rbac.Run(ctx, cfg.Store, func() { close(ready) }) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
		<-ready
		cfg.Admission = func(front *registry.Registry) admission.Chain {
			return plugins.Default(plugins.Config{Reader: reader, RBAC: rbac, Authorizer: authz.Union{authz.Masters{}, rbac}, Quotas: client.NewLocal(front)})
		}
	})
	clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system"}})
	clienttest.Create(t, c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-public"}})
	clienttest.Create(t, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}})
	return &cluster{c, reg, rbac}
}

func as(name string, groups ...string) context.Context {
	return request.With(context.Background(), &request.Info{User: &user.DefaultInfo{Name: name, Groups: groups}})
}

func pod(name string, requests ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	p.Spec.Containers[0].Resources.Requests = list(requests...)
	return p
}

func list(kv ...string) corev1.ResourceList {
	out := corev1.ResourceList{}
	for i := 0; i < len(kv); i += 2 {
		out[corev1.ResourceName(kv[i])] = resource.MustParse(kv[i+1])
	}
	return out
}

func TestBootstrapAndEscalation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		if err := plugins.BootstrapPriorityClasses(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := authz.Bootstrap(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		clienttest.Create(t, c.Local, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "jane"},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:aggregate-to-view"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "User", Name: "jane"}}})
		clienttest.Create(t, c.Local, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "binder"},
			Rules: []rbacv1.PolicyRule{{Verbs: []string{"bind"}, APIGroups: []string{rbacv1.GroupName}, Resources: []string{"clusterroles"}, ResourceNames: []string{"edit"}}}})
		clienttest.Create(t, c.Local, &rbacv1.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "binder"},
			RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "binder"},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: "Group", Name: "binders"}}})
		synctest.Wait()

		role := func(verb string) api.Object {
			return &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "r-" + verb},
				Rules: []rbacv1.PolicyRule{{Verbs: []string{verb}, APIGroups: []string{""}, Resources: []string{"pods"}}}}
		}
		bind := func(namespace, role string) api.Object {
			ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}
			m := metav1.ObjectMeta{Namespace: namespace, GenerateName: "b-"}
			m.Name = fmt.Sprintf("b-%s-%s", namespace, role)
			if namespace == "" {
				return &rbacv1.ClusterRoleBinding{ObjectMeta: m, RoleRef: ref}
			}
			return &rbacv1.RoleBinding{ObjectMeta: m, RoleRef: ref}
		}
		tests := []struct {
			name string
			who  context.Context
			obj  api.Object
			says string
		}{
			{"what she has", as("jane"), role("get"), ""},
			{"what she has not", as("jane"), role("delete"), `roles.rbac.authorization.k8s.io "r-delete" is forbidden: user "jane" (groups=[]) is attempting to grant RBAC permissions not currently held:` + "\n" + `{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}`},
			{"her role to another", as("jane"), bind("default", "system:aggregate-to-view"), ""},
			{"her role elsewhere", as("jane"), bind("kube-system", "system:aggregate-to-view"), "permissions not currently held"},
			{"her role everywhere", as("jane"), bind("", "system:aggregate-to-view"), "permissions not currently held"},
			{"all power", as("jane"), bind("default", "cluster-admin"), "permissions not currently held"},
			{"what she may bind", as("jane", "binders"), bind("default", "edit"), ""},
			{"a role that is not there", as("jane"), bind("default", "nothing"), `clusterroles.rbac.authorization.k8s.io "nothing" not found`},
			{"an administrator", as("root", "system:masters"), bind("", "cluster-admin"), ""},
			{"aggregation", as("jane"), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "agg"},
				AggregationRule: &rbacv1.AggregationRule{ClusterRoleSelectors: []metav1.LabelSelector{{}}}}, "must have cluster-admin privileges to use the aggregationRule"},
		}
		for _, tc := range tests {
			_, err := c.Create(tc.who, tc.obj)
			if tc.says == "" && err != nil || tc.says != "" && (err == nil || !strings.Contains(err.Error(), tc.says)) {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
	})
}

// versioned returns a pod that was stored before.
func versioned(p *corev1.Pod) *corev1.Pod {
	p.ResourceVersion = "1"
	return p
}

func TestQuotaAtTheFrontDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		q := clienttest.Create(t, c.Local, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"},
			Spec: corev1.ResourceQuotaSpec{Hard: list("pods", "3", "requests.cpu", "2", "services.nodeports", "1")}})
		if _, err := c.Create(t.Context(), pod("early", "cpu", "1")); err == nil || !strings.Contains(err.Error(), "status unknown for quota: q, resources: pods,requests.cpu") {
			t.Errorf("before it was counted: %v", err)
		}
		next := q.DeepCopy()
		next.Status.Hard, next.Status.Used = q.Spec.Hard, list("pods", "0", "requests.cpu", "0", "services.nodeports", "0")
		if _, err := c.Update(t.Context(), next, "status"); err != nil {
			t.Fatal(err)
		}
		service := func(name string, kind corev1.ServiceType) *corev1.Service {
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.ServiceSpec{Type: kind, Ports: []corev1.ServicePort{{Port: 80}}}}
		}
		steps := []struct {
			obj  api.Object
			says string
			used corev1.ResourceList
		}{
			{pod("a", "cpu", "1"), "", list("pods", "1", "requests.cpu", "1")},
			{pod("b"), `pods "b" is forbidden: failed quota: q: must specify requests.cpu for: c`, list("pods", "1")},
			{pod("c", "cpu", "1500m"), `pods "c" is forbidden: exceeded quota: q, requested: requests.cpu=1500m, used: requests.cpu=1, limited: requests.cpu=2`, list("pods", "1")},
			{versioned(pod("z", "cpu", "1")), "resourceVersion should not be set", list("pods", "1", "requests.cpu", "1")},
			{pod("a", "cpu", "1"), `pods "a" already exists`, list("pods", "1", "requests.cpu", "1")},
			{pod("d", "cpu", "1"), "", list("pods", "2", "requests.cpu", "2")},
			{service("s", corev1.ServiceTypeClusterIP), "", list("services.nodeports", "0")},
			{service("n", corev1.ServiceTypeNodePort), "", list("services.nodeports", "1")},
			{service("m", corev1.ServiceTypeNodePort), "exceeded quota: q, requested: services.nodeports=1, used: services.nodeports=1, limited: services.nodeports=1", list("services.nodeports", "1")},
		}
		check := func(step string, want corev1.ResourceList) {
			t.Helper()
			got, err := client.Get[*corev1.ResourceQuota](t.Context(), c, api.KeyOf(q))
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range want {
				if u := got.Status.Used[name]; u.Cmp(w) != 0 {
					t.Errorf("after %s: %s is %s, want %s", step, name, u.String(), w.String())
				}
			}
		}
		for _, s := range steps {
			_, err := c.Create(t.Context(), s.obj)
			if s.says == "" && err != nil || s.says != "" && (err == nil || strings.Contains(s.says, "quota") != apierrors.IsForbidden(err) || !strings.Contains(err.Error(), s.says)) {
				t.Errorf("%s: %v", s.obj.GetName(), err)
			}
			check(s.obj.GetName(), s.used)
		}
		// A Service that becomes a NodePort is charged for the difference.
		_, err := client.Mutate(t.Context(), c, api.Key{Namespace: "default", Name: "s"}, "", func(s *corev1.Service) bool {
			s.Spec.Type = corev1.ServiceTypeNodePort
			return true
		})
		if err == nil || !strings.Contains(err.Error(), "exceeded quota") {
			t.Errorf("the change of type: %v", err)
		}
	})
}

// However many ask at once, no more get through than there is room.
func TestQuotaUnderContention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		q := clienttest.Create(t, c.Local, &corev1.ResourceQuota{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "q"}, Spec: corev1.ResourceQuotaSpec{Hard: list("count/configmaps", "7")}})
		next := q.DeepCopy()
		next.Status.Hard, next.Status.Used = q.Spec.Hard, list("count/configmaps", "0")
		if _, err := c.Update(t.Context(), next, "status"); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		errs := make([]error, 20)
		for i := range errs {
			wg.Go(func() {
				_, errs[i] = c.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprint(i)}})
			})
		}
		wg.Wait()
		through := 0
		for _, err := range errs {
			if err == nil {
				through++
			} else if !apierrors.IsForbidden(err) {
				t.Error(err)
			}
		}
		if through != 7 {
			t.Errorf("%d got through", through)
		}
	})
}

// Who creates a namespace and at once a pod in it waits for the account; a controller does not.
func TestWaitingForTheDefaultAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		clienttest.Create(t, c.Local, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "new"}})
		p := pod("p")
		p.Namespace = "new"
		began := time.Now()
		if _, err := c.Create(t.Context(), p.DeepCopy()); !apierrors.IsForbidden(err) || time.Since(began) != 0 {
			t.Errorf("a controller: %v after %v", err, time.Since(began))
		}
		if _, err := c.Create(as("jane"), p.DeepCopy()); !apierrors.IsForbidden(err) || time.Since(began) > 2*time.Second {
			t.Errorf("no account comes: %v after %v", err, time.Since(began))
		}
		done := make(chan error, 1)
		go func() {
			_, err := c.Create(as("jane"), p)
			done <- err
		}()
		synctest.Wait()
		clienttest.Create(t, c.Local, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "new", Name: "default"}})
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// BenchmarkChain is what admission adds to the creation of a pod by a controller, in a namespace without limits or quotas.
func BenchmarkChain(b *testing.B) {
	c, reg := clienttest.NewRegistry(b)
	clienttest.Create(b, c, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "default"}})
	rbac := authz.NewRBAC()
	chain := plugins.Default(plugins.Config{Reader: reg.Reader(), RBAC: rbac, Authorizer: rbac, Quotas: c})
	b.Run("pod created", func(b *testing.B) {
		for b.Loop() {
			p := pod("p")
			a := &admission.Attributes{Operation: admission.Create, Resource: api.Pods, Key: api.KeyOf(p), Object: p}
			if err := errors.Join(chain.Admit(b.Context(), a), chain.Validate(b.Context(), a)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("pod status written", func(b *testing.B) {
		p := pod("p")
		a := &admission.Attributes{Operation: admission.Update, Subresource: "status", Resource: api.Pods, Key: api.KeyOf(p), Object: p, Old: p}
		for b.Loop() {
			if err := errors.Join(chain.Admit(b.Context(), a), chain.Validate(b.Context(), a)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// A pod has the zone and region of its node from the binding on, also when the scheduler of this process binds it.
func TestTopologyLabelsAtTheFrontDoor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t)
		clienttest.Create(t, c.Local, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n", Labels: map[string]string{
			corev1.LabelTopologyZone: "z1", corev1.LabelTopologyRegion: "r1", corev1.LabelHostname: "n"}}})
		clienttest.Create(t, c.Local, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "plain"}})
		mine := map[string]string{"app": "web", corev1.LabelTopologyZone: "wish"}
		for _, tc := range []struct{ name, node, zone, region string }{
			{"a", "n", "z1", "r1"}, {"b", "plain", "wish", ""}, {"c", "unknown", "wish", ""},
		} {
			p := pod(tc.name)
			p.Labels = mine
			clienttest.Create(t, c.Local, p)
			if r := c.BindMany(t.Context(), []client.Binding{{Pod: api.KeyOf(p), Node: tc.node}}); r[0].Err != nil {
				t.Fatal(r[0].Err)
			}
			got, err := client.Get[*corev1.Pod](t.Context(), c, api.KeyOf(p))
			if err != nil || got.Labels[corev1.LabelTopologyZone] != tc.zone || got.Labels[corev1.LabelTopologyRegion] != tc.region ||
				got.Labels["app"] != "web" || got.Labels[corev1.LabelHostname] != "" {
				t.Errorf("%s on %s: %v %v", tc.name, tc.node, got.Labels, err)
			}
		}
		static := pod("static")
		static.Spec.NodeName = "n"
		if got := clienttest.Create(t, c.Local, static); got.Labels[corev1.LabelTopologyZone] != "z1" {
			t.Errorf("created on its node: %v", got.Labels)
		}
	})
}
