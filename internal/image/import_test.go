package image

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func machineArchitecture() string { return runtime.GOARCH }

// foreign is an architecture that this machine does not have.
func foreign() string {
	if runtime.GOARCH == "s390x" {
		return "ppc64le"
	}
	return "s390x"
}

// What CRI's PullImage records: the ID, the repository with the digest, and the tag.
func TestAnImportedImageIsRecordedAsAPulledOne(t *testing.T) {
	s := newRuntimeStore(t)
	img := built(t, "one", "registry.example/app:1")
	got := s.imports(written(t, img), "")
	id, digest := imageID(t, img), digestOf(t, img)
	if len(got) != 1 || got[0].Name != "registry.example/app:1" || got[0].ID != id || got[0].Digest != digest || got[0].Size == 0 || got[0].Created.IsZero() {
		t.Errorf("%+v", got)
	}
	const label = " map[io.cri-containerd.image:managed]"
	want := []string{"registry.example/app:1 " + digest + label, "registry.example/app@" + digest + " " + digest + label, id + " " + digest + label}
	same(t, "records", s.names(), want)
	record, err := s.images.Get(s.context(), "registry.example/app:1")
	if err != nil || record.Target.Platform != nil || record.Target.Annotations != nil {
		t.Errorf("the target has what a pulled one has not: %+v, %v", record.Target, err)
	}
	// The index of the archive is all that nothing needs.
	same(t, "content", s.collected(), contentOf(t, img))
	s.usable("registry.example/app:1")
	s.usable("registry.example/app@" + digest)
}

// contentOf returns the digests of an image's blobs.
func contentOf(t *testing.T, images ...*Image) []string {
	t.Helper()
	var out []string
	for _, i := range images {
		out = append(out, digestOf(t, i), imageID(t, i))
		layers, err := i.Layers()
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range layers {
			h, err := l.Digest()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, h.String())
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func TestTheSameTagImportedAnewLeavesTheOldImageWithItsDigest(t *testing.T) {
	s := newRuntimeStore(t)
	one, two := built(t, "one", "app:1"), built(t, "two", "app:1")
	s.imports(written(t, one), "")
	s.imports(written(t, two), "")
	if st := s.usable("app:1"); st.ID != imageID(t, two) {
		t.Errorf("the tag stands for %s, want %s", st.ID, imageID(t, two))
	}
	s.usable("app@" + digestOf(t, one))
	all, err := s.List(t.Context())
	if err != nil || len(all) != 2 || all[0].Name != "docker.io/library/app:1" || all[1].Name != "docker.io/library/app@"+digestOf(t, one) {
		t.Errorf("%+v, %v", all, err)
	}
	same(t, "content", s.collected(), contentOf(t, one, two))
}

func TestArchivesOfManyTools(t *testing.T) {
	img := built(t, "one", "app:1", "other.example/app:2")
	both := []string{"docker.io/library/app:1", "other.example/app:2"}
	plain, diffID := plainLayer(t, img)
	for name, tc := range map[string]struct {
		archive []byte
		name    string
		want    []string
	}{
		"OCI layout":                 {archive: written(t, img), want: both},
		"OCI layout, gzip":           {archive: compressed(t, written(t, img), compression.Gzip), want: both},
		"OCI layout, zstd":           {archive: compressed(t, written(t, img), compression.Zstd), want: both},
		"layers not compressed":      {archive: written(t, layered(t, plain, types.OCIUncompressedLayer, diffID, "docker.io/a/plain:1")), want: []string{"docker.io/a/plain:1"}},
		"layers of zstd":             {archive: written(t, layered(t, compressed(t, plain, compression.Zstd), types.OCILayerZStd, diffID, "docker.io/a/zstd:1")), want: []string{"docker.io/a/zstd:1"}},
		"docker save":                {archive: dockerSave(t, img, "app:1", "other.example/app:2"), want: both},
		"docker save of an ID":       {archive: dockerSave(t, img), name: "app:1", want: both[:1]},
		"a name in place of another": {archive: written(t, built(t, "one", "app:1")), name: "mine", want: []string{"docker.io/library/mine:latest"}},
		"a tag alone, named":         {archive: ociTagged(t, img, "v1"), name: "mine:v1", want: []string{"docker.io/library/mine:v1"}},
		"a whole name as OCI has it": {archive: ociTagged(t, img, "localhost/app:1"), want: []string{"localhost/app:1"}},
		"by digest":                  {archive: ociTagged(t, img, "app@"+digestOf(t, img)), want: []string{"docker.io/library/app@" + digestOf(t, img)}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRuntimeStore(t)
			var got []string
			for _, st := range s.imports(tc.archive, tc.name) {
				got = append(got, st.Name)
			}
			slices.Sort(got)
			same(t, "names", got, tc.want)
			s.collected()
			for _, n := range tc.want {
				s.usable(n)
			}
		})
	}
}

func TestOfSeveralPlatformsTheMachinesIsImported(t *testing.T) {
	mine, other := built(t, "mine"), builtFor(t, foreign(), "other")
	index := indexOf(t, mine, other)
	for name, tc := range map[string]struct {
		archive []byte
		digest  string
	}{
		"an index in the layout":                         {multi(t, index, "app:1", mine, other), index.Digest.String()},
		"an index of which one platform is in":           {multi(t, index, "app:1", mine), index.Digest.String()},
		"a manifest for each platform, of the same name": {flat(t, "app:1", other, mine, other), digestOf(t, mine)},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRuntimeStore(t)
			s.imports(tc.archive, "")
			s.collected()
			st := s.usable("app:1")
			if st.ID != imageID(t, mine) || st.Digest != tc.digest {
				t.Errorf("%+v, want %s of %s", st, imageID(t, mine), tc.digest)
			}
			s.usable("app@" + tc.digest)
		})
	}
	s := newRuntimeStore(t)
	_, err := s.Import(t.Context(), bytes.NewReader(multi(t, index, "app:1", other)), "")
	if err == nil || len(s.names()) != 0 {
		t.Errorf("%v: the machine's platform is not in the archive; records %v", err, s.names())
	}
}

// A process that was killed while it received a blob leaves the part that it had.
func TestTheRestOfAnotherImportIsNotGoneOnWith(t *testing.T) {
	s := newRuntimeStore(t)
	archive := written(t, built(t, "one", "app:1"))
	for _, f := range untarred(t, archive) {
		w, err := s.db.ContentStore().Writer(s.context(), content.WithRef("tar-"+f.name))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("?")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.imports(archive, "")
	s.usable("app:1")
}

// plainLayer is the first layer of an image, not compressed.
func plainLayer(t *testing.T, i v1.Image) ([]byte, v1.Hash) {
	t.Helper()
	layers, err := i.Layers()
	if err != nil {
		t.Fatal(err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	data, err := io.ReadAll(r)
	id, err2 := layers[0].DiffID()
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return data, id
}

func compressed(t *testing.T, data []byte, kind compression.Compression) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := compression.CompressStream(&b, kind)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// dockerSave is an archive as docker save makes it, with the file "repositories" of old versions.
func dockerSave(t *testing.T, i v1.Image, tags ...string) []byte {
	t.Helper()
	byTag := map[name.Tag]v1.Image{}
	for _, n := range tags {
		tag, err := name.NewTag(n)
		if err != nil {
			t.Fatal(err)
		}
		byTag[tag] = i
	}
	if len(tags) == 0 {
		byTag[name.Tag{}] = i
	}
	var b bytes.Buffer
	if err := tarball.MultiWrite(byTag, &b); err != nil {
		t.Fatal(err)
	}
	return retarred(t, untarred(t, b.Bytes()), func(f *file) bool {
		if f.name == "manifest.json" && len(tags) == 0 {
			var m []map[string]any
			if err := json.Unmarshal(f.data, &m); err != nil {
				t.Fatal(err)
			}
			m[0]["RepoTags"] = nil
			f.data, _ = json.Marshal(m)
		}
		return true
	}, file{"repositories", []byte(`{}`)})
}

// file is a file of an archive.
type file struct {
	name string
	data []byte
}

func untarred(t *testing.T, archive []byte) []file {
	t.Helper()
	var out []file
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, file{strings.TrimPrefix(h.Name, "./"), data})
	}
}

// retarred is an archive of the files that keep lets pass, and more.
func retarred(t *testing.T, files []file, keep func(*file) bool, more ...file) []byte {
	t.Helper()
	var b bytes.Buffer
	w := &archive{tar: tar.NewWriter(&b), written: map[v1.Hash]bool{}}
	for _, f := range append(files, more...) {
		if !keep(&f) {
			continue
		}
		if err := w.file(f.name, f.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.tar.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
