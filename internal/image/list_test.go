package image

import (
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
)

// A blob that is gone makes one image useless, not the list.
func TestListShowsADamagedImageAmongTheOthers(t *testing.T) {
	for name, lost := range map[string]func(*Image) string{
		"manifest":      func(i *Image) string { return digestOf(t, i) },
		"configuration": func(i *Image) string { return imageID(t, i) },
		"layer":         func(i *Image) string { return "sha256:" + layers0(t, i) },
	} {
		t.Run(name, func(t *testing.T) {
			s, whole, damaged := newRuntimeStore(t), built(t, "whole", "whole:1"), built(t, "damaged", "damaged:1", "other.example/damaged:1")
			s.imports(written(t, whole, damaged), "")
			if err := s.db.ContentStore().Delete(s.context(), digest.Digest(lost(damaged))); err != nil {
				t.Fatal(err)
			}
			all, err := s.List(t.Context())
			if err != nil || len(all) != 3 {
				t.Fatalf("%+v, %v", all, err)
			}
			for _, st := range all {
				bad := strings.Contains(st.Name, "damaged")
				if bad != (st.Problem != nil) || bad && !strings.Contains(st.Problem.Error(), "content "+lost(damaged)+" is missing") {
					t.Errorf("%s: %v", st.Name, st.Problem)
				}
			}
			if st, ok, err := s.Get(t.Context(), "damaged:1"); err != nil || !ok || st.Problem == nil {
				t.Errorf("%+v, %v, %v", st, ok, err)
			}
			// It can be removed, and an import mends what is left.
			if err := s.Remove(t.Context(), "damaged:1"); err != nil {
				t.Error(err)
			}
			s.imports(written(t, damaged), "")
			s.collected()
			s.usable("damaged:1")
			s.usable("other.example/damaged:1")
		})
	}
}

func TestListLeavesOutWhatOnlyRepeatsAnother(t *testing.T) {
	st := func(name, id, digest string) Stored { return Stored{Name: name, ID: id, Digest: digest} }
	for name, tc := range map[string]struct {
		records []Stored
		want    []string
	}{
		"pulled by tag":                  {[]Stored{st("sha256:i", "i", "d"), st("r/a@d", "i", "d"), st("r/a:1", "i", "d")}, []string{"r/a:1"}},
		"pulled by digest":               {[]Stored{st("sha256:i", "i", "d"), st("r/a@d", "i", "d")}, []string{"r/a@d"}},
		"two tags":                       {[]Stored{st("r/a:2", "i", "d"), st("r/a@d", "i", "d"), st("r/a:1", "i", "d")}, []string{"r/a:1", "r/a:2"}},
		"a digest of another repository": {[]Stored{st("r/a:1", "i", "d"), st("r/b@d", "i", "d")}, []string{"r/a:1", "r/b@d"}},
		"the tag has gone to another":    {[]Stored{st("r/a:1", "j", "e"), st("r/a@d", "i", "d"), st("r/a@e", "j", "e")}, []string{"r/a:1", "r/a@d"}},
		"no name at all":                 {[]Stored{st("sha256:i", "i", "d")}, []string{"sha256:i"}},
		"damaged, all of it":             {[]Stored{st("sha256:i", "", "d"), st("r/a@d", "", "d"), st("r/a:1", "", "d")}, []string{"r/a:1"}},
		"one image, packed in two ways":  {[]Stored{st("sha256:i", "i", "d"), st("r/a:1", "i", "e")}, []string{"r/a:1"}},
		"a port is no tag":               {[]Stored{st("r:5000/a:1", "i", "d"), st("r:5000/a@d", "i", "d")}, []string{"r:5000/a:1"}},
		"a record that is no whole name": {[]Stored{st("r:5000/a", "i", "d")}, []string{"r:5000/a"}},
	} {
		var got []string
		for _, l := range listed(tc.records) {
			got = append(got, l.Name)
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
