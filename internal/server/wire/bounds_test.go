package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

func TestBounds(t *testing.T) {
	small := Bounds{Nesting: 3, Expanded: 40}
	for _, tc := range []struct {
		name, body string
		check      func([]byte) error
		want       string // a part of the error; empty for none
	}{
		{"shallow JSON", `{"a":[{"b":1}]}`, small.JSON, ""},
		{"JSON a level too deep", `{"a":[{"b":[]}]}`, small.JSON, "nested more than 3 levels deep"},
		{"JSON that is wide", `{"a":[{},{},{},{}],"b":[[],[],[]]}`, small.JSON, ""},
		{"brackets in a JSON string", `{"a":"[[[[\"[[[\\"}`, small.JSON, ""},
		{"JSON without end", `[[[[`, small.JSON, "nested"},
		{"shallow YAML", "a:\n- b: 1\n", small.YAML, ""},
		{"YAML a level too deep", "a:\n- b:\n  - c\n", small.YAML, "nested more than 3 levels deep"},
		{"YAML that is wide", "a: [1, 2]\nb: [3, 4]\nc: {}\nd: {}\n", small.YAML, ""},
		{"brackets in a YAML string", `a: "[[[[[["`, small.YAML, ""},
		{"no YAML", "a: [[[[", small.YAML, ""},
		{"an alias of something small", "a: &x one\nb: *x\n", small.YAML, ""},
		{"aliases of aliases", "a: &x [0123456789]\nb: &y [*x, *x]\nc: [*y, *y]\n", small.YAML, "more than 40 bytes once its aliases are expanded"},
		{"a list of aliases", "a: &x 0123456789\nb: [*x, *x, *x, *x]\n", small.YAML, "more than 40 bytes"},
		{"merged aliases", "a: &x {k: 0123456789}\nb: {<<: [*x, *x, *x]}\n", small.YAML, "more than 40 bytes"},
		{"aliases that nest", "a: &x [[]]\nb: &y [*x]\nc: [*y]\n", small.YAML, "nested more than 3"},
		{"an alias within itself", "a: &x [*x]\n", small.YAML, "an alias stands within what it stands for"},
		{"an alias of nothing", "a: &x 1\nb: *y\n", small.YAML, "unknown anchor"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := tc.check([]byte(tc.body))
			if tc.want == "" {
				if err != nil {
					t.Errorf("%v, want no error", err)
				}
				return
			}
			if !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want a bad request about %q", err, tc.want)
			}
		})
	}
}

// TestBoundsTakeLinearTime measures documents of the largest size that a body may have.
func TestBoundsTakeLinearTime(t *testing.T) {
	const size = 1 << 20
	for name, body := range map[string]string{
		"wide YAML":       "a: [" + strings.Repeat("0, ", size/3) + "]",
		"deep YAML":       strings.Repeat("[", size),
		"YAML of dashes":  strings.Repeat("- ", size/2),
		"YAML of anchors": "a:\n" + strings.Repeat("- &x 1\n", size/20) + strings.Repeat("- *x\n", size/20),
	} {
		begin := time.Now()
		_ = StandardBounds().YAML([]byte(body))
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("%s took %v", name, took)
		} else {
			t.Logf("%s took %v", name, took)
		}
	}
}

// FuzzBounds looks for documents that make the measuring panic, and for JSON of which it thinks otherwise than a decoder.
func FuzzBounds(f *testing.F) {
	for _, s := range []string{`{"a":[{"b":"]]\""}]}`, "a: &x [1]\nb: [*x, *x]", "- - - a", "a: &x {<<: *x}", "? - a\n: b"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		b := Bounds{Nesting: 4, Expanded: 64}
		_ = b.YAML(doc)
		var v any
		if json.Unmarshal(doc, &v) == nil && (b.JSON(doc) != nil) != (depth(v) > b.Nesting) {
			t.Errorf("%s is %d deep: %v", doc, depth(v), b.JSON(doc))
		}
	})
}

func depth(v any) int {
	most := -1
	switch v := v.(type) {
	case map[string]any:
		most = 0
		for _, e := range v {
			most = max(most, depth(e))
		}
	case []any:
		most = 0
		for _, e := range v {
			most = max(most, depth(e))
		}
	}
	return most + 1
}
