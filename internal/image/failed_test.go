package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/images"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Every archive has a good image, too: none of them comes in.
func TestAFailedImportChangesNothing(t *testing.T) {
	old, good, bad := built(t, "old", "app:1"), built(t, "new", "app:1"), built(t, "bad", "bad:1")
	badLayer, _ := plainLayer(t, bad)
	whole := written(t, good, bad)
	without := func(drop func(name string) bool) []byte {
		return retarred(t, untarred(t, whole), func(f *file) bool { return !drop(f.name) })
	}
	blob := func(h v1.Hash, err error) string {
		if err != nil {
			t.Fatal(err)
		}
		return "blobs/sha256/" + h.Hex
	}
	layers, err := bad.Layers()
	if err != nil {
		t.Fatal(err)
	}
	layer, config, manifest := blob(layers[0].Digest()), blob(bad.ConfigName()), blob(bad.Digest())
	cases := map[string]struct {
		archive []byte
		name    string
		want    string
	}{
		"no layer":                  {archive: without(func(n string) bool { return n == layer }), want: "content sha256:" + layers0(t, bad) + " is missing"},
		"no configuration":          {archive: without(func(n string) bool { return n == config }), want: "content " + imageID(t, bad) + " is missing"},
		"no manifest":               {archive: without(func(n string) bool { return n == manifest }), want: "content " + digestOf(t, bad) + " is missing"},
		"no index":                  {archive: without(func(n string) bool { return n == "index.json" }), want: "missing index.json"},
		"no layout":                 {archive: without(func(n string) bool { return n == "oci-layout" }), want: "unrecognized image format"},
		"a layer that is another":   {archive: written(t, good, layered(t, badLayer, types.OCIUncompressedLayer, v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, "bad:1")), want: "bad:1: unpacking"},
		"a layer that is no tar":    {archive: written(t, good, layered(t, bytes.Repeat([]byte("no tar"), 200), types.OCIUncompressedLayer, v1.Hash{Algorithm: "sha256", Hex: strings.Repeat("0", 64)}, "bad:1")), want: "bad:1: unpacking"},
		"a layer of another length": {archive: written(t, good, longer(t, bad)), want: "its manifest says"},
		"another platform":          {archive: written(t, good, builtFor(t, foreign(), "bad", "bad:1")), want: "docker.io/library/bad:1: it is for linux/" + foreign() + ", this machine is"},
		"no platform said":          {archive: ociTagged(t, builtFor(t, foreign(), "bad"), "bad/bad:1"), want: "it is for linux/" + foreign()},
		"a name that cannot be":     {archive: flat(t, "Bad/NAME:1", good), want: `image name "Bad/NAME:1"`},
		"another digest's name":     {archive: flat(t, "app@"+digestOf(t, old), good), want: "the image has the digest " + digestOf(t, good)},
		"no name":                   {archive: flat(t, "", good), want: "--name"},
		"a tag alone":               {archive: flat(t, "v1", good), want: "--name"},
		"one name for several":      {archive: whole, name: "app:1", want: "several images (docker.io/library/app:1, docker.io/library/bad:1)"},
		"a name given that is bad":  {archive: flat(t, "", good), name: "UPPER", want: `image name "UPPER"`},
		"nothing":                   {archive: nil, want: "unrecognized image format"},
		"no image":                  {archive: layout(t, v1.IndexManifest{SchemaVersion: 2}, nil), want: "holds no image"},
		"something else by name":    {archive: layout(t, v1.IndexManifest{SchemaVersion: 2, Manifests: []v1.Descriptor{{MediaType: "text/plain", Annotations: map[string]string{"io.containerd.image.name": "app:1"}}}}, nil), want: "is no image"},
		"docker save of long ago":   {archive: retarred(t, []file{{"repositories", []byte(`{"app":{"1":"0"}}`)}, {"0/layer.tar", nil}}, func(*file) bool { return true }), want: "unrecognized image format"},
	}
	for n := 1; n < 8; n++ {
		cases[fmt.Sprintf("cut off after %d eighths", n)] = struct {
			archive    []byte
			name, want string
		}{archive: whole[:len(whole)*n/8/512*512+100], want: "EOF"}
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newRuntimeStore(t)
			s.imports(written(t, old), "")
			before := s.names()
			if _, err := s.Import(t.Context(), bytes.NewReader(tc.archive), tc.name); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want one with %q", err, tc.want)
			}
			same(t, "records", s.names(), before)
			same(t, "content", s.collected(), contentOf(t, old))
			if left, err := s.db.ContentStore().ListStatuses(s.context()); err != nil || len(left) != 0 {
				t.Errorf("half received: %v, %v", left, err)
			}
			if left, err := s.client.LeasesService().List(s.context()); err != nil || len(left) != 0 {
				t.Errorf("leases: %v, %v", left, err)
			}
			s.usable("app:1")
			s.imports(whole, "")
			s.usable("bad:1")
		})
	}
}

// longer is an image whose manifest says that its layer is a byte longer than it is.
func longer(t *testing.T, i *Image) *Image {
	t.Helper()
	layers, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.Append(mutate.MediaType(empty.Image, types.OCIManifestSchema1), mutate.Addendum{Layer: byteLonger{layers[0]}})
	if err != nil {
		t.Fatal(err)
	}
	config, err := i.ConfigFile()
	if err == nil {
		img, err = mutate.ConfigFile(img, config)
	}
	if err != nil {
		t.Fatal(err)
	}
	return &Image{Names: i.Names, Image: img}
}

type byteLonger struct{ v1.Layer }

func (l byteLonger) Size() (int64, error) {
	n, err := l.Layer.Size()
	return n + 1, err
}

func layers0(t *testing.T, i v1.Image) string {
	t.Helper()
	all, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	h, err := all[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.Hex
}

// failing is a store of records that stops to work after some writes, for ever or for one.
type failing struct {
	images.Store
	after, writes int
	forever       bool
}

var errDisk = errors.New("no space left on device")

func (f *failing) fails() bool {
	f.writes++
	return f.writes == f.after || f.forever && f.writes > f.after
}

func (f *failing) Create(ctx context.Context, i images.Image) (images.Image, error) {
	if f.fails() {
		return images.Image{}, errDisk
	}
	return f.Store.Create(ctx, i)
}

func (f *failing) Update(ctx context.Context, i images.Image, paths ...string) (images.Image, error) {
	if f.fails() {
		return images.Image{}, errDisk
	}
	return f.Store.Update(ctx, i, paths...)
}

func (f *failing) Delete(ctx context.Context, name string, opts ...images.DeleteOpt) error {
	if f.fails() {
		return errDisk
	}
	return f.Store.Delete(ctx, name, opts...)
}

// An import of two images writes six records. Wherever it stops, the records are what they were, or, if it was killed there and
// can undo nothing, each of them stands for a whole image and the next import does the rest.
func TestAnImportThatStopsBetweenRecords(t *testing.T) {
	old, one, two := built(t, "old", "app:1"), built(t, "one", "app:1"), built(t, "two", "two:1")
	archive := written(t, one, two)
	for n := 1; n <= 6; n++ {
		for _, killed := range []bool{false, true} {
			t.Run(fmt.Sprintf("at record %d, killed %v", n, killed), func(t *testing.T) {
				t.Parallel()
				s := newRuntimeStore(t)
				s.imports(written(t, old), "")
				before, records := s.names(), s.images
				s.with(&failing{Store: records, after: n, forever: killed})
				if _, err := s.Import(t.Context(), bytes.NewReader(archive), ""); !errors.Is(err, errDisk) {
					t.Errorf("%v", err)
				}
				s.with(records)
				if !killed {
					same(t, "records", s.names(), before)
				}
				s.collected()
				all, err := s.List(t.Context())
				if err != nil || len(all) == 0 {
					t.Error(all, err)
				}
				for _, st := range all {
					s.usable(st.Name)
				}
				s.imports(archive, "")
				if st := s.usable("app:1"); st.ID != imageID(t, one) {
					t.Errorf("%+v", st)
				}
				s.usable("two:1")
			})
		}
	}
}

// What somebody else has made of a name meanwhile is not undone.
func TestUndoLeavesAloneWhatOthersWrote(t *testing.T) {
	s := newRuntimeStore(t)
	s.imports(written(t, built(t, "one", "app:1"), built(t, "two", "two:1")), "")
	one, err := s.images.Get(s.context(), "docker.io/library/app:1")
	two, err2 := s.images.Get(s.context(), "docker.io/library/two:1")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	put := &transaction{store: s.images}
	if err := errors.Join(put.put(s.context(), "docker.io/library/new:1", one.Target), put.put(s.context(), "docker.io/library/gone:1", one.Target)); err != nil {
		t.Fatal(err)
	}
	_, err = s.images.Update(s.context(), images.Image{Name: "docker.io/library/new:1", Target: two.Target}, "target")
	if err := errors.Join(err, s.images.Delete(s.context(), "docker.io/library/gone:1"), put.undo(s.context())); err != nil {
		t.Fatal(err)
	}
	if now, err := s.images.Get(s.context(), "docker.io/library/new:1"); err != nil || now.Target.Digest != two.Target.Digest {
		t.Errorf("%+v, %v", now, err)
	}
}

// A pinned image stays pinned under its tag (io.cri-containerd.pinned), as when it is pulled anew.
func TestLabelsOfOthersStay(t *testing.T) {
	s := newRuntimeStore(t)
	s.imports(written(t, built(t, "one", "app:1")), "")
	const tag, pinned = "docker.io/library/app:1", "io.cri-containerd.pinned"
	if _, err := s.images.Update(s.context(), images.Image{Name: tag, Labels: map[string]string{pinned: "pinned"}}, "labels."+pinned); err != nil {
		t.Fatal(err)
	}
	s.imports(written(t, built(t, "two", "app:1")), "")
	if i, err := s.images.Get(s.context(), tag); err != nil || i.Labels[pinned] != "pinned" || i.Labels[managedLabel] != "managed" {
		t.Errorf("%v, %v", i.Labels, err)
	}
}

// slowCRI knows an image the third time that it is asked.
type slowCRI struct {
	id    string
	asked map[string]int
	err   error
}

func (c *slowCRI) ImageStatus(ctx context.Context, r *cri.ImageStatusRequest, _ ...grpc.CallOption) (*cri.ImageStatusResponse, error) {
	n := r.Image.Image
	c.asked[n]++
	if c.err != nil || c.asked[n] < 3 {
		return &cri.ImageStatusResponse{}, c.err
	}
	return &cri.ImageStatusResponse{Image: &cri.Image{Id: c.id, RepoTags: []string{n}}}, nil
}

func TestAnImportEndsWhenTheCRIKnowsTheImage(t *testing.T) {
	s, img := newRuntimeStore(t), built(t, "one", "app:1")
	known := &slowCRI{id: imageID(t, img), asked: map[string]int{}}
	s.cri = known
	s.imports(written(t, img), "")
	for _, n := range []string{imageID(t, img), "docker.io/library/app:1", "docker.io/library/app@" + digestOf(t, img)} {
		if known.asked[n] != 3 {
			t.Errorf("asked %d times for %s", known.asked[n], n)
		}
	}
	before := s.names()
	known.err = errors.New("the CRI is gone")
	if _, err := s.Import(t.Context(), bytes.NewReader(written(t, built(t, "two", "app:1"))), ""); !errors.Is(err, known.err) {
		t.Errorf("%v", err)
	}
	same(t, "records", s.names(), before)
}

func TestTheCRIsImageIsTheOneMeant(t *testing.T) {
	const tag, digest = "docker.io/library/app:1", "docker.io/library/app@sha256:d"
	for _, tc := range []struct {
		what  string
		image *cri.Image
		name  string
		want  bool
	}{
		{"unknown", nil, tag, false},
		{"another image of the name", &cri.Image{Id: "other", RepoTags: []string{tag}}, tag, false},
		{"another image, without digests", &cri.Image{Id: "other"}, tag, false},
		{"the image, not yet by its tag", &cri.Image{Id: "id"}, tag, false},
		{"the image, not yet by its digest", &cri.Image{Id: "id", RepoTags: []string{tag}}, digest, false},
		{"the image by its tag", &cri.Image{Id: "id", RepoTags: []string{tag}}, tag, true},
		{"the image by its digest", &cri.Image{Id: "id", RepoDigests: []string{digest}}, digest, true},
		{"the image by its ID", &cri.Image{Id: "id"}, "id", true},
	} {
		if got := refersTo(tc.image, "id", tc.name); got != tc.want {
			t.Errorf("%s: %v", tc.what, got)
		}
	}
}

// A reader that fails in the midst is like an archive that is cut off.
func TestAnArchiveThatCannotBeRead(t *testing.T) {
	s, broken := newRuntimeStore(t), errors.New("connection reset")
	archive := written(t, built(t, "one", "app:1"))
	r := io.MultiReader(bytes.NewReader(archive[:len(archive)/2]), failingReader{broken})
	if _, err := s.Import(t.Context(), r, ""); !errors.Is(err, broken) || len(s.names()) != 0 {
		t.Errorf("%v, %v", err, s.names())
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
