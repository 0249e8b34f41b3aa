package api

import (
	"k8s.io/apimachinery/pkg/fields"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// eachGolden visits a fully populated, defaulted object of each resource.
func eachGolden(t *testing.T, visit func(t *testing.T, res *Resource, obj Object)) {
	dir := goldenDir(t, "HEAD")
	for _, res := range Builtin {
		t.Run(res.Plural, func(t *testing.T) {
			obj, err := decodeStorage(res, golden(t, dir, res.GroupVersionKind, "pb"))
			if err != nil {
				t.Fatal(err)
			}
			obj.SetSelfLink("")
			visit(t, res, obj)
		})
	}
}

func subresources(res *Resource) []string {
	subs := []string{""}
	if res.Status {
		subs = append(subs, "status")
	}
	for _, s := range res.Subresources {
		if s.Name == "finalize" || s.Name == "resize" || s.Name == "ephemeralcontainers" {
			subs = append(subs, s.Name)
		}
	}
	return subs
}

// What only looks at an object must not change it: stored objects are shared by all.
func TestLookingChangesNothing(t *testing.T) {
	eachGolden(t, func(t *testing.T, res *Resource, obj Object) {
		before := obj.DeepCopyObject()
		check := func(what string) {
			t.Helper()
			if diff := cmp.Diff(before, runtime.Object(obj)); diff != "" {
				t.Fatalf("%s changed the object:\n%s", what, diff)
			}
		}
		res.FieldSet(obj)
		check("FieldSet")
		res.Validate(obj)
		check("Validate")
		for _, sub := range subresources(res) {
			other := obj.DeepCopyObject().(Object)
			res.ValidateUpdate(other, obj, sub)
			check("ValidateUpdate " + sub)
			other = res.New()
			other.SetName(obj.GetName())
			res.Default(other)
			res.PrepareForUpdate(other, obj, sub)
			check("PrepareForUpdate " + sub)
		}
		if _, err := encode(obj); err != nil {
			t.Error(err)
		}
		check("encode")
	})
}

// Writing back what was read is no change, whichever way it is written: no new generation, nothing lost.
func TestUnchangedUpdate(t *testing.T) {
	eachGolden(t, func(t *testing.T, res *Resource, obj Object) {
		// Make it an object that this server could have stored.
		uid, version := obj.GetUID(), obj.GetResourceVersion()
		res.PrepareForCreate(obj)
		res.Default(obj)
		res.PrepareForUpdate(obj, obj.DeepCopyObject().(Object), "")
		obj.SetUID(uid)
		obj.SetResourceVersion(version)
		for _, sub := range subresources(res) {
			again := obj.DeepCopyObject().(Object)
			res.Default(again)
			res.PrepareForUpdate(again, obj, sub)
			if diff := cmp.Diff(obj, again); diff != "" {
				t.Errorf("subresource %q (-stored +written):\n%s", sub, diff)
			}
		}
	})
}

// A stored object is defaulted when it is decoded, so preparing must not leave a default to be filled in: before and after a restart
// the object would differ (a claim without a phase).
func TestPreparedObjectsHaveTheirDefaults(t *testing.T) {
	check := func(t *testing.T, what string, res *Resource, obj Object) {
		t.Helper()
		before := obj.DeepCopyObject()
		res.Default(obj)
		if diff := cmp.Diff(before, runtime.Object(obj)); diff != "" {
			t.Errorf("%s leaves defaults out (-prepared +defaulted):\n%s", what, diff)
		}
	}
	eachGolden(t, func(t *testing.T, res *Resource, full Object) {
		empty := res.New()
		for _, obj := range []Object{full, empty} {
			res.Default(obj)
			res.PrepareForCreate(obj)
			check(t, "creating", res, obj)
			for _, sub := range subresources(res) {
				next := res.New()
				res.Default(next)
				res.PrepareForUpdate(next, obj, sub)
				check(t, "updating "+sub, res, next)
			}
		}
	})
	local := corev1.ServiceExternalTrafficPolicyLocal
	types := []corev1.ServiceSpec{
		{Type: corev1.ServiceTypeClusterIP}, {Type: corev1.ServiceTypeNodePort}, {Type: corev1.ServiceTypeExternalName, ExternalName: "x"},
		{Type: corev1.ServiceTypeLoadBalancer, ExternalTrafficPolicy: local},
	}
	for _, from := range types {
		for _, to := range types {
			old := &corev1.Service{Spec: from}
			Services.Default(old)
			Services.PrepareForCreate(old)
			next := old.DeepCopy()
			next.Spec.Type, next.Spec.ExternalName = to.Type, to.ExternalName
			Services.Default(next)
			Services.PrepareForUpdate(next, old, "")
			check(t, "a Service from "+string(from.Type)+" to "+string(to.Type), Services, next)
		}
	}
}

func TestFieldSelector(t *testing.T) {
	for _, res := range Builtin {
		for _, name := range append([]string{"metadata.name"}, res.SelectableFields...) {
			if _, err := res.SelectBy(res.GroupVersion(), fields.ParseSelectorOrDie(name+"=x")); err != nil {
				t.Errorf("%s: %s: %v", res.Plural, name, err)
			}
		}
		if _, err := res.SelectBy(res.GroupVersion(), fields.ParseSelectorOrDie("spec.potato=x")); err == nil || !strings.Contains(err.Error(), "spec.potato") {
			t.Errorf("%s: spec.potato: %v", res.Plural, err)
		}
	}
	pod := &corev1.Pod{}
	pod.Name, pod.Namespace, pod.Spec.NodeName, pod.Status.Phase = "a", "b", "n1", corev1.PodRunning
	for text, want := range map[string]bool{
		"": true, "spec.nodeName=n1": true, "spec.nodeName!=n1": false, "metadata.name=a,metadata.namespace=b,status.phase=Running": true,
		"status.phase!=Running": false, "spec.hostNetwork=false": true,
	} {
		sel, err := Pods.SelectBy(corev1.SchemeGroupVersion, fields.ParseSelectorOrDie(text))
		if err != nil {
			t.Errorf("%q: %v", text, err)
		} else if got := sel.Matches(Pods.FieldSet(pod)); got != want {
			t.Errorf("%q matches: %v", text, got)
		}
	}
	// events.k8s.io has names of its own for some fields.
	ev := &corev1.Event{InvolvedObject: corev1.ObjectReference{Kind: "Pod", Name: "a"}}
	sel, err := Events.SelectBy(eventsv1.SchemeGroupVersion, fields.ParseSelectorOrDie("regarding.kind=Pod,regarding.name=a"))
	if err != nil || !sel.Matches(Events.FieldSet(ev)) {
		t.Errorf("regarding.kind: %v, %v", sel, err)
	}
}

// The empty selector of a budget matches everything in policy/v1, and must come out as it went in.
func TestBudgetSelector(t *testing.T) {
	for _, selector := range []string{"", ", selector: {}", ", selector: {matchLabels: {a: b}}"} {
		in := read(t, "{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a, namespace: b}, spec: {minAvailable: 1"+selector+"}}").(*policyv1.PodDisruptionBudget)
		out := in.DeepCopy()
		PodDisruptionBudgets.PrepareForCreate(out)
		if diff := cmp.Diff(in.Spec, out.Spec); diff != "" {
			t.Errorf("%q: %s", selector, diff)
		}
		if errs := PodDisruptionBudgets.Validate(out); len(errs) != 0 {
			t.Errorf("%q: %v", selector, errs)
		}
	}
}

func TestCodecs(t *testing.T) {
	have := map[string]bool{}
	for _, info := range Codecs.SupportedMediaTypes() {
		have[info.MediaType] = true
		if info.StrictSerializer == nil {
			t.Errorf("%s has no strict form", info.MediaType)
		}
	}
	for _, want := range []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"} {
		if !have[want] {
			t.Errorf("no %s", want)
		}
	}
	strict := Codecs.SupportedMediaTypes()[0].StrictSerializer
	_, _, err := strict.Decode([]byte(`{"apiVersion":"v1","kind":"Pod","spec":{"potato":1}}`), nil, nil)
	if err == nil || !strings.Contains(err.Error(), `unknown field "spec.potato"`) {
		t.Errorf("got %v", err)
	}
}

func TestTypeConverter(t *testing.T) {
	for _, res := range Builtin {
		obj := res.New()
		obj.SetName("a")
		obj.GetObjectKind().SetGroupVersionKind(res.GroupVersionKind)
		typed, err := TypeConverter().ObjectToTyped(obj)
		if err != nil {
			t.Errorf("%s: %v", res.Plural, err)
			continue
		}
		if _, err := TypeConverter().TypedToObject(typed); err != nil {
			t.Errorf("%s: %v", res.Plural, err)
		}
	}
}
