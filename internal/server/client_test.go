package server_test

import (
	"context"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// formats are what client-go can be told to speak.
func formats(f *fixture) map[string]*rest.Config {
	json, proto, cbor := f.config(), f.config(), f.config()
	proto.ContentType, proto.AcceptContentTypes = "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json"
	cbor.ContentType, cbor.AcceptContentTypes = "application/json", "application/cbor,application/json"
	return map[string]*rest.Config{"json": json, "protobuf": proto, "cbor": cbor}
}

// TestTypedClient lets client-go make, list, watch, apply and delete in each format.
func TestTypedClient(t *testing.T) {
	f := start(t)
	for name, cfg := range formats(f) {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			core, err := typedcorev1.NewForConfig(cfg)
			if err != nil {
				t.Fatal(err)
			}
			maps := core.ConfigMaps("default")
			before, err := maps.List(ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: before.ResourceVersion, LabelSelector: "format=" + name})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			made, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "m-" + name, Labels: map[string]string{"format": name}}, BinaryData: map[string][]byte{"x": {0, 1, 255}}}, metav1.CreateOptions{})
			if err != nil {
				t.Fatal(err)
			}
			made.Data = map[string]string{"k": "<v>"}
			if made, err = maps.Update(ctx, made, metav1.UpdateOptions{}); err != nil {
				t.Fatal(err)
			}
			list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "format=" + name})
			if err != nil || len(list.Items) != 1 || list.Items[0].Data["k"] != "<v>" || string(list.Items[0].BinaryData["x"]) != "\x00\x01\xff" {
				t.Fatalf("list: %v %+v", err, list)
			}
			if err := maps.Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
			for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
				e := <-w.ResultChan()
				got, ok := e.Object.(*corev1.ConfigMap)
				if !ok || e.Type != want || got.Name != made.Name {
					t.Fatalf("got %s %T %+v, want %s", e.Type, e.Object, e.Object, want)
				}
			}
			if _, err := maps.Get(ctx, made.Name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
				t.Fatalf("get of a deleted object: %v", err)
			}
		})
	}
}

// TestPages reads a list in pages, as of one revision although objects come and go.
func TestPages(t *testing.T) {
	f := start(t)
	ctx := context.Background()
	core, err := typedcorev1.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	maps := core.ConfigMaps("default")
	for _, n := range []string{"a", "b", "c", "d", "e"} {
		if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: n}}, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	page, err := maps.List(ctx, metav1.ListOptions{Limit: 2})
	if err != nil || len(page.Items) != 2 || page.Continue == "" {
		t.Fatalf("%v %+v", err, page)
	}
	if err := maps.Delete(ctx, "c", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	rest, err := maps.List(ctx, metav1.ListOptions{Continue: page.Continue})
	if err != nil || len(rest.Items) != 3 || rest.Items[0].Name != "c" || rest.ResourceVersion != page.ResourceVersion {
		t.Fatalf("%v %+v", err, rest)
	}
}

// TestWatchBegin checks what a watch begins with.
func TestWatchBegin(t *testing.T) {
	f := start(t)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	core, err := typedcorev1.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	maps := core.ConfigMaps("default")
	if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	yes := true
	w, err := maps.Watch(ctx, metav1.ListOptions{SendInitialEvents: &yes, AllowWatchBookmarks: true, ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if e := <-w.ResultChan(); e.Type != watch.Added || e.Object.(*corev1.ConfigMap).Name != "a" {
		t.Fatalf("first %s %+v", e.Type, e.Object)
	}
	e := <-w.ResultChan()
	if m, err := meta.Accessor(e.Object); e.Type != watch.Bookmark || err != nil || m.GetAnnotations()[metav1.InitialEventsAnnotationKey] != "true" || m.GetResourceVersion() == "" {
		t.Fatalf("second %s %+v", e.Type, e.Object)
	}
	if a := f.do("GET", configMaps+"?watch=true&sendInitialEvents=true", ""); a.Code != 422 {
		t.Errorf("sendInitialEvents without resourceVersionMatch: %d %s", a.Code, a.Body)
	}
	one := f.must("GET", configMaps+"?watch=true&timeoutSeconds=1", "")
	contains(t, one.Body, `{"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a"`)
	one = f.must("GET", "/api/v1/watch/namespaces/default/configmaps/a?timeoutSeconds=1", "")
	contains(t, one.Body, `{"type":"ADDED"`)
}

// TestMetadataClient reads metadata alone.
func TestMetadataClient(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	c, err := metadata.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	pods := schema.GroupVersionResource{Version: "v1", Resource: "pods"}
	list, err := c.Resource(pods).Namespace("default").List(context.Background(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Labels["app"] != "x" || list.ResourceVersion == "" {
		t.Fatalf("%v %+v", err, list)
	}
	one, err := c.Resource(pods).Namespace("default").Get(context.Background(), "a", metav1.GetOptions{})
	if err != nil || one.Name != "a" || one.UID == "" {
		t.Fatalf("%v %+v", err, one)
	}
}

// TestApply is the life of an object that two managers apply to.
func TestApply(t *testing.T) {
	f := start(t)
	ctx := context.Background()
	core, err := typedcorev1.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	maps := core.ConfigMaps("default")
	config := func(data map[string]string) *applycorev1.ConfigMapApplyConfiguration {
		return applycorev1.ConfigMap("m", "default").WithData(data)
	}
	m, err := maps.Apply(ctx, config(map[string]string{"a": "1", "b": "2"}), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil {
		t.Fatal(err)
	}
	if len(m.ManagedFields) != 1 || m.ManagedFields[0].Manager != "one" || m.ManagedFields[0].Operation != metav1.ManagedFieldsOperationApply {
		t.Fatalf("managed by %+v", m.ManagedFields)
	}
	again, err := maps.Apply(ctx, config(map[string]string{"a": "1", "b": "2"}), metav1.ApplyOptions{FieldManager: "one"})
	if err != nil || again.ResourceVersion != m.ResourceVersion {
		t.Fatalf("applying the same wrote something: %v %s %s", err, m.ResourceVersion, again.ResourceVersion)
	}
	_, err = maps.Apply(ctx, config(map[string]string{"a": "9"}), metav1.ApplyOptions{FieldManager: "two"})
	if !apierrors.IsConflict(err) {
		t.Fatalf("no conflict: %v", err)
	}
	contains(t, err.Error(), `Apply failed with 1 conflict: conflict with "one": .data.a`)
	if m, err = maps.Apply(ctx, config(map[string]string{"a": "9"}), metav1.ApplyOptions{FieldManager: "two", Force: true}); err != nil || m.Data["a"] != "9" {
		t.Fatalf("%v %+v", err, m)
	}
	if m, err = maps.Apply(ctx, config(nil), metav1.ApplyOptions{FieldManager: "one"}); err != nil || m.Data["b"] != "" || m.Data["a"] != "9" {
		t.Fatalf("what a configuration no longer names must go: %v %+v", err, m)
	}
	m.Data["c"] = "3"
	if m, err = maps.Update(ctx, m, metav1.UpdateOptions{FieldManager: "three"}); err != nil {
		t.Fatal(err)
	}
	if last := m.ManagedFields[len(m.ManagedFields)-1]; last.Manager != "three" || last.Operation != metav1.ManagedFieldsOperationUpdate {
		t.Fatalf("an update of an applied object is not recorded: %+v", m.ManagedFields)
	}
}

// TestApplyToUntracked applies to an object whose fields nobody recorded.
func TestApplyToUntracked(t *testing.T) {
	f := start(t)
	deployments := "/apis/apps/v1/namespaces/default/deployments"
	a := f.must("POST", deployments, deployment)
	if got := a.Body; len(got) == 0 || containsString(got, "managedFields") {
		t.Errorf("fields are tracked before anyone applies: %s", got)
	}
	applied := `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web"},"spec":{"replicas":4}}`
	path := deployments + "/web?fieldManager=me"
	a = f.do("PATCH", path, applied, "Content-Type", "application/apply-patch+yaml")
	if _, m := a.status(t); a.Code != 409 || !containsString(m, `conflict with "before-first-apply" using apps/v1: .spec.replicas`) {
		t.Fatalf("%d %s", a.Code, m)
	}
	a = f.must("PATCH", path+"&force=true", applied, "Content-Type", "application/apply-patch+yaml")
	contains(t, a.Body, `"replicas":4`)
	contains(t, a.Body, `"manager":"me"`)
	a = f.do("PATCH", path, `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"web"},"spec":{"frogs":4}}`, "Content-Type", "application/apply-patch+yaml")
	if _, m := a.status(t); a.Code != 400 || !containsString(m, ".spec.frogs: field not declared in schema") {
		t.Fatalf("%d %s", a.Code, m)
	}
	a = f.must("PATCH", deployments+"/web/scale?fieldManager=scaler", `{"spec":{"replicas":7}}`, "Content-Type", "application/merge-patch+json")
	contains(t, f.must("GET", deployments+"/web", "").Body, `"manager":"scaler"`)
	// The status of a tracked object is recorded beside its spec, and an empty list forgets everything.
	f.must("PATCH", deployments+"/web/status", `{"status":{"replicas":7}}`, "Content-Type", "application/merge-patch+json")
	contains(t, f.must("GET", deployments+"/web", "").Body, `"subresource":"status"`)
	a = f.must("PATCH", deployments+"/web", `{"metadata":{"managedFields":[{}]}}`, "Content-Type", "application/merge-patch+json")
	if containsString(a.Body, "managedFields") {
		t.Errorf("still tracked: %s", a.Body)
	}
}

// TestDynamicEvents writes an event in one group and reads it in the other.
func TestDynamicEvents(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/namespaces/default/events", `{"metadata":{"name":"e"},"involvedObject":{"kind":"Pod","namespace":"default","name":"a"},"reason":"Because","message":"so","type":"Normal"}`)
	c, err := dynamic.NewForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	events := schema.GroupVersionResource{Group: "events.k8s.io", Version: "v1", Resource: "events"}
	list, err := c.Resource(events).Namespace("default").List(context.Background(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 || list.Items[0].Object["note"] != "so" || list.Items[0].GetAPIVersion() != "events.k8s.io/v1" {
		t.Fatalf("%v %+v", err, list)
	}
}

// TestDiscoveryClient reads discovery and OpenAPI as client-go does.
func TestDiscoveryClient(t *testing.T) {
	f := start(t)
	c, err := discovery.NewDiscoveryClientForConfig(f.config())
	if err != nil {
		t.Fatal(err)
	}
	groups, lists, err := c.ServerGroupsAndResources()
	if err != nil || len(groups) < 8 || len(lists) < 8 {
		t.Fatalf("%v %d groups %d lists", err, len(groups), len(lists))
	}
	if v, err := c.ServerVersion(); err != nil || v.GitVersion != "v1.37.2+knarr" {
		t.Fatalf("%v %+v", err, v)
	}
	doc, err := c.OpenAPISchema()
	if err != nil || len(doc.GetDefinitions().GetAdditionalProperties()) < 100 {
		t.Fatalf("OpenAPI v2: %v", err)
	}
	paths, err := c.OpenAPIV3().Paths()
	if err != nil {
		t.Fatal(err)
	}
	for p, gv := range paths {
		for _, format := range []string{"application/json", "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"} {
			if b, err := gv.Schema(format); err != nil || len(b) < 1000 {
				t.Errorf("OpenAPI v3 of %s as %s: %v, %d bytes", p, format, err, len(b))
			}
		}
	}
}
