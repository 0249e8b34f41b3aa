package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"sigs.k8s.io/yaml"

	"github.com/knarr-io/knarr/internal/api"
)

const (
	asTable     = ";as=Table;v=v1;g=meta.k8s.io"
	asTableBeta = ";as=Table;v=v1beta1;g=meta.k8s.io"
	asMeta      = ";as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
	asMetaBeta  = ";as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io"
)

// TestListsInPieces: lists that are sent piece by piece are the same in each format as in compact JSON.
func TestListsInPieces(t *testing.T) {
	f := start(t)
	read := func(accept, query string) (out map[string]any, text string) {
		t.Helper()
		a := f.must("GET", configMaps+query, "", "Accept", accept)
		if err := yaml.Unmarshal([]byte(a.Body), &out); err != nil {
			t.Fatalf("%s%s: %v in\n%s", accept, query, err, a.Body)
		}
		rows, _ := out["rows"].([]any)
		for _, r := range rows {
			cells := r.(map[string]any)["cells"].([]any)
			cells[len(cells)-1] = "" // the age
		}
		return out, a.Body
	}
	for _, n := range []int{0, 1, 3, 600} { // 600 are more than one part of a table
		for i := len(items(f)); i < n; i++ {
			f.must("POST", configMaps, fmt.Sprintf(`{"metadata":{"name":"m%d"},"data":{"text":"a: b\n\n  - c\n\n","empty":"","long":%q}}`, i, strings.Repeat("word ", 40)))
		}
		for _, as := range []string{"", asTable, asTableBeta, asMeta, asMetaBeta} {
			want, _ := read("application/json"+as, "")
			for _, other := range [][2]string{{"application/json" + as, "?pretty=true"}, {"application/yaml" + as, ""}} {
				got, text := read(other[0], other[1])
				if !reflect.DeepEqual(got, want) {
					t.Errorf("%d objects as %v differ from compact JSON:\n%.2000s", n, other, text)
				}
			}
			list := "items"
			if strings.Contains(as, "Table") {
				list = "rows"
			}
			if l, ok := want[list].([]any); !ok || len(l) != n {
				t.Errorf("%s: %d of %d", as, len(l), n)
			}
		}
	}
	// Indented JSON is what json.Indent makes of compact JSON.
	var indented strings.Builder
	one, _ := json.MarshalIndent(json.RawMessage(f.must("GET", configMaps+"?labelSelector=none", "").Body), "", "  ")
	indented.Write(one)
	if got := f.must("GET", configMaps+"?labelSelector=none&pretty=1", "").Body; got != indented.String()+"\n" {
		t.Errorf("an empty list, indented:\n%s\nwant\n%s", got, indented.String())
	}
}

func items(f *fixture) []any {
	var list struct{ Items []any }
	if err := json.Unmarshal([]byte(f.must("GET", configMaps, "").Body), &list); err != nil {
		f.t.Fatal(err)
	}
	return list.Items
}

// TestMetaV1beta1: tables and metadata in the version before v1, which clients still ask for.
func TestMetaV1beta1(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	a := f.must("GET", "/api/v1/pods", "", "Accept", "application/json"+asTableBeta)
	contains(t, a.Body, `{"kind":"Table","apiVersion":"meta.k8s.io/v1beta1"`)
	contains(t, a.Body, `"object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1beta1"`)
	a = f.must("GET", "/api/v1/namespaces/default/pods/a", "", "Accept", "application/json;as=PartialObjectMetadata;v=v1beta1;g=meta.k8s.io")
	contains(t, a.Body, `{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1beta1"`)
	a = f.must("GET", "/api/v1/pods", "", "Accept", "application/vnd.kubernetes.protobuf"+asMetaBeta)
	// An envelope of magic, type and the message; the message has its items first, unlike v1.
	raw := a.Body[strings.Index(a.Body, "PartialObjectMetadataList")+len("PartialObjectMetadataList"):]
	var list metav1beta1.PartialObjectMetadataList
	if err := list.Unmarshal([]byte(message(raw))); err != nil || len(list.Items) != 1 || list.Items[0].Name != "a" || list.ResourceVersion == "" {
		t.Errorf("%v %+v", err, list)
	}
	if a := f.do("GET", "/api/v1/pods", "", "Accept", "application/json;as=Table;v=v2;g=meta.k8s.io"); a.Code != http.StatusNotAcceptable {
		t.Errorf("a version that there is not: %d", a.Code)
	}
}

// message is the raw field (2) of a runtime.Unknown that s begins with.
func message(s string) string {
	n, shift := 0, 0
	for i := 1; i < len(s); i++ {
		n |= int(s[i]&0x7f) << shift
		if shift += 7; s[i] < 0x80 {
			return s[i+1 : i+1+n]
		}
	}
	return ""
}

// TestWatchAsTableWithInitialEvents: the end of the initial events is marked in a row, and reaches those too who want no objects.
func TestWatchAsTableWithInitialEvents(t *testing.T) {
	f := start(t)
	f.must("POST", "/api/v1/namespaces/default/pods", pod)
	for _, include := range []string{"", "None", "Metadata", "Object"} {
		a := f.must("GET", "/api/v1/pods?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1&includeObject="+include, "",
			"Accept", "application/json"+asTable)
		lines := bufio.NewScanner(strings.NewReader(a.Body))
		var last struct {
			Type   string
			Object struct {
				Kind string
				Rows []struct {
					Object struct {
						Metadata struct {
							ResourceVersion string
							Annotations     map[string]string
						}
					}
				}
			}
		}
		n := 0
		for ; lines.Scan(); n++ {
			if err := json.Unmarshal(lines.Bytes(), &last); err != nil {
				t.Fatal(err)
			}
		}
		if n != 2 || last.Type != "BOOKMARK" || last.Object.Kind != "Table" || len(last.Object.Rows) != 1 {
			t.Fatalf("includeObject=%s: %s", include, a.Body)
		}
		if m := last.Object.Rows[0].Object.Metadata; m.Annotations["k8s.io/initial-events-end"] != "true" || m.ResourceVersion == "" {
			t.Errorf("includeObject=%s: %+v", include, m)
		}
	}
}

// TestNegativeTimeoutOfAWatch: a watch whose time has passed ends at once.
func TestNegativeTimeoutOfAWatch(t *testing.T) {
	f := start(t)
	began := time.Now()
	a := f.do("GET", configMaps+"?watch=1&timeoutSeconds=-1", "")
	if took := time.Since(began); took > 5*time.Second || a.Code != 200 {
		t.Errorf("%d after %s: %s", a.Code, took, a.Body)
	}
}

// TestWorkEndsWithTheClient: a list whose client is gone is not made to its end.
func TestWorkEndsWithTheClient(t *testing.T) {
	f := start(t)
	var objs []api.Object
	for i := range 2000 {
		objs = append(objs, testPod(i))
	}
	for _, r := range f.client.CreateMany(context.Background(), objs) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	for _, accept := range []string{"application/json" + asTable, "application/yaml", "application/json" + asMeta, "application/json"} {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		w := &counter{header: http.Header{}}
		func() {
			defer func() { _ = recover() }() // net/http is told to end the connection
			r := httptest.NewRequestWithContext(ctx, "GET", "/api/v1/pods", nil)
			r.Header.Set("Accept", accept)
			f.server.ServeHTTP(w, r)
		}()
		if w.size > 128<<10 {
			t.Errorf("%s: %d bytes for nobody", accept, w.size)
		}
	}
}
