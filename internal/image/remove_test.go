package image

import (
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestRemoveByTagDigestAndID(t *testing.T) {
	one, two := built(t, "one", "app:1", "app:2", "other.example/app:1"), built(t, "two", "two:1")
	id, digest := imageID(t, one), digestOf(t, one)
	for name, tc := range map[string]struct {
		remove []string
		left   []string // of image one
	}{
		"a tag of two":            {[]string{"app:1"}, []string{"docker.io/library/app:2", "docker.io/library/app@" + digest, "other.example/app:1", "other.example/app@" + digest, id}},
		"the repository's tags":   {[]string{"app:1", "app:2"}, []string{"other.example/app:1", "other.example/app@" + digest, id}},
		"all tags":                {[]string{"app:1", "app:2", "other.example/app:1"}, nil},
		"a repository's digest":   {[]string{"app@" + digest}, []string{"other.example/app:1", "other.example/app@" + digest, id}},
		"the ID":                  {[]string{id}, nil},
		"the ID, shortened":       {[]string{id[:19]}, nil},
		"the ID without its kind": {[]string{strings.TrimPrefix(id, "sha256:")[:12]}, nil},
		"the digest, as listed":   {[]string{digest[:19]}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := newRuntimeStore(t)
			s.imports(written(t, one, two), "")
			for _, r := range tc.remove {
				if err := s.Remove(t.Context(), r); err != nil {
					t.Errorf("%s: %v", r, err)
				}
			}
			var left []string
			for _, n := range s.names() {
				if n, d, _ := strings.Cut(n, " "); strings.HasPrefix(d, digest) {
					left = append(left, n)
				}
			}
			slices.Sort(tc.left)
			same(t, "records", left, tc.left)
			want := contentOf(t, two)
			if tc.left != nil {
				want = contentOf(t, one, two)
			}
			same(t, "content", s.collected(), want)
			s.usable("two:1")
		})
	}
}

func TestRemovalsThatCannotBe(t *testing.T) {
	all := []Stored{
		{Name: "sha256:aaaaaa1", ID: "sha256:aaaaaa1", Digest: "sha256:d1"}, {Name: "r/a:1", ID: "sha256:aaaaaa1", Digest: "sha256:d1"},
		{Name: "sha256:aaaaaa2", ID: "sha256:aaaaaa2", Digest: "sha256:d2"}, {Name: "r/b:1", ID: "sha256:aaaaaa2", Digest: "sha256:d2"},
	}
	for name, want := range map[string]string{
		"nosuch:1":                              "not found",
		"sha256:bbbbbb":                         "not found",
		"r/a@sha256:" + strings.Repeat("0", 64): "not found",
		"aaaaaa":                                "several images begin with aaaaaa",
		"UPPER:1":                               "UPPER:1",
		"sha256:":                               "sha256:",
	} {
		if got, err := removed(all, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %v", name, got, err)
		} else if want == "not found" && !errdefs.IsNotFound(err) {
			t.Errorf("%s: %v is not ErrNotFound", name, err)
		}
	}
}

// The name that was given goes last: a removal that was interrupted can be given again.
func TestTheNameGivenIsRemovedLast(t *testing.T) {
	all := []Stored{{Name: "docker.io/library/a:1", ID: "i", Digest: "d"}, {Name: "docker.io/library/a@d", ID: "i", Digest: "d"}, {Name: "sha256:i", ID: "i", Digest: "d"}}
	got, err := removed(all, "a:1")
	if err != nil || !slices.Equal(got, []string{"sha256:i", "docker.io/library/a@d", "docker.io/library/a:1"}) {
		t.Errorf("%v, %v", got, err)
	}
}

// A name that looks like the beginning of an ID is a name first.
func TestANameOfHexDigitsIsAName(t *testing.T) {
	all := []Stored{{Name: "docker.io/library/c0ffee:latest", ID: "sha256:1", Digest: "d"}, {Name: "r/b:1", ID: "sha256:c0ffee1", Digest: "e"}}
	if got, err := removed(all, "c0ffee"); err != nil || !slices.Equal(got, []string{"docker.io/library/c0ffee:latest"}) {
		t.Errorf("%v, %v", got, err)
	}
}
