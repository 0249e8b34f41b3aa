package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1beta1 "k8s.io/api/policy/v1beta1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
)

// goldenDir returns where k8s.io/api keeps a fully populated object of every kind, in all wire formats, of the release
// that goes with it (HEAD) and of earlier ones.
func goldenDir(t testing.TB, release string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		t.Fatalf("find k8s.io/api: %v", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "testdata", release)
}

func golden(t testing.TB, dir string, gvk schema.GroupVersionKind, ext string) []byte {
	t.Helper()
	group := gvk.Group
	switch group {
	case "":
		group = "core"
	case apiextensionsv1.GroupName: // no example comes with its library
		return goldenDefinition(t, ext)
	case apiregistrationv1.GroupName:
		return goldenAPIService(t, ext)
	}
	data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%s.%s.%s.%s", group, gvk.Version, gvk.Kind, ext)))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestStorageIsKubernetes(t *testing.T) {
	dir := goldenDir(t, "HEAD")
	upstream := protobuf.NewSerializer(Scheme, Scheme)
	for _, res := range Builtin {
		t.Run(res.Plural, func(t *testing.T) {
			data := golden(t, dir, res.GroupVersionKind, "pb")
			obj, err := decodeStorage(res, data)
			if err != nil {
				t.Fatal(err)
			}
			if gvk := obj.GetObjectKind().GroupVersionKind(); !gvk.Empty() {
				t.Errorf("decoded object carries type meta %s", gvk)
			}
			// What Kubernetes would write for the same object: without version and self link.
			want := obj.DeepCopyObject().(Object)
			want.SetResourceVersion("")
			want.SetSelfLink("")
			want.GetObjectKind().SetGroupVersionKind(res.GroupVersionKind)
			var buf bytes.Buffer
			if err := upstream.Encode(want, &buf); err != nil {
				t.Fatal(err)
			}
			before := obj.DeepCopyObject()
			got, err := encode(obj)
			if err != nil {
				t.Fatal(err)
			}
			if res == CustomResourceDefinitions { // kube-apiserver keeps them as JSON, and Knarr their schemas packed in memory
				sameJSON(t, got, whole(t, want))
				again, err := decodeStorage(res, got)
				if err != nil {
					t.Fatal(err)
				}
				want.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
				if diff := cmp.Diff(whole(t, want), whole(t, again)); diff != "" {
					t.Errorf("round trip changed the definition (-before +after):\n%s", diff)
				}
				return
			}
			if !bytes.Equal(got, buf.Bytes()) {
				t.Errorf("encoded bytes differ from upstream's:\n got %q\nwant %q", got, buf.Bytes())
			}
			if !apiequality.Semantic.DeepEqual(before, obj) {
				t.Error("encoding changed the object")
			}
			again, err := decodeStorage(res, got)
			if err != nil {
				t.Fatal(err)
			}
			want.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			if diff := cmp.Diff(want, again); diff != "" {
				t.Errorf("round trip changed the object (-before +after):\n%s", diff)
			}
		})
	}
}

// whole returns a definition with its schemas as they were sent.
func whole(t *testing.T, def Object) Object {
	t.Helper()
	o, err := CustomResourceDefinitions.Whole(def)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// sameJSON fails unless got is the JSON of want.
func sameJSON(t *testing.T, got []byte, want Object) {
	t.Helper()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var x, y any
	if err := json.Unmarshal(got, &x); err != nil {
		t.Fatalf("%v in %s", err, got)
	}
	if err := json.Unmarshal(b, &y); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(y, x); diff != "" {
		t.Errorf("the JSON that is stored is not upstream's (-want +got):\n%s", diff)
	}
}

func TestDecodeStorageForms(t *testing.T) {
	cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b"}, Data: map[string]string{"k": "v"}}
	pb, err := encode(cm)
	if err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": "a", "namespace": "b"}, "data": map[string]any{"k": "v"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"protobuf": pb, "json": js} {
		got, err := decodeStorage(ConfigMaps, data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(Object(cm), got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	bad := map[string][]byte{
		"empty": nil, "garbage": []byte("k8s\x00\xff\xff"), "truncated": pb[:len(pb)-3], "another kind": mustEncode(t, &corev1.Secret{}),
		"html": []byte("<html>"),
	}
	for name, data := range bad {
		if obj, err := decodeStorage(ConfigMaps, data); err == nil {
			t.Errorf("%s: decoded to %v", name, obj)
		}
	}
}

func TestDecodeStorageOtherVersion(t *testing.T) {
	old := &policyv1beta1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b"},
		Spec: policyv1beta1.PodDisruptionBudgetSpec{Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"x": "y"}}}}
	old.SetGroupVersionKind(policyv1beta1.SchemeGroupVersion.WithKind("PodDisruptionBudget"))
	var buf bytes.Buffer
	if err := protobuf.NewSerializer(Scheme, Scheme).Encode(old, &buf); err != nil {
		t.Fatal(err)
	}
	got, err := decodeStorage(PodDisruptionBudgets, buf.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if got.GetName() != "a" || PodDisruptionBudgets.Validate(got) != nil {
		t.Errorf("got %v, %v", got, PodDisruptionBudgets.Validate(got))
	}
}

// An object stored before a field existed gets that field's default when it is read.
func TestDecodeStorageDefaults(t *testing.T) {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "a", Namespace: "b"}}
	obj, err := decodeStorage(Pods, mustEncode(t, pod))
	if err != nil {
		t.Fatal(err)
	}
	if got := obj.(*corev1.Pod).Spec.RestartPolicy; got != corev1.RestartPolicyAlways {
		t.Errorf("restartPolicy %q", got)
	}
}

func FuzzDecodeStorage(f *testing.F) {
	dir := goldenDir(f, "HEAD")
	for _, res := range []*Resource{Pods, Services, ConfigMaps} {
		f.Add(golden(f, dir, res.GroupVersionKind, "pb"))
	}
	f.Add([]byte("k8s\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, res := range []*Resource{Pods, Services, ConfigMaps} {
			obj, err := decodeStorage(res, data)
			if err != nil {
				continue
			}
			if _, err := encode(obj); err != nil {
				t.Errorf("%s decodes but does not encode: %v", res.Plural, err)
			}
		}
	})
}

func mustEncode(t testing.TB, obj Object) []byte {
	t.Helper()
	data, err := encode(obj)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func encode(obj Object) ([]byte, error) { return ByType(reflect.TypeOf(obj)).Encode(obj) }
