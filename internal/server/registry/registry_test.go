package registry_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/registry"
	"github.com/knarr-io/knarr/internal/store"
)

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "busybox"}}},
	}
}

func key(name string) api.Key { return api.Key{Namespace: "default", Name: name} }

func TestCreateDefaultsAndRefuses(t *testing.T) {
	c := clienttest.New(t)
	p := clienttest.Create(t, c, pod("a"))
	if p.UID == "" || p.ResourceVersion == "" || p.Status.Phase != corev1.PodPending || p.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		t.Errorf("not defaulted and prepared: %+v", p)
	}
	if _, err := c.Create(t.Context(), pod("a")); !apierrors.IsAlreadyExists(err) {
		t.Errorf("the same name again: %v", err)
	}
	bad := pod("b")
	bad.Spec.Containers[0].Image = ""
	if _, err := c.Create(t.Context(), bad); !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "spec.containers[0].image: Required value") {
		t.Errorf("no image: %v", err)
	}
	if list, _ := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{}); len(list) != 1 {
		t.Errorf("%d pods stored, want 1", len(list))
	}
}

func TestUpdateConflictsAndStatusKeepsSpec(t *testing.T) {
	c := clienttest.New(t)
	p := clienttest.Create(t, c, pod("a"))
	one, two := p.DeepCopy(), p.DeepCopy()
	one.Labels = map[string]string{"by": "one"}
	if _, err := c.Update(t.Context(), one, ""); err != nil {
		t.Fatal(err)
	}
	two.Labels = map[string]string{"by": "two"}
	if _, err := c.Update(t.Context(), two, ""); !apierrors.IsConflict(err) {
		t.Errorf("a stale update: %v", err)
	}
	st := p.DeepCopy()
	st.ResourceVersion = ""
	st.Spec.NodeName = "elsewhere"
	st.Status.Phase = corev1.PodRunning
	if _, err := c.Update(t.Context(), st, "status"); err != nil {
		t.Fatal(err)
	}
	got, _ := client.Get[*corev1.Pod](t.Context(), c, key("a"))
	if got.Status.Phase != corev1.PodRunning || got.Spec.NodeName != "" || got.Labels["by"] != "one" {
		t.Errorf("a status update changed more than status: %+v", got)
	}
}

func TestGracefulDeletionAndFinalizers(t *testing.T) {
	c := clienttest.New(t)
	p := pod("a")
	p.Spec.NodeName = "n1"
	clienttest.Create(t, c, p)
	if err := client.Delete[*corev1.Pod](t.Context(), c, key("a"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	got, err := client.Get[*corev1.Pod](t.Context(), c, key("a"))
	if err != nil || got.DeletionTimestamp == nil || *got.DeletionGracePeriodSeconds != 30 {
		t.Fatalf("a bound pod must wait for its node: %v %+v", err, got)
	}
	zero := int64(0)
	if err := client.Delete[*corev1.Pod](t.Context(), c, key("a"), metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get[*corev1.Pod](t.Context(), c, key("a")); !apierrors.IsNotFound(err) {
		t.Errorf("after deletion without grace: %v", err)
	}

	cm := clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "f", Finalizers: []string{"example.com/hold"}}})
	if err := client.Delete[*corev1.ConfigMap](t.Context(), c, api.KeyOf(cm), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Mutate(t.Context(), c, api.KeyOf(cm), "", func(m *corev1.ConfigMap) bool { m.Finalizers = nil; return true }); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Get[*corev1.ConfigMap](t.Context(), c, api.KeyOf(cm)); !apierrors.IsNotFound(err) {
		t.Errorf("after the last finalizer: %v", err)
	}
}

func TestWatchIndexFollowsBinding(t *testing.T) {
	c := clienttest.New(t)
	w, err := clienttest.Watch[*corev1.Pod](t.Context(), c, client.ListOptions{Index: client.IndexNode, Value: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if first, _ := w.Next(t.Context()); !first.Full || len(first.Events) != 0 {
		t.Fatalf("first events: %+v", first)
	}
	clienttest.Create(t, c, pod("a"))
	clienttest.Create(t, c, pod("b"))
	res := c.BindMany(t.Context(), []client.Binding{{Pod: key("a"), Node: "n1"}, {Pod: key("b"), Node: "n2"}, {Pod: key("c"), Node: "n1"}})
	if res[0].Err != nil || res[1].Err != nil || !apierrors.IsNotFound(res[2].Err) {
		t.Fatalf("binding: %+v", res)
	}
	b, err := w.Next(t.Context())
	if err != nil || len(b.Events) != 1 || b.Events[0].Type != client.Added || b.Events[0].Object.GetName() != "a" {
		t.Errorf("node n1 saw %+v, %v", b, err)
	}
	if again := c.BindMany(t.Context(), []client.Binding{{Pod: key("a"), Node: "n2"}}); !apierrors.IsConflict(again[0].Err) {
		t.Errorf("binding twice: %v", again[0].Err)
	}
}

func TestServiceAllocation(t *testing.T) {
	c := clienttest.New(t)
	svc := func(name, ip string, nodePort int32) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80, NodePort: nodePort}}}}
	}
	a := clienttest.Create(t, c, svc("a", "10.96.0.10", 30080))
	for _, tc := range []struct {
		svc  *corev1.Service
		want string
	}{
		{svc("a", "10.96.0.10", 0), `services "a" already exists`},
		{svc("b", "10.96.0.10", 0), `failed to allocate IP 10.96.0.10: provided IP is already allocated`},
		{svc("b", "10.97.0.1", 0), `the provided IP is not in the valid range. The range of valid IPs is 10.96.0.0/16`},
		{svc("b", "", 30080), `spec.ports[0].nodePort: Invalid value: 30080: provided port is already allocated`},
		{svc("b", "", 80), `provided port is not in the valid range. The range of valid ports is 30000-32767`},
	} {
		if _, err := c.Create(t.Context(), tc.svc); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("got %v, want %s", err, tc.want)
		}
	}
	if err := client.Delete[*corev1.Service](t.Context(), c, api.KeyOf(a), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	clienttest.Create(t, c, svc("b", "10.96.0.10", 30080))

	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() { _, _ = c.Create(context.Background(), svc(fmt.Sprint("s", i), "", 0)) })
	}
	wg.Wait()
	seen := map[string]string{}
	list, _ := client.List[*corev1.Service](t.Context(), c, client.ListOptions{})
	if len(list) != 51 {
		t.Errorf("%d services, want 51", len(list))
	}
	for _, s := range list {
		for _, k := range []string{s.Spec.ClusterIP, fmt.Sprint(s.Spec.Ports[0].NodePort)} {
			if other := seen[k]; other != "" {
				t.Errorf("%s and %s both have %s", other, s.Name, k)
			}
			seen[k] = s.Name
		}
	}
}

func TestListPagesAreOneRevision(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	for i := range 10 {
		clienttest.Create(t, c, pod(fmt.Sprintf("p%d", i)))
	}
	page, err := r.List(t.Context(), api.Pods, registry.ListOptions{Limit: 4})
	if err != nil || len(page.Items) != 4 || *page.Remaining != 6 {
		t.Fatalf("first page: %+v %v", page, err)
	}
	for ns, left := range map[string]int64{"default": 6, "elsewhere": 0} {
		page, err := r.List(t.Context(), api.Pods, registry.ListOptions{Limit: 4, Selection: registry.Selection{Namespace: ns}})
		if err != nil || (left > 0) != (page.Remaining != nil) || (left > 0 && *page.Remaining != left) {
			t.Errorf("first page of namespace %s: %+v %v, want %d more", ns, page, err, left)
		}
	}
	clienttest.Create(t, c, pod("p33"))
	rest, err := r.List(t.Context(), api.Pods, registry.ListOptions{Continue: page.Continue})
	if err != nil || len(rest.Items) != 6 || rest.Revision != page.Revision {
		t.Errorf("the rest: %d items at %d, %v; want 6 at %d", len(rest.Items), rest.Revision, err, page.Revision)
	}
	_, err = r.List(t.Context(), api.Pods, registry.ListOptions{Selection: registry.Selection{Fields: fields.OneTermEqualSelector("spec.nope", "x")}})
	if !apierrors.IsBadRequest(err) {
		t.Errorf("an unknown field: %v", err)
	}
}

func TestWatchResumesWithinBatch(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	for _, n := range []string{"a", "b", "c"} {
		clienttest.Create(t, c, pod(n))
	}
	res := c.BindMany(t.Context(), []client.Binding{{Pod: key("a"), Node: "n"}, {Pod: key("b"), Node: "n"}, {Pod: key("c"), Node: "n"}})
	rv := res[2].Object.GetResourceVersion()
	w, err := r.Watch(t.Context(), api.Pods, registry.WatchOptions{ResourceVersion: rv})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if res[0].Object.GetResourceVersion() != rv {
		t.Skip("the three bindings were not one transaction this time")
	}
	events, err := w.Next(t.Context())
	if err != nil || len(events) != 3 {
		t.Errorf("resuming at a batch must give all of it again: %d events, %v", len(events), err)
	}
	if _, err := r.Watch(t.Context(), api.Pods, registry.WatchOptions{ResourceVersion: "0"}); err != nil {
		t.Error(err)
	}
}

func TestWatchResumesAfterItsOneEventOfABatch(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	for _, n := range []string{"a", "b"} {
		clienttest.Create(t, c, pod(n))
	}
	res := c.BindMany(t.Context(), []client.Binding{{Pod: key("a"), Node: "n"}, {Pod: key("b"), Node: "n"}})
	rv := res[0].Object.GetResourceVersion()
	only := registry.Selection{Namespace: "default", Fields: fields.OneTermEqualSelector("metadata.name", "a")}
	w, err := r.Watch(t.Context(), api.Pods, registry.WatchOptions{Selection: only, ResourceVersion: rv})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if _, err := client.Mutate(t.Context(), c, key("a"), "", func(p *corev1.Pod) bool { p.Labels = map[string]string{"x": "y"}; return true }); err != nil {
		t.Fatal(err)
	}
	events, err := w.Next(t.Context())
	if err != nil || len(events) != 1 || events[0].Revision.Object.GetLabels()["x"] != "y" {
		t.Errorf("who sees one pod only and has seen its binding must not see it again: %d events, first %+v, %v", len(events), events[0].Revision.Object.GetLabels(), err)
	}
}

func TestManyWritersNeverLoseAnUpdate(t *testing.T) {
	c := clienttest.New(t)
	cm := clienttest.Create(t, c, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "n"}, Data: map[string]string{}})
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 10 {
				if _, err := client.Mutate(context.Background(), c, api.KeyOf(cm), "", func(m *corev1.ConfigMap) bool {
					if m.Data == nil {
						m.Data = map[string]string{}
					}
					m.Data[fmt.Sprintf("k%d-%d", i, j)] = "x"
					return true
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	got, _ := client.Get[*corev1.ConfigMap](t.Context(), c, api.KeyOf(cm))
	if len(got.Data) != 160 {
		t.Errorf("%d of 160 updates are there", len(got.Data))
	}
}

// BenchmarkPodLife is what the control plane does for one pod, less the deciding: create, bind, two status updates, delete.
func BenchmarkPodLife(b *testing.B) {
	c := clienttest.New(b)
	ctx := context.Background()
	start := time.Now()
	const batch = 100
	for n := 0; n < b.N; n += batch {
		pods := make([]api.Object, batch)
		binds := make([]client.Binding, batch)
		for i := range pods {
			name := fmt.Sprintf("p%d", n+i)
			pods[i] = pod(name)
			binds[i] = client.Binding{Pod: key(name), Node: "n"}
		}
		c.CreateMany(ctx, pods)
		c.BindMany(ctx, binds)
		for _, phase := range []corev1.PodPhase{corev1.PodPending, corev1.PodRunning} {
			sts := make([]api.Object, batch)
			for i := range sts {
				got, err := c.Get(ctx, api.Pods, binds[i].Pod)
				if err != nil {
					b.Fatal(err)
				}
				p := store.Shallow(got).(*corev1.Pod)
				p.Status.Phase = phase
				sts[i] = p
			}
			for _, r := range c.UpdateMany(ctx, sts, "status") {
				if r.Err != nil {
					b.Fatal(r.Err)
				}
			}
		}
	}
	b.ReportMetric(float64(b.N)/time.Since(start).Seconds(), "pods/s")
}
