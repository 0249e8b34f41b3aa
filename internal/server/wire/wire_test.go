package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
)

var (
	podKind     = corev1.SchemeGroupVersion.WithKind("Pod")
	podListKind = corev1.SchemeGroupVersion.WithKind("PodList")
)

func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	utilruntime.Must(corev1.AddToScheme(s))
	metav1.AddToGroupVersion(s, corev1.SchemeGroupVersion)
	return s
}

func pods() []*corev1.Pod {
	out := []*corev1.Pod{{}, {}}
	for i, p := range out {
		p.Name, p.Namespace, p.ResourceVersion = string(rune('a'+i)), "default", "7"
		p.Labels = map[string]string{"html": "<&>"}
		p.Spec.Containers = []corev1.Container{{Name: "c", Image: strings.Repeat("long", 50*i)}}
	}
	return out
}

func items(t testing.TB, f Format) [][]byte {
	t.Helper()
	var out [][]byte
	for _, p := range pods() {
		b, err := Item(p, podKind, f)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	return out
}

// golden compares got with a file; KNARR_GOLDEN=1 writes it anew.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("KNARR_GOLDEN") != "" {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s changed:\n%s\nwant\n%s", name, got, want)
	}
}

// TestListIsUpstreams compares lists put together from items with those that Kubernetes' serialisers make.
func TestListIsUpstreams(t *testing.T) {
	left := int64(3)
	meta := metav1.ListMeta{ResourceVersion: "9", Continue: "next", RemainingItemCount: &left}
	list := &corev1.PodList{TypeMeta: metav1.TypeMeta{Kind: "PodList", APIVersion: "v1"}, ListMeta: meta}
	for _, p := range pods() {
		list.Items = append(list.Items, *p)
	}
	var want, got bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(list, &want); err != nil {
		t.Fatal(err)
	}
	if err := WriteList(&got, podListKind, meta, items(t, Protobuf), Protobuf); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want.Bytes()) {
		t.Errorf("protobuf list:\n%s\nwant\n%s", hex.Dump(got.Bytes()), hex.Dump(want.Bytes()))
	}
	got.Reset()
	if err := WriteList(&got, podListKind, meta, items(t, JSON), JSON); err != nil {
		t.Fatal(err)
	}
	golden(t, "list.json", got.Bytes())
	var back corev1.PodList
	if err := json.Unmarshal(got.Bytes(), &back); err != nil || len(back.Items) != 2 || back.Items[1].Labels["html"] != "<&>" || *back.RemainingItemCount != 3 {
		t.Errorf("%v %+v", err, back)
	}
	got.Reset()
	if err := WriteList(&got, podListKind, metav1.ListMeta{}, nil, JSON); err != nil || got.String() != `{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}`+"\n" {
		t.Errorf("an empty list: %v %s", err, got.String())
	}
}

// TestDocumentIsUpstreams does the same for single objects.
// TestListOneByOneIsUpstreams compares lists that are written item by item with those that Kubernetes' serialisers make.
func TestListOneByOneIsUpstreams(t *testing.T) {
	meta := metav1.ListMeta{ResourceVersion: "9", Continue: "next"}
	for _, n := range []int{0, 2, 23, 24, 300, 70_000} {
		list := &metav1.PartialObjectMetadataList{
			TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadataList", APIVersion: "meta.k8s.io/v1"}, ListMeta: meta, Items: make([]metav1.PartialObjectMetadata, n),
		}
		for i := range n {
			list.Items[i] = metav1.PartialObjectMetadata{
				TypeMeta: metav1.TypeMeta{Kind: "PartialObjectMetadata", APIVersion: "meta.k8s.io/v1"}, ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("n", i)},
			}
		}
		var want, got bytes.Buffer
		if err := protobuf.NewSerializer(nil, nil).Encode(list, &want); err != nil {
			t.Fatal(err)
		}
		messages, err := NewMessageList(list.GroupVersionKind(), meta, n, func(i int) (runtime.Object, error) { return &list.Items[i], nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := messages.Write(&got); err != nil || !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("%d items in protobuf: %v, %d bytes, want %d", n, err, got.Len(), want.Len())
		}
		want.Reset()
		if err := cborEncoder().Encode(list, &want); err != nil {
			t.Fatal(err)
		}
		b, tail, err := CBORList("items", n, []Field{{"kind", list.Kind}, {"apiVersion", list.APIVersion}, {"metadata", meta}})
		if err != nil {
			t.Fatal(err)
		}
		for i := range list.Items {
			item, err := Item(&list.Items[i], list.Items[i].GroupVersionKind(), CBOR)
			if err != nil {
				t.Fatal(err)
			}
			b = append(b, CBORPart(item)...)
		}
		if b = append(b, tail...); !bytes.Equal(b, want.Bytes()) {
			t.Errorf("%d items in CBOR: %d bytes, want %d", n, len(b), want.Len())
		}
	}
}

func TestDocumentIsUpstreams(t *testing.T) {
	p := pods()[1]
	b, err := Encode(p, podKind, Protobuf, false)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := protobuf.NewSerializer(nil, nil).Encode(Named(p, podKind), &want); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, want.Bytes()) {
		t.Errorf("protobuf:\n%s\nwant\n%s", hex.Dump(b), hex.Dump(want.Bytes()))
	}
	if p.Kind != "" {
		t.Error("encoding changed a shared object")
	}
	for _, f := range []Format{JSON, YAML} {
		b, err := Encode(p, podKind, f, true)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, "pod."+f.String(), b)
	}
}

// TestEvents checks the frames of a watch.
func TestEvents(t *testing.T) {
	var b []byte
	for i, it := range items(t, JSON) {
		b, _ = AppendEvent(b, []string{"ADDED", "DELETED"}[i], podKind, it, JSON)
	}
	golden(t, "events.json", b)

	b = nil
	var err error
	for _, it := range items(t, Protobuf) {
		if b, err = AppendEvent(b, "MODIFIED", podKind, it, Protobuf); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range pods() {
		n := binary.BigEndian.Uint32(b)
		var e metav1.WatchEvent
		if err := e.Unmarshal(b[4 : 4+n]); err != nil || e.Type != "MODIFIED" {
			t.Fatalf("%v %+v", err, e)
		}
		obj, _, err := protobuf.NewSerializer(scheme(), scheme()).Decode(e.Object.Raw, nil, nil)
		if err != nil || obj.(*corev1.Pod).Name != want.Name {
			t.Fatalf("%v %+v", err, obj)
		}
		// The frame is upstream's to the byte.
		whole, err := (&metav1.WatchEvent{Type: "MODIFIED", Object: runtime.RawExtension{Raw: e.Object.Raw}}).Marshal()
		if err != nil || !bytes.Equal(whole, b[4:4+n]) {
			t.Errorf("%v\n%s\nwant\n%s", err, hex.Dump(b[4:4+n]), hex.Dump(whole))
		}
		b = b[4+n:]
	}
	if len(b) != 0 {
		t.Errorf("%d bytes left", len(b))
	}
}

func TestNegotiate(t *testing.T) {
	tables := func(a Accepted) bool { return a.As.Kind == "Table" && a.As.Version == "v1" && a.Format != Protobuf }
	for header, want := range map[string]string{
		"":                 "json",
		"*/*":              "json",
		"application/*":    "json",
		"application/yaml": "yaml",
		"text/html":        "none",
		"text/html, application/json;q=0.5, application/yaml;q=0.9": "yaml",
		"application/json;q=0":                                          "none",
		"application/vnd.kubernetes.protobuf,application/json":          "protobuf",
		"application/cbor, application/json":                            "cbor",
		"application/json;as=Table;v=v1;g=meta.k8s.io":                  "json Table",
		"application/json;as=Table;v=v9;g=meta.k8s.io":                  "none",
		"application/json;as=Table;v=v9;g=meta.k8s.io,application/json": "json",
		"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io": "json Table",
	} {
		a, ok := Negotiate(header, tables)
		got := "none"
		if ok {
			got = strings.TrimSpace(a.Format.String() + " " + a.As.Kind)
		}
		if got != want {
			t.Errorf("Accept: %s: got %s, want %s", header, got, want)
		}
	}
}

func TestFormatOf(t *testing.T) {
	for header, want := range map[string]string{
		"": "json", "application/json": "json", "application/json; charset=utf-8": "json", "APPLICATION/YAML": "yaml",
		"application/vnd.kubernetes.protobuf": "protobuf", "application/cbor": "cbor", "text/plain": "none", "application/json;;": "json",
	} {
		f, ok := FormatOf(header)
		got := "none"
		if ok {
			got = f.String()
		}
		if got != want {
			t.Errorf("Content-Type: %s: got %s, want %s", header, got, want)
		}
	}
}

// FuzzNegotiate looks for headers that make the parser panic.
func FuzzNegotiate(f *testing.F) {
	for _, s := range []string{"application/json;q=0.3,*/*", ";;=,", "application/json;as=Table;v=v1;g=meta.k8s.io", `a/b;c="d`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if a, ok := Negotiate(header, func(Accepted) bool { return true }); ok && (a.Format < JSON || a.Format > CBOR) {
			t.Errorf("%q: %v", header, a)
		}
	})
}

// FuzzDecode looks for bodies that make a decoder panic, or that come out as something else than what was asked for.
func FuzzDecode(f *testing.F) {
	d := NewDecoder(scheme())
	for _, format := range []Format{JSON, YAML, Protobuf, CBOR} {
		b, err := Encode(pods()[1], podKind, format, false)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, int(format))
		f.Add(b[:len(b)/2], int(format))
	}
	f.Fuzz(func(t *testing.T, body []byte, format int) {
		if format < int(JSON) || format > int(CBOR) {
			return
		}
		obj, _, err := d.Decode(body, Format(format), podKind, &corev1.Pod{}, metav1.FieldValidationWarn)
		if _, ok := obj.(*corev1.Pod); err == nil && !ok {
			t.Errorf("decoded a %T", obj)
		}
	})
}

// BenchmarkList is what a list of 10,000 cached pods costs.
func BenchmarkList(b *testing.B) {
	for _, f := range []Format{JSON, Protobuf} {
		b.Run(f.String(), func(b *testing.B) {
			one := items(b, f)[1]
			all := make([][]byte, 10_000)
			for i := range all {
				all[i] = one
			}
			b.ReportAllocs()
			for b.Loop() {
				if err := WriteList(discard{}, podListKind, metav1.ListMeta{}, all, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
