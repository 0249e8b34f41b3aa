package api

import (
	"reflect"
	"testing"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

func TestBuiltinIsConsistent(t *testing.T) {
	prefixes, names := map[string]string{}, map[string]string{}
	for _, r := range Builtin {
		t.Run(r.Plural, func(t *testing.T) {
			if got := ByType(reflect.TypeOf(r.New())); got != r {
				t.Errorf("ByType finds %v", got)
			}
			if got := BuiltinCatalog().Kind(r.GroupVersionKind); got != r {
				t.Errorf("ByKind finds %v", got)
			}
			if got, ok := BuiltinCatalog().Find(r.GroupVersionResource()); !ok || got != r {
				t.Errorf("Find finds %v", got)
			}
			kinds, _, err := Scheme.ObjectKinds(r.New())
			if err != nil || kinds[0] != r.GroupVersionKind {
				t.Errorf("scheme says %v, %v", kinds, err)
			}
			kinds, _, err = Scheme.ObjectKinds(r.NewList())
			if err != nil || kinds[0] != r.GroupVersion().WithKind(r.Kind+"List") {
				t.Errorf("scheme says the list is %v, %v", kinds, err)
			}
			if other, taken := prefixes[r.Prefix]; taken || r.Prefix == "" {
				t.Errorf("prefix %q is that of %s", r.Prefix, other)
			}
			prefixes[r.Prefix] = r.Plural
			for _, n := range append([]string{r.Plural, r.Singular}, r.ShortNames...) {
				if other, taken := names[n]; taken && other != r.Plural {
					t.Errorf("name %q is that of %s", n, other)
				}
				names[n] = r.Plural
			}
			// No function may be missing, and none may fail for an empty object.
			obj := r.New()
			r.Default(obj)
			r.PrepareForCreate(obj)
			if errs := r.Validate(obj); len(errs) == 0 {
				t.Error("an empty object is valid: it has no name")
			}
			if r.Fields != nil && len(r.Fields(obj)) != len(r.SelectableFields) {
				t.Errorf("fields %v, selectable %v", r.Fields(obj), r.SelectableFields)
			}
		})
	}
}

func TestConvert(t *testing.T) {
	ev := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b"}, Message: "hello", ReportingController: "c"}
	got, err := Convert(ev, eventsv1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := got.(*eventsv1.Event); !ok || e.Note != "hello" || e.Name != "a" {
		t.Errorf("got %#v", got)
	}
	back, err := Convert(got, corev1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	if e, ok := back.(*corev1.Event); !ok || e.Message != "hello" {
		t.Errorf("got %#v", back)
	}
	same, err := Convert(ev, corev1.SchemeGroupVersion)
	if err != nil || same != runtime.Object(ev) {
		t.Errorf("an event of the right version was copied: %v", err)
	}
	list, err := Convert(&corev1.EventList{Items: []corev1.Event{*ev}}, eventsv1.SchemeGroupVersion)
	if err != nil {
		t.Fatal(err)
	}
	if l, ok := list.(*eventsv1.EventList); !ok || len(l.Items) != 1 || l.Items[0].Note != "hello" {
		t.Errorf("got %#v", list)
	}
	if _, err := Convert(ev, schema.GroupVersion{Group: "apps", Version: "v1"}); err == nil {
		t.Error("an event became an apps/v1 object")
	}
}

func TestFindFurtherVersions(t *testing.T) {
	if r, ok := BuiltinCatalog().Find(eventsv1.SchemeGroupVersion.WithResource("events")); !ok || r != Events {
		t.Errorf("events.k8s.io/v1 events: %v %v", r, ok)
	}
	if r := BuiltinCatalog().Kind(eventsv1.SchemeGroupVersion.WithKind("Event")); r != Events {
		t.Errorf("events.k8s.io/v1 Event: %v", r)
	}
	if r, ok := BuiltinCatalog().Find(autoscalingv1.SchemeGroupVersion.WithResource("horizontalpodautoscalers")); !ok || r != HorizontalPodAutoscalers {
		t.Errorf("autoscaling/v1 horizontalpodautoscalers: %v %v", r, ok)
	}
}
