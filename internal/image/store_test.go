package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/diff"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	layers "github.com/containerd/containerd/v2/pkg/archive"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/containerd/v2/plugins/snapshots/native"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

// runtimeStore is containerd's own store of images, content and snapshots, in this process.
type runtimeStore struct {
	*Store
	t  *testing.T
	db *metadata.DB
	// images is the store of records; a test may put another in front of it.
	images images.Store
}

func newRuntimeStore(t *testing.T) *runtimeStore {
	t.Helper()
	dir := t.TempDir()
	blobs, err := local.NewStore(filepath.Join(dir, "content"))
	if err != nil {
		t.Fatal(err)
	}
	files, err := native.NewSnapshotter(filepath.Join(dir, "snapshots"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := bolt.Open(filepath.Join(dir, "meta.db"), 0o600, &bolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(files.Close(), b.Close()); err != nil {
			t.Error(err)
		}
	})
	db := metadata.NewDB(b, blobs, map[string]snapshots.Snapshotter{"native": files})
	if err := db.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	s := &runtimeStore{t: t, db: db}
	s.with(metadata.NewImageStore(db))
	if err := s.SetDefaultSnapshotter(t.Context(), "native"); err != nil {
		t.Fatal(err)
	}
	return s
}

// with puts another store of records in front.
func (s *runtimeStore) with(records images.Store) {
	s.t.Helper()
	c, err := client.New("", client.WithDefaultNamespace(Namespace), client.WithServices(
		client.WithContentStore(s.db.ContentStore()), client.WithImageStore(records), client.WithSnapshotters(s.db.Snapshotters()),
		client.WithLeasesService(metadata.NewLeaseManager(s.db)), client.WithNamespaceService(spaces{db: s.db}),
		client.WithDiffService(applier{content: s.db.ContentStore()})))
	if err != nil {
		s.t.Fatal(err)
	}
	s.Store, s.images = &Store{client: c}, records
}

// spaces are the namespaces of a store; containerd has them by transaction only.
type spaces struct {
	namespaces.Store
	db *metadata.DB
}

func (n spaces) Create(ctx context.Context, name string, labels map[string]string) error {
	return n.db.Update(func(tx *bolt.Tx) error { return metadata.NewNamespaceStore(tx).Create(ctx, name, labels) })
}

func (n spaces) SetLabel(ctx context.Context, name, key, value string) error {
	return n.db.Update(func(tx *bolt.Tx) error { return metadata.NewNamespaceStore(tx).SetLabel(ctx, name, key, value) })
}

func (n spaces) Labels(ctx context.Context, name string) (out map[string]string, err error) {
	err = n.db.View(func(tx *bolt.Tx) error { out, err = metadata.NewNamespaceStore(tx).Labels(ctx, name); return err })
	return out, err
}

// applier unpacks layers without mounting anything, which needs root.
type applier struct {
	diff.Comparer
	content content.Provider
}

func (a applier) Apply(ctx context.Context, d ocispec.Descriptor, mounts []mount.Mount, _ ...diff.ApplyOpt) (ocispec.Descriptor, error) {
	r, err := a.content.ReaderAt(ctx, d)
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer r.Close()
	plain, err := compression.DecompressStream(content.NewReader(r))
	if err != nil {
		return ocispec.Descriptor{}, err
	}
	defer plain.Close()
	digester := digest.Canonical.Digester()
	tee := io.TeeReader(plain, digester.Hash())
	if _, err := layers.Apply(ctx, mounts[0].Source, tee, layers.WithNoSameOwner()); err != nil {
		return ocispec.Descriptor{}, err
	}
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return ocispec.Descriptor{}, err
	}
	return ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayer, Digest: digester.Digest()}, nil
}

func (s *runtimeStore) context() context.Context {
	return namespaces.WithNamespace(s.t.Context(), Namespace)
}

// names returns the records, each with the digest that it stands for.
func (s *runtimeStore) names() []string {
	s.t.Helper()
	all, err := metadata.NewImageStore(s.db).List(s.context())
	if err != nil {
		s.t.Fatal(err)
	}
	var out []string
	for _, i := range all {
		out = append(out, fmt.Sprint(i.Name, " ", i.Target.Digest, " ", i.Labels))
	}
	slices.Sort(out)
	return out
}

// collected returns, after the garbage collector has run, the digests of all content.
func (s *runtimeStore) collected() []string {
	s.t.Helper()
	if _, err := s.db.GarbageCollect(s.context()); err != nil {
		s.t.Fatal(err)
	}
	var out []string
	err := s.db.ContentStore().Walk(s.context(), func(i content.Info) error { out = append(out, i.Digest.String()); return nil })
	if err != nil {
		s.t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

// usable fails the test unless the image of the name is whole and unpacked.
func (s *runtimeStore) usable(name string) Stored {
	s.t.Helper()
	st, ok, err := s.Get(s.t.Context(), name)
	if err != nil || !ok || st.Problem != nil {
		s.t.Fatalf("image %s: %+v, %v, %v", name, st, ok, err)
	}
	img, err := s.client.GetImage(s.context(), st.Name)
	if err != nil {
		s.t.Fatal(err)
	}
	if unpacked, err := img.IsUnpacked(s.context(), "native"); err != nil || !unpacked {
		s.t.Fatalf("image %s is unpacked: %v, %v", name, unpacked, err)
	}
	return st
}

// imports imports an archive that must be fine.
func (s *runtimeStore) imports(archive []byte, name string) []Stored {
	s.t.Helper()
	out, err := s.Import(s.t.Context(), bytes.NewReader(archive), name)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// built is an image with one file for this machine.
func built(t *testing.T, content string, names ...string) *Image {
	t.Helper()
	return builtFor(t, "", content, names...)
}

func builtFor(t *testing.T, architecture, content string, names ...string) *Image {
	t.Helper()
	unnamed := len(names) == 0
	if unnamed {
		names = []string{"unnamed"}
	}
	img, err := Build(t.Context(), t.TempDir(), &Spec{Names: names, Architecture: architecture,
		Layers: []Layer{{Files: []File{{Content: content, To: "/content"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	if unnamed {
		img.Names = nil
	}
	return img
}

// written is an archive of images.
func written(t *testing.T, images ...*Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, images...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// layered is an image with one layer, as it is.
func layered(t *testing.T, layer []byte, kind types.MediaType, diffID v1.Hash, names ...string) *Image {
	t.Helper()
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: withDiffID{static.NewLayer(layer, kind), diffID}, MediaType: kind})
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config.OS, config.Architecture = "linux", machineArchitecture()
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}
	return &Image{Names: names, Image: img}
}

type withDiffID struct {
	v1.Layer
	diffID v1.Hash
}

func (l withDiffID) DiffID() (v1.Hash, error) { return l.diffID, nil }

func imageID(t *testing.T, i v1.Image) string {
	t.Helper()
	h, err := i.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func digestOf(t *testing.T, i v1.Image) string {
	t.Helper()
	h, err := i.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return h.String()
}

func same(t *testing.T, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n%s\nwant\n%s", what, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
