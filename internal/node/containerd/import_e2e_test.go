package containerd

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/image"
	"github.com/knarr-io/knarr/internal/node/runtime"
)

// importTag imports an image with one file, all of it or what cut leaves, and returns the error.
func importTag(t *testing.T, store *image.Store, name, content string, cut func(archive []byte) io.Reader) ([]image.Stored, error) {
	t.Helper()
	built, err := image.Build(t.Context(), t.TempDir(), &image.Spec{Names: []string{name}, Layers: []image.Layer{{Files: []image.File{{Content: content, To: "/content"}}}}})
	if err != nil {
		t.Fatal(err)
	}
	var archive bytes.Buffer
	if err := image.Write(&archive, built); err != nil {
		t.Fatal(err)
	}
	return store.Import(t.Context(), cut(archive.Bytes()), "")
}

func whole(archive []byte) io.Reader { return bytes.NewReader(archive) }

// known returns what the CRI has by a name; nil if it has nothing.
func known(t *testing.T, rt *runtime.CRI, name string) *cri.Image {
	t.Helper()
	i, err := rt.ImageStatus(t.Context(), &cri.ImageSpec{Image: name})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// The judge is containerd's CRI itself, also after it has been started anew.
func TestAnImportedImageIsWhatAPulledOneWouldBe(t *testing.T) {
	s, stop := supervise(t, e2eOptions(t))
	rt := dial(t, s)
	store, err := image.OpenStore(s.Endpoint())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	const repo, tag = "registry.example/app", "registry.example/app:1"
	first, err := importTag(t, store, tag, "one", whole)
	if err != nil {
		t.Fatal(err)
	}
	one := first[0]
	check := func(when string, rt *runtime.CRI) {
		for _, name := range []string{tag, repo + "@" + one.Digest, one.ID} {
			i := known(t, rt, name)
			if i.GetId() != one.ID || !slices.Equal(i.GetRepoTags(), []string{tag}) || !slices.Equal(i.GetRepoDigests(), []string{repo + "@" + one.Digest}) || i.GetPinned() {
				t.Errorf("%s, %s is %v", when, name, i)
			}
		}
	}
	check("imported", rt)
	// A failed import leaves it as it is.
	broken := errors.New("the network is gone")
	if _, err := importTag(t, store, tag, "two", func(a []byte) io.Reader { return io.MultiReader(bytes.NewReader(a[:len(a)/2]), failingReader{broken}) }); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	check("after a failed import", rt)
	stop()
	stop = run(t, s)
	defer stop()
	rt = dial(t, s)
	check("started anew", rt)

	second, err := importTag(t, store, tag, "two", whole)
	if err != nil {
		t.Fatal(err)
	}
	if i := known(t, rt, tag); i.GetId() != second[0].ID {
		t.Errorf("the tag stands for %v", i)
	}
	if i := known(t, rt, one.ID); len(i.GetRepoTags()) != 0 || !slices.Equal(i.GetRepoDigests(), []string{repo + "@" + one.Digest}) {
		t.Errorf("the older image is %v, want its digest alone", i)
	}
	// The agent's upkeep removes by ID; nothing of the image stays.
	if err := rt.RemoveImage(t.Context(), &cri.ImageSpec{Image: one.ID}); err != nil {
		t.Fatal(err)
	}
	all, err := store.List(t.Context())
	if err != nil || slices.ContainsFunc(all, func(st image.Stored) bool { return st.ID == one.ID || st.Problem != nil }) {
		t.Errorf("%+v, %v", all, err)
	}
	if err := store.Remove(context.WithoutCancel(t.Context()), tag); err != nil {
		t.Error(err)
	}
	if all, err = store.List(t.Context()); err != nil || len(all) != 1 || !strings.Contains(all[0].Name, "pause") {
		t.Errorf("%+v, %v: want the pause image alone", all, err)
	}
	if i := known(t, rt, PauseImage); !i.GetPinned() {
		t.Errorf("%v is not pinned", i)
	}
}

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }
