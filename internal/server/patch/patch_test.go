package patch

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
)

func TestApply(t *testing.T) {
	const pod = `{"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"2"}]}}`
	for _, tc := range []struct {
		name            string
		kind            types.PatchType
		original, patch string
		want            string // or, beginning with !, a part of the error
	}{
		{"merge replaces lists", types.MergePatchType, pod, `{"spec":{"containers":[{"name":"c"}]}}`, `{"spec":{"containers":[{"name":"c"}]}}`},
		{"merge removes by null", types.MergePatchType, `{"a":1,"b":2}`, `{"a":null}`, `{"b":2}`},
		{"merge of a list", types.MergePatchType, `{}`, `[`, `!not valid JSON: unexpected end of JSON input`},
		{"strategic merges by name", types.StrategicMergePatchType, pod, `{"spec":{"containers":[{"name":"b","image":"3"}]}}`, `{"spec":{"containers":[{"name":"a","image":"1"},{"name":"b","image":"3"}]}}`},
		{"strategic removes by directive", types.StrategicMergePatchType, pod, `{"spec":{"containers":[{"name":"a","$patch":"delete"}]}}`, `{"spec":{"containers":[{"image":"2","name":"b"}]}}`},
		{"strategic without a merge key", types.StrategicMergePatchType, pod, `{"spec":{"containers":[{"image":"3"}]}}`, `!does not contain declared merge key: name`},
		{"strategic that is no JSON", types.StrategicMergePatchType, pod, `{`, `!not valid JSON`},
		{"json patch", types.JSONPatchType, `{"a":1}`, `[{"op":"add","path":"/b","value":2},{"op":"remove","path":"/a"}]`, `{"b":2}`},
		{"json patch of what is not there", types.JSONPatchType, `{"a":1}`, `[{"op":"remove","path":"/x"}]`, `!does not fit the object`},
		{"json patch that is none", types.JSONPatchType, `{"a":1}`, `{"op":"remove"}`, `!cannot unmarshal object`},
		{"json patch without end", types.JSONPatchType, `{"a":1}`, `[` + strings.Repeat(`{"op":"test","path":"/a","value":1},`, 10000) + `{"op":"test","path":"/a","value":1}]`, `!maximum operations in a JSON patch is 10000`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _, err := Apply(tc.kind, []byte(tc.original), []byte(tc.patch), &corev1.Pod{})
			if part, fails := strings.CutPrefix(tc.want, "!"); fails {
				st, ok := err.(apierrors.APIStatus)
				if !ok || st.Status().Code/100 != 4 || !strings.Contains(st.Status().Message, part) {
					t.Fatalf("got %v, want a status about %q", err, part)
				}
				return
			}
			if err != nil || !sameJSON(t, got, tc.want) {
				t.Errorf("got %s, %v, want %s", got, err, tc.want)
			}
		})
	}
	_, dup, err := Apply(types.MergePatchType, []byte(`{}`), []byte(`{"a":1,"a":2}`), &corev1.Pod{})
	if err != nil || len(dup) != 1 || !strings.Contains(dup[0].Error(), `duplicate field "a"`) {
		t.Errorf("%v %v", err, dup)
	}
}

func sameJSON(t *testing.T, a []byte, b string) bool {
	t.Helper()
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(b), &y); err != nil {
		t.Fatal(err)
	}
	return reflect.DeepEqual(x, y)
}

// TestStatusBelongsToItsOwner checks that applying through the main resource cannot come to own status.
func TestStatusBelongsToItsOwner(t *testing.T) {
	m := NewManagers(api.BuiltinCatalog)
	gv := appsv1.SchemeGroupVersion
	u, _, err := ReadConfiguration([]byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {replicas: 3}\nstatus: {replicas: 9}\n"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := m.Apply(api.Deployments, gv, "", nil, u, "me", false)
	if err != nil {
		t.Fatal(err)
	}
	d := out.(*appsv1.Deployment)
	if *d.Spec.Replicas != 3 || len(d.ManagedFields) != 1 || strings.Contains(d.ManagedFields[0].FieldsV1.GetRawString(), "f:status") {
		t.Errorf("%+v", d)
	}
}

func FuzzReadConfiguration(f *testing.F) {
	for _, s := range []string{"a: 1\na: 2", "{}", "- x", "a: &b [*b]", "x: 1e400", "? {a: b} : c"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		u, _, err := ReadConfiguration(body)
		if err == nil && u.Object == nil {
			t.Error("nothing was read, and no error given")
		}
		if err == nil {
			_ = u.DeepCopy() // panics on values that unstructured content cannot have
		}
	})
}

func TestStrategicPatchIsBounded(t *testing.T) {
	const pod = `{"metadata":{"finalizers":["a/1","a/2","a/3","a/4"],"labels":{"a":"1","b":"2","c":"3","d":"4"}}}`
	if _, err := applyStrategic([]byte(pod), []byte(`{"metadata":{"finalizers":["a/5"],"labels":{"a":"1","b":"2","c":"3","d":"4"}}}`), &corev1.Pod{}, 5); err != nil {
		t.Errorf("one element for a list of four: %v", err)
	}
	if _, err := applyStrategic([]byte(pod), []byte(`{"metadata":{"finalizers":["a/5","a/6"]}}`), &corev1.Pod{}, 5); !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("two elements for a list of four: %v", err)
	}
}

// TestPatchesOfLargeObjectsTakeLinearTime: eight times the size takes far less than the 64 times of what looks at all pairs.
func TestPatchesOfLargeObjectsTakeLinearTime(t *testing.T) {
	m := NewManagers(api.BuiltinCatalog)
	apply := func(body []byte) error {
		u, _, err := ReadConfiguration(body)
		if err != nil {
			return err
		}
		live, err := m.Apply(api.Pods, corev1.SchemeGroupVersion, "", nil, u.DeepCopy(), "one", false)
		if err != nil {
			return err
		}
		_, err = m.Apply(api.Pods, corev1.SchemeGroupVersion, "", live, u, "another", false)
		return err
	}
	merge := func(body []byte) error {
		_, _, err := Apply(types.MergePatchType, body, body, &corev1.Pod{})
		return err
	}
	deep := func(n int) string {
		return `{"metadata":{"name":"a"},"x":` + strings.Repeat(`{"x":[{"x":`, 300) + `"` + strings.Repeat("x", 10*n) + `"` + strings.Repeat(`}]}`, 300) + `}`
	}
	wide := func(n int) string {
		var env []string
		for i := range n {
			env = append(env, fmt.Sprintf(`{"name":"V%d","value":"x"}`, i*7919%n))
		}
		return `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"},"spec":{"containers":[{"name":"a","env":[` + strings.Join(env, ",") + `]}]}}`
	}
	for _, tc := range []struct {
		name string
		do   func([]byte) error
		body func(int) string
	}{{"a deep merge patch", merge, deep}, {"a wide merge patch", merge, wide}, {"a wide apply", apply, wide}} {
		took := func(n int) time.Duration {
			begin := time.Now()
			if err := tc.do([]byte(tc.body(n))); err != nil {
				t.Fatalf("%s: %v", tc.name, err)
			}
			return time.Since(begin)
		}
		took(100) // what the first one sets up
		linear := false
		for try := 0; try < 10 && !linear; try++ { // other processes get in between
			small, large := took(300), took(2400)
			t.Logf("%s: %v, eight times as large %v", tc.name, small, large)
			linear = large < 24*small
		}
		if !linear {
			t.Errorf("%s: it takes more than linear time", tc.name)
		}
	}
}
