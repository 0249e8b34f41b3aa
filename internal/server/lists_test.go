package server_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
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

// TestListsInOtherFormats: lists in CBOR and protobuf, which are sent piece by piece, too, hold what JSON does.
func TestListsInOtherFormats(t *testing.T) {
	f := start(t)
	for _, n := range []int{0, 1, 300} { // CBOR writes the numbers of each with a head of its own
		for i := len(items(f)); i < n; i++ {
			f.must("POST", configMaps, fmt.Sprintf(`{"metadata":{"name":"m%d"},"data":{"text":%q},"binaryData":{"b":"AAEC"}}`, i, strings.Repeat("x", i)))
		}
		for _, as := range []string{"", asTable, asTableBeta, asMeta, asMetaBeta} {
			var want, got map[string]any
			if err := json.Unmarshal([]byte(f.must("GET", configMaps, "", "Accept", "application/json"+as).Body), &want); err != nil {
				t.Fatal(err)
			}
			if err := direct.Unmarshal([]byte(f.must("GET", configMaps, "", "Accept", "application/cbor"+as).Body), &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(ageless(t, got), ageless(t, want)) {
				t.Errorf("%d objects as %q differ in CBOR: %.2000v\n%.2000v", n, as, got, want)
			}
		}
		for as, list := range map[string]interface {
			Unmarshal([]byte) error
			GetResourceVersion() string
		}{"": &corev1.ConfigMapList{}, asMeta: &metav1.PartialObjectMetadataList{}, asMetaBeta: &metav1beta1.PartialObjectMetadataList{}} {
			body := f.must("GET", configMaps, "", "Accept", "application/vnd.kubernetes.protobuf"+as).Body
			var envelope runtime.Unknown
			if err := envelope.Unmarshal([]byte(body[len("k8s\x00"):])); err != nil {
				t.Fatal(err)
			}
			if err := list.Unmarshal(envelope.Raw); err != nil {
				t.Fatal(err)
			}
			all, err := meta.ExtractList(list.(runtime.Object))
			if err != nil || len(all) != n || list.GetResourceVersion() == "" || !strings.HasSuffix(envelope.Kind, "List") {
				t.Errorf("protobuf%s: %d objects of %d in a %s, %v", as, len(all), n, envelope.Kind, err)
			}
			for i, o := range all {
				if m, err := meta.Accessor(o); err != nil || m.GetUID() == "" || !strings.HasPrefix(m.GetName(), "m") {
					t.Errorf("protobuf%s: object %d is %v", as, i, o)
				}
			}
		}
	}
}

// ageless is a list in JSON without what depends on the time of asking.
func ageless(t *testing.T, list map[string]any) any {
	rows, _ := list["rows"].([]any)
	for _, r := range rows {
		cells := r.(map[string]any)["cells"].([]any)
		cells[len(cells)-1] = ""
	}
	b, err := json.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// TestWorkEndsWithTheClient: a list whose client goes is not made to its end, in whatever form; and the answer is broken off, so that nobody
// takes a part for the whole.
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
	for _, accept := range []string{
		"application/json" + asTable, "application/yaml" + asTable, "application/cbor" + asTable,
		"application/yaml", "application/cbor", "application/json", "application/vnd.kubernetes.protobuf",
		"application/json" + asMeta, "application/yaml" + asMeta, "application/cbor" + asMeta, "application/vnd.kubernetes.protobuf" + asMeta,
	} {
		for _, within := range []bool{false, true} {
			ctx, cancel := context.WithCancel(context.Background())
			if !within {
				cancel()
			}
			w := &leaver{counter{header: http.Header{}}, cancel}
			aborted := func() (aborted bool) {
				defer func() { aborted = recover() == http.ErrAbortHandler }()
				r := httptest.NewRequestWithContext(ctx, "GET", "/api/v1/pods", nil)
				r.Header.Set("Accept", accept)
				f.server.ServeHTTP(w, r)
				return false
			}()
			cancel()
			if w.size > 192<<10 {
				t.Errorf("%s: %d bytes for nobody", accept, w.size)
			}
			if within && !aborted {
				t.Errorf("%s: the answer ended as if it were whole", accept)
			}
		}
	}
}

// leaver is a client that goes when the answer begins.
type leaver struct {
	counter
	leave func()
}

func (l *leaver) Write(b []byte) (int, error) {
	l.leave()
	return l.counter.Write(b)
}

// TestWhoDoesNotReadIsLeft: a client that reads nothing of a large list does not hold the server longer than its request may take.
func TestWhoDoesNotReadIsLeft(t *testing.T) {
	f := start(t)
	large := strings.Repeat("x", 500<<10)
	for i := range 40 { // more than the connection's buffers
		f.must("POST", configMaps, fmt.Sprintf(`{"metadata":{"name":"m%d"},"data":{"text":%q}}`, i, large))
	}
	ended := make(chan struct{})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		f.server.ServeHTTP(w, r)
	}))
	t.Cleanup(h.Close)
	conn, err := net.Dial("tcp", strings.TrimPrefix(h.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "GET %s?timeout=100ms HTTP/1.1\r\nHost: a\r\nAccept: application/yaml\r\n\r\n", configMaps); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Error("the request goes on")
	}
}
