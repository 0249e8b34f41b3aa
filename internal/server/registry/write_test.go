package registry_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/registry"
)

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Data: data}
}

func TestCreateChecks(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	clienttest.Create(t, c, configMap("there", nil))
	for _, tc := range []struct {
		name string
		res  *api.Resource
		obj  api.Object
		is   func(error) bool
	}{
		{"no namespace", api.ConfigMaps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, apierrors.IsBadRequest},
		{"a namespace too many", api.Nodes, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "default"}}, apierrors.IsBadRequest},
		{"no name", api.ConfigMaps, configMap("", nil), apierrors.IsInvalid},
		{"a resourceVersion", api.ConfigMaps, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "a", ResourceVersion: "7"}}, apierrors.IsBadRequest},
		{"there is one", api.ConfigMaps, configMap("there", nil), apierrors.IsAlreadyExists},
	} {
		for _, opts := range []metav1.CreateOptions{{}, {DryRun: []string{metav1.DryRunAll}}} {
			if _, err := r.Create(t.Context(), tc.res, tc.obj.DeepCopyObject().(api.Object), opts); !tc.is(err) {
				t.Errorf("%s: %v", tc.name, err)
			}
		}
		if res := r.CreateMany(t.Context(), tc.res, []api.Object{tc.obj}); !tc.is(res[0].Err) {
			t.Errorf("%s, in bulk: %v", tc.name, res[0].Err)
		}
	}
	dry, err := r.Create(t.Context(), api.ConfigMaps, configMap("dry", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil || dry.GetUID() == "" || dry.GetResourceVersion() != "" {
		t.Errorf("a dry run: %+v, %v", dry, err)
	}
	if _, err := r.Get(t.Context(), api.ConfigMaps, key("dry")); !apierrors.IsNotFound(err) {
		t.Errorf("after a dry run: %v", err)
	}
}

func TestGeneratedNames(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	template := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "default", GenerateName: "web-"}}
	seen := map[string]bool{}
	note := func(o api.Object, err error) {
		t.Helper()
		if err != nil || seen[o.GetName()] || len(o.GetName()) != 9 {
			t.Errorf("%v, %v", o, err)
			return
		}
		seen[o.GetName()] = true
	}
	for range 50 {
		note(r.Create(t.Context(), api.ConfigMaps, template.DeepCopy(), metav1.CreateOptions{}))
	}
	objs := make([]api.Object, 50)
	for i := range objs {
		objs[i] = template.DeepCopy()
	}
	for _, res := range c.CreateMany(t.Context(), objs) {
		note(res.Object, res.Err)
	}
}

// counter is an admission plugin that counts what passes Validate, as a quota does.
type counter struct {
	mu sync.Mutex
	n  int
}

func (*counter) Name() string                                       { return "counter" }
func (*counter) Admit(context.Context, *admission.Attributes) error { return nil }
func (p *counter) Validate(_ context.Context, a *admission.Attributes) error {
	if a.Refused {
		return nil
	}
	p.mu.Lock()
	p.n++
	p.mu.Unlock()
	return nil
}

func TestWhatExistsIsNotCharged(t *testing.T) {
	charged := &counter{}
	c, r := clienttest.NewRegistry(t, func(cfg *registry.Config) {
		cfg.Admission = func(*registry.Registry) admission.Chain { return admission.Chain{charged} }
	})
	clienttest.Create(t, c, configMap("a", nil))
	charged.n = 0
	if _, err := r.Create(t.Context(), api.ConfigMaps, configMap("a", nil), metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) || charged.n != 0 {
		t.Errorf("%v, charged %d times", err, charged.n)
	}
}

func TestUpdateRules(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	cm := clienttest.Create(t, c, configMap("a", map[string]string{"k": "1"}))
	update := func(change func(*corev1.ConfigMap), opts registry.UpdateOptions) (api.Object, bool, error) {
		return r.Update(t.Context(), api.ConfigMaps, key("a"), "", func(o api.Object) (api.Object, error) {
			m := configMap("a", nil)
			if o != nil {
				m = o.DeepCopyObject().(*corev1.ConfigMap)
			}
			change(m)
			return m, nil
		}, opts)
	}
	out, _, err := update(func(*corev1.ConfigMap) {}, registry.UpdateOptions{})
	if err != nil || out != api.Object(cm) {
		t.Errorf("an update that changes nothing made %+v, %v", out, err)
	}
	for name, change := range map[string]func(*corev1.ConfigMap){
		"another revision": func(m *corev1.ConfigMap) { m.ResourceVersion = "1" },
		"another UID":      func(m *corev1.ConfigMap) { m.UID = "other" },
	} {
		if _, _, err := update(change, registry.UpdateOptions{}); !apierrors.IsConflict(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := update(func(m *corev1.ConfigMap) { m.Name = "b" }, registry.UpdateOptions{}); !apierrors.IsBadRequest(err) {
		t.Errorf("another name: %v", err)
	}
	refused := errors.New("refused")
	if _, _, err := r.Update(t.Context(), api.ConfigMaps, key("a"), "", func(api.Object) (api.Object, error) { return nil, refused }, registry.UpdateOptions{}); !errors.Is(err, refused) {
		t.Errorf("a transformation's error: %v", err)
	}
	out, _, err = update(func(m *corev1.ConfigMap) {
		m.Data["k"] = "2"
		m.UID, m.ResourceVersion, m.CreationTimestamp = "", "", metav1.Time{}
	}, registry.UpdateOptions{})
	if err != nil || out.GetUID() != cm.UID || out.GetCreationTimestamp() != cm.CreationTimestamp || out.GetResourceVersion() == cm.ResourceVersion {
		t.Errorf("an update: %+v, %v", out, err)
	}
	dry := registry.UpdateOptions{UpdateOptions: metav1.UpdateOptions{DryRun: []string{metav1.DryRunAll}}}
	if out, _, err := update(func(m *corev1.ConfigMap) { m.Data["k"] = "3" }, dry); err != nil || out.(*corev1.ConfigMap).Data["k"] != "3" {
		t.Errorf("a dry run: %+v, %v", out, err)
	}
	if got, _ := client.Get[*corev1.ConfigMap](t.Context(), c, key("a")); got.Data["k"] != "2" {
		t.Errorf("after a dry run: %+v", got)
	}
	if err := client.Delete[*corev1.ConfigMap](t.Context(), c, key("a"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := update(func(*corev1.ConfigMap) {}, registry.UpdateOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what is not there: %v", err)
	}
	if out, created, err := update(func(*corev1.ConfigMap) {}, registry.UpdateOptions{Create: true}); err != nil || !created || out.GetUID() == "" {
		t.Errorf("an update that creates: %+v, %v, %v", out, created, err)
	}
}

func TestUpdateMany(t *testing.T) {
	c := clienttest.New(t)
	var objs []api.Object
	for i := range 4 {
		m := clienttest.Create(t, c, configMap(fmt.Sprint("m", i), map[string]string{})).DeepCopy()
		m.Data = map[string]string{"by": "bulk"}
		objs = append(objs, m)
	}
	if _, err := client.Mutate(t.Context(), c, key("m1"), "", func(m *corev1.ConfigMap) bool { m.Labels = map[string]string{"x": "y"}; return true }); err != nil {
		t.Fatal(err)
	}
	if err := client.Delete[*corev1.ConfigMap](t.Context(), c, key("m2"), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	svc := clienttest.Create(t, c, service("s", specs["ClusterIP"]))
	stale := svc.DeepCopy()
	stale.Labels = map[string]string{"by": "stale"}
	if _, err := client.Mutate(t.Context(), c, key("s"), "", func(s *corev1.Service) bool { s.Labels = map[string]string{"by": "first"}; return true }); err != nil {
		t.Fatal(err)
	}
	results := c.UpdateMany(t.Context(), append(objs, stale), "")
	for i, is := range []func(error) bool{nil, apierrors.IsConflict, apierrors.IsNotFound, nil, apierrors.IsConflict} {
		if err := results[i].Err; is == nil && err != nil || is != nil && !is(err) {
			t.Errorf("item %d: %v", i, err)
		}
	}
	got, _ := client.Get[*corev1.ConfigMap](t.Context(), c, key("m0"))
	if got != results[0].Object || got.Data["by"] != "bulk" {
		t.Errorf("the result %+v is not what is stored, %+v", results[0].Object, got)
	}
	again := got.DeepCopy()
	if res := c.UpdateMany(t.Context(), []api.Object{again}, ""); res[0].Err != nil || res[0].Object != api.Object(got) {
		t.Errorf("an update that changes nothing: %+v", res[0])
	}
}

// TestStatusesOfManyWriters writes statuses without a revision from many goroutines, mostly the same ones: none may fail, none may change what
// the copy shares, and labels that somebody else sets at the same time stay.
func TestStatusesOfManyWriters(t *testing.T) {
	c := clienttest.New(t)
	base := clienttest.Create(t, c, pod("a"))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 30 {
				p := base.DeepCopy()
				p.ResourceVersion = ""
				p.Status.Phase = corev1.PodRunning
				p.Status.Message = fmt.Sprint(j / 3)
				res := c.UpdateMany(context.Background(), []api.Object{p}, "status")[0]
				if res.Err != nil || res.Object.GetResourceVersion() == "" {
					t.Errorf("%+v", res)
				}
				if i == 0 {
					if _, err := client.Mutate(context.Background(), c, key("a"), "", func(p *corev1.Pod) bool {
						p.Labels = map[string]string{"n": fmt.Sprint(j)}
						return true
					}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	got, _ := client.Get[*corev1.Pod](t.Context(), c, key("a"))
	if got.Labels["n"] != "29" || got.Status.Message != "9" {
		t.Errorf("labels %v, message %s", got.Labels, got.Status.Message)
	}
}
