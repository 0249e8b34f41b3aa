package registry_test

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/registry"
)

// judge is admission by a function.
type judge struct {
	admit func(a *admission.Attributes) error
}

func (judge) Name() string                                              { return "judge" }
func (j judge) Admit(_ context.Context, a *admission.Attributes) error  { return j.admit(a) }
func (judge) Validate(_ context.Context, _ *admission.Attributes) error { return nil }
func judged(admit func(a *admission.Attributes) error) func(*registry.Config) {
	return with(judge{admit})
}

func with(p admission.Plugin) func(*registry.Config) {
	return func(cfg *registry.Config) {
		cfg.Admission = func(*registry.Registry) admission.Chain { return admission.Chain{p} }
	}
}

// A binding in this process is asked about as one over HTTP is, with the scheduler's name; what is refused is not bound, and the labels that
// admission gives the binding become the pod's.
func TestBindingsPassAdmission(t *testing.T) {
	scheduler := &user.DefaultInfo{Name: "system:kube-scheduler"}
	c, _ := clienttest.NewRegistry(t, judged(func(a *admission.Attributes) error {
		b, ok := a.Object.(*corev1.Binding)
		if !ok {
			return nil
		}
		if a.Subresource != "binding" || a.Resource != api.Pods || a.User.GetName() != scheduler.Name || a.Key.Name != b.Name {
			t.Errorf("asked about %+v", a)
		}
		if b.Target.Name == "bad" {
			return apierrors.NewForbidden(api.Pods.GroupResource(), b.Name, fmt.Errorf("not there"))
		}
		b.Labels = map[string]string{"zone": "a", "app": "theirs"}
		return nil
	}))
	for _, name := range []string{"a", "b"} {
		p := pod(name)
		p.Labels = map[string]string{"app": "mine", "other": "kept"}
		clienttest.Create(t, c, p)
	}
	results := c.As(scheduler).BindMany(t.Context(), []client.Binding{{Pod: key("a"), Node: "good"}, {Pod: key("b"), Node: "bad"}})
	if results[0].Err != nil || !apierrors.IsForbidden(results[1].Err) {
		t.Fatalf("%v, %v", results[0].Err, results[1].Err)
	}
	a, _ := client.Get[*corev1.Pod](t.Context(), c, key("a"))
	b, _ := client.Get[*corev1.Pod](t.Context(), c, key("b"))
	if a.Spec.NodeName != "good" || a.Labels["zone"] != "a" || a.Labels["app"] != "theirs" || a.Labels["other"] != "kept" || b.Spec.NodeName != "" {
		t.Errorf("a is on %q with %v, b on %q", a.Spec.NodeName, a.Labels, b.Spec.NodeName)
	}
}

// What is bound has no nomination any longer, and a binding may say of which pod, and of which revision, it speaks.
func TestBind(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	p := clienttest.Create(t, c, pod("a"))
	nominated, err := client.Mutate(t.Context(), c, key("a"), "status", func(p *corev1.Pod) bool { p.Status.NominatedNodeName = "n"; return true })
	if err != nil {
		t.Fatal(err)
	}
	binding := func(change func(*corev1.Binding)) *corev1.Binding {
		b := &corev1.Binding{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "a"}, Target: corev1.ObjectReference{Kind: "Node", Name: "n"}}
		change(b)
		return b
	}
	for says, change := range map[string]func(*corev1.Binding){
		"UID in precondition":             func(b *corev1.Binding) { b.UID = "another" },
		"ResourceVersion in precondition": func(b *corev1.Binding) { b.ResourceVersion = p.ResourceVersion },
		"target.name: Required value":     func(b *corev1.Binding) { b.Target.Name = "" },
		"target.kind: Unsupported value":  func(b *corev1.Binding) { b.Target.Kind = "Pod" },
		"not found":                       func(b *corev1.Binding) { b.Name = "nobody" },
	} {
		if _, err := r.Bind(t.Context(), binding(change), metav1.CreateOptions{}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("got %v, want %s", err, says)
		}
	}
	good := func() *corev1.Binding {
		return binding(func(b *corev1.Binding) {
			b.UID, b.ResourceVersion, b.Annotations = p.UID, nominated.ResourceVersion, map[string]string{"from": "scheduler"}
		})
	}
	if _, err := r.Bind(t.Context(), good(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Fatal(err)
	}
	if now, _ := client.Get[*corev1.Pod](t.Context(), c, key("a")); now.Spec.NodeName != "" {
		t.Fatal("a dry run bound the pod")
	}
	if _, err := r.Bind(t.Context(), good(), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if now, _ := client.Get[*corev1.Pod](t.Context(), c, key("a")); now.Spec.NodeName != "n" || now.Status.NominatedNodeName != "" || now.Annotations["from"] != "scheduler" {
		t.Errorf("bound: %+v", now)
	}
}

func TestEvictionsPassAdmission(t *testing.T) {
	c, r := clienttest.NewRegistry(t, judged(func(a *admission.Attributes) error {
		if a.Subresource == "eviction" {
			return apierrors.NewForbidden(api.Pods.GroupResource(), a.Key.Name, fmt.Errorf("it stays"))
		}
		return nil
	}))
	p := clienttest.Create(t, c, pod("a"))
	err := r.Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "a"}}, metav1.CreateOptions{})
	if _, getErr := c.Get(t.Context(), api.Pods, key("a")); !apierrors.IsForbidden(err) || getErr != nil {
		t.Errorf("%v, %v", err, getErr)
	}
}

// slow is a plugin that asks over the network.
type slow struct {
	judge
	running, most atomic.Int32
}

func (*slow) Remote() bool { return true }

func (s *slow) Admit(context.Context, *admission.Attributes) error {
	n := s.running.Add(1)
	for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
	}
	time.Sleep(time.Second)
	s.running.Add(-1)
	return nil
}

// Objects of a batch are admitted several at a time where that takes a while, and never all at once.
func TestRemoteAdmissionOfBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plugin := &slow{}
		c, _ := clienttest.NewRegistry(t, with(plugin))
		began := time.Now()
		objs := make([]api.Object, 100)
		for i := range objs {
			objs[i] = configMap(fmt.Sprintf("m%d", i), nil)
		}
		for _, r := range c.CreateMany(t.Context(), objs) {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		if took := time.Since(began); took > 10*time.Second || plugin.most.Load() > 16 {
			t.Errorf("a hundred took %v, %d at a time", took, plugin.most.Load())
		}
	})
}

// Whoever writes an object that somebody applied to is recorded under its own name, in this process, too; others pay nothing.
func TestInProcessWritersAreRecorded(t *testing.T) {
	owner := func(m []metav1.ManagedFieldsEntry, field string) string {
		for _, e := range m {
			if strings.Contains(e.FieldsV1.GetRawString(), field) {
				return e.Manager
			}
		}
		return ""
	}
	account := &user.DefaultInfo{Name: "system:serviceaccount:kube-system:config-controller"}
	for _, tc := range []struct {
		name    string
		all     bool // every write is recorded
		tracked bool // somebody applied to the object before
		want    string
	}{
		{"an object that nobody applied to", false, false, ""},
		{"an object that somebody applied to", false, true, "config-controller"},
		{"everything is recorded", true, false, "config-controller"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, _ := clienttest.NewRegistry(t, func(cfg *registry.Config) { cfg.Record = tc.all })
			m := configMap("a", map[string]string{"k": "v"})
			if tc.tracked {
				m.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "me", Operation: metav1.ManagedFieldsOperationApply, APIVersion: "v1", FieldsType: "FieldsV1",
					FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:data":{"f:k":{}}}`)}}}
			}
			clienttest.Create(t, c, m)
			got, err := client.Mutate(t.Context(), c.As(account), key("a"), "", func(m *corev1.ConfigMap) bool {
				m.Data = map[string]string{"k": "v", "more": "x"}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
			if who := owner(got.ManagedFields, "f:more"); who != tc.want {
				t.Errorf("%q owns the field: %v", who, got.ManagedFields)
			}
		})
	}
}

// An evicted pod says so, also where it stays for a while: a Job tells it from one that failed.
func TestEvictedPodsSaySo(t *testing.T) {
	c, r := clienttest.NewRegistry(t)
	p := pod("a")
	p.Finalizers = []string{"example.com/wait"}
	p = clienttest.Create(t, c, p)
	evict := func(opts metav1.CreateOptions, del *metav1.DeleteOptions) error {
		return r.Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: p.Namespace, Name: "a"}, DeleteOptions: del}, opts)
	}
	disrupted := func() int {
		now, err := client.Get[*corev1.Pod](t.Context(), c, key("a"))
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, cond := range now.Status.Conditions {
			if cond.Type == corev1.DisruptionTarget && cond.Status == corev1.ConditionTrue && cond.Reason == "EvictionByEvictionAPI" && cond.Message == "Eviction API: evicting" {
				n++
			}
		}
		return n
	}
	if err := evict(metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}, nil); err != nil || disrupted() != 0 {
		t.Errorf("a dry run: %v, %d conditions", err, disrupted())
	}
	other := "1"
	if err := evict(metav1.CreateOptions{}, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &other}}); !apierrors.IsConflict(err) || disrupted() != 0 {
		t.Errorf("another revision: %v, %d conditions", err, disrupted())
	}
	if err := evict(metav1.CreateOptions{}, &metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &p.ResourceVersion}}); err != nil {
		t.Fatal(err)
	}
	now, err := client.Get[*corev1.Pod](t.Context(), c, key("a"))
	if err != nil || now.DeletionTimestamp == nil || disrupted() != 1 {
		t.Errorf("evicted: %v, deleted at %v, %d conditions", err, now.DeletionTimestamp, disrupted())
	}
	if err := evict(metav1.CreateOptions{}, nil); err != nil || disrupted() != 1 {
		t.Errorf("evicted again: %v, %d conditions", err, disrupted())
	}
}
