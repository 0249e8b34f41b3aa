package patch

import (
	"encoding/json"
	"strings"
	"testing"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
)

func TestJSONPatchOperations(t *testing.T) {
	const doc = `{"a":1,"l":[1,2,3],"o":{"x":{"y":[{"z":"s"}]}},"~/":0,"n":null}`
	for _, tc := range []struct {
		name, patch string
		want        string // or, beginning with !, a part of the error
	}{
		{"add before an element", `[{"op":"add","path":"/l/1","value":9}]`, `{"a":1,"l":[1,9,2,3],"o":{"x":{"y":[{"z":"s"}]}},"~/":0,"n":null}`},
		{"add at the end", `[{"op":"add","path":"/o/x/y/-","value":9}]`, `{"a":1,"l":[1,2,3],"o":{"x":{"y":[{"z":"s"},9]}},"~/":0,"n":null}`},
		{"add before the last", `[{"op":"add","path":"/l/-2","value":9}]`, `{"a":1,"l":[1,2,9,3],"o":{"x":{"y":[{"z":"s"}]}},"~/":0,"n":null}`},
		{"add beyond the end", `[{"op":"add","path":"/l/4","value":9}]`, `!no element 4`},
		{"add into a number", `[{"op":"add","path":"/a/b","value":9}]`, `!doc is missing path: /a/b`},
		{"add into what is null", `[{"op":"add","path":"/n/b","value":9}]`, `!doc is missing path: /n/b`},
		{"add of the whole", `[{"op":"add","path":"","value":{}}]`, `!does not begin with a slash`},
		{"replace", `[{"op":"replace","path":"/l/-1","value":9},{"op":"replace","path":"/new","value":1}]`, `{"a":1,"l":[1,2,9],"o":{"x":{"y":[{"z":"s"}]}},"~/":0,"n":null,"new":1}`},
		{"replace the whole", `[{"op":"replace","path":"","value":{"b":2}},{"op":"add","path":"/c","value":3}]`, `{"b":2,"c":3}`},
		{"replace the whole by a list", `[{"op":"replace","path":"","value":[]}]`, `!must be an object`},
		{"remove", `[{"op":"remove","path":"/l/0"},{"op":"remove","path":"/o"},{"op":"remove","path":"/~0~1"}]`, `{"a":1,"l":[2,3],"n":null}`},
		{"remove what is not there", `[{"op":"remove","path":"/o/q"}]`, `!doc is missing path: /o/q`},
		{"move", `[{"op":"move","from":"/o/x/y/0","path":"/m"}]`, `{"a":1,"l":[1,2,3],"o":{"x":{"y":[]}},"~/":0,"n":null,"m":{"z":"s"}}`},
		{"move into itself", `[{"op":"move","from":"/o","path":"/o/x"}]`, `!doc is missing path: /o/x`},
		{"copy into itself", `[{"op":"copy","from":"/o","path":"/o/c"}]`, `{"a":1,"l":[1,2,3],"o":{"x":{"y":[{"z":"s"}]},"c":{"x":{"y":[{"z":"s"}]}}},"~/":0,"n":null}`},
		{"a copy is its own", `[{"op":"copy","from":"/l","path":"/c"},{"op":"add","path":"/c/0","value":0}]`, `{"a":1,"l":[1,2,3],"c":[0,1,2,3],"o":{"x":{"y":[{"z":"s"}]}},"~/":0,"n":null}`},
		{"test", `[{"op":"test","path":"/o","value":{"x":{"y":[{"z":"s"}]}}},{"op":"test","path":"/l/0","value":1.0},{"op":"test","path":"/q","value":null},{"op":"remove","path":"/a"}]`, `{"l":[1,2,3],"o":{"x":{"y":[{"z":"s"}]}},"~/":0,"n":null}`},
		{"test of another value", `[{"op":"test","path":"/l","value":[1,2]}]`, `!testing value /l failed`},
		{"test of the whole", `[{"op":"test","path":"","value":{"a":1}}]`, `!testing value of the document failed`},
		{"large numbers stay", `[{"op":"add","path":"/l","value":[12345678901234567890, 9007199254740993]}]`, `{"a":1,"l":[12345678901234567890,9007199254740993],"o":{"x":{"y":[{"z":"s"}]}},"~/":0,"n":null}`},
		{"no such operation", `[{"op":"swap","path":"/a"}]`, `!operation 0 (swap): there is no such operation`},
		{"no path", `[{"op":"remove"}]`, `!it has no path`},
		{"no from", `[{"op":"copy","path":"/a"}]`, `!it has no from`},
		{"an index that is none", `[{"op":"remove","path":"/l/x"}]`, `!"x" is not an index`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _, err := Apply(types.JSONPatchType, []byte(doc), []byte(tc.patch), &corev1.Pod{})
			if part, fails := strings.CutPrefix(tc.want, "!"); fails {
				if status, ok := err.(apierrors.APIStatus); !ok || status.Status().Code != 422 || !strings.Contains(err.Error(), part) {
					t.Errorf("got %s, %v, want 422 about %q", got, err, part)
				}
				return
			}
			if err != nil || !sameJSON(t, got, tc.want) {
				t.Errorf("got %s, %v, want %s", got, err, tc.want)
			}
		})
	}
}

func TestJSONPatchIsBounded(t *testing.T) {
	small := limits{operations: 4, copied: 30, shifted: 6}
	for _, tc := range []struct {
		name, patch string
		code        int32 // 0 for success
	}{
		{"few operations", `[{"op":"test","path":"/l/0","value":1},{"op":"remove","path":"/l"}]`, 0},
		{"too many operations", `[` + strings.Repeat(`{"op":"test","path":"/l/0","value":1},`, 4) + `{"op":"remove","path":"/l"}]`, 413},
		{"one copy", `[{"op":"copy","from":"/s","path":"/t"}]`, 0},
		{"copies that add up", `[{"op":"copy","from":"/s","path":"/t"},{"op":"copy","from":"/s","path":"/u"},{"op":"copy","from":"/s","path":"/v"}]`, 422},
		{"copies into themselves", `[{"op":"copy","from":"/o","path":"/o/a"},{"op":"copy","from":"/o","path":"/o/b"},{"op":"copy","from":"/o","path":"/o/c"}]`, 422},
		{"an addition to the end of a list", `[{"op":"add","path":"/l/-","value":0},{"op":"add","path":"/l/-","value":0},{"op":"add","path":"/l/-","value":0}]`, 0},
		{"additions to the beginning of a list", `[{"op":"add","path":"/l/0","value":0},{"op":"add","path":"/l/0","value":0}]`, 422},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := applyJSONPatch([]byte(`{"s":"0123456789","l":[1,2,3,4],"o":{}}`), []byte(tc.patch), small)
			if status, ok := err.(apierrors.APIStatus); (err == nil) != (tc.code == 0) || ok && status.Status().Code != tc.code {
				t.Errorf("%v, want code %d", err, tc.code)
			}
		})
	}
	deeper := `{"op":"add","path":"/w","value":{}},{"op":"move","from":"/o","path":"/w/o"},{"op":"move","from":"/w","path":"/o"},`
	deep := `[` + strings.Repeat(deeper, 1001) + `{"op":"remove","path":"/s"}]`
	if _, _, err := Apply(types.JSONPatchType, []byte(`{"s":1,"o":{}}`), []byte(deep), &corev1.Pod{}); err == nil || !strings.Contains(err.Error(), "nested") {
		t.Errorf("what is moved into something else a thousand times: %v", err)
	}
}

// FuzzJSONPatch compares with the library that Kubernetes uses: what it carries out has the same result here.
func FuzzJSONPatch(f *testing.F) {
	const doc = `{"a":1,"l":[1,2,3],"o":{"x":{"y":[{"z":"s"}]}},"n":null}`
	for _, patch := range []string{
		`[{"op":"add","path":"/l/0","value":{"b":[]}},{"op":"move","from":"/l/0/b","path":"/o/x/y/-"}]`,
		`[{"op":"copy","from":"/o/x","path":"/o/x/y/0/c"},{"op":"test","path":"/l/-1","value":3}]`,
		`[{"op":"replace","path":"/n/q","value":1}]`, `[{"op":"remove","path":"/n"},{"op":"replace","path":"/l/0"}]`,
	} {
		f.Add(doc, patch)
	}
	f.Fuzz(func(t *testing.T, doc, patch string) {
		if !json.Valid([]byte(doc)) || !strings.HasPrefix(doc, "{") {
			return
		}
		got, err := applyJSONPatch([]byte(doc), []byte(patch), limits{operations: 100, copied: 1 << 16, shifted: 1 << 16})
		want, ok := upstream(doc, patch)
		if !ok {
			return // it refuses, panics or is not told of our limits
		}
		if err != nil {
			return
		}
		a, _ := decodeValue(got)
		b, _ := decodeValue(want)
		if !equal(a, b) {
			t.Errorf("%s patched by %s is %s, Kubernetes has %s", doc, patch, got, want)
		}
	})
}

// upstream applies a patch as Kubernetes does, if it does.
func upstream(doc, patch string) (out []byte, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	ops, err := jsonpatch.DecodePatch([]byte(patch))
	if err != nil || len(ops) > 100 {
		return nil, false
	}
	out, err = ops.Apply([]byte(doc))
	return out, err == nil
}

// FuzzMergePatch checks what RFC 7386 says of every result: merged again it stays as it is, and no field that the patch sets to null is there.
func FuzzMergePatch(f *testing.F) {
	f.Add(`{"a":{"b":1,"c":[1]}}`, `{"a":{"b":null,"d":{"e":null}},"f":2}`)
	f.Add(`{"a":1}`, `{"a":{"b":{"c":null}}}`)
	f.Fuzz(func(t *testing.T, doc, patch string) {
		if !json.Valid([]byte(doc)) || !strings.HasPrefix(doc, "{") {
			return
		}
		once, err := applyMergePatch([]byte(doc), []byte(patch))
		if err != nil {
			return
		}
		twice, err := applyMergePatch(once, []byte(patch))
		a, _ := decodeValue(once)
		b, _ := decodeValue(twice)
		if err != nil || !equal(a, b) {
			t.Errorf("%s patched by %s is %s, once more %s, %v", doc, patch, once, twice, err)
		}
		changes, err := readDocument([]byte(patch))
		if err != nil {
			t.Fatal(err)
		}
		for name := range changes {
			change, _ := changes.field(name)
			if _, there := a.(map[string]any)[name]; there && change == nil {
				t.Errorf("%s is still there after %s", name, patch)
			}
		}
	})
}

// FuzzStrategicPatch looks for patches that make upstream's merge panic, or that give something that is no object.
func FuzzStrategicPatch(f *testing.F) {
	const pod = `{"metadata":{"finalizers":["a/b"]},"spec":{"containers":[{"name":"a","env":[{"name":"x"}]}]}}`
	f.Add(pod, `{"spec":{"$setElementOrder/containers":[{"name":"b"},{"name":"a"}],"containers":[{"name":"b","$patch":"replace"}]}}`)
	f.Add(pod, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["a/b"]},"spec":{"$retainKeys":["containers"],"volumes":null}}`)
	f.Fuzz(func(t *testing.T, doc, patch string) {
		var v map[string]any
		if out, err := applyStrategic([]byte(doc), []byte(patch), &corev1.Pod{}, 1<<16); err == nil && json.Unmarshal(out, &v) != nil {
			t.Errorf("%s patched by %s is %s", doc, patch, out)
		}
	})
}
