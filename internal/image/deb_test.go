package image

import (
	"archive/tar"
	"os"
	"testing"
)

func TestLibrariesOf(t *testing.T) {
	all := tree{}
	for _, p := range []string{
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/lib/x86_64-linux-gnu/glibc-hwcaps/x86-64-v3/libcrypto.so.3",
		"/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/libm.so", "/opt/lib/libm.so", "/usr/bin/app",
	} {
		all.add(p, tar.Header{Typeflag: tar.TypeReg}, nil)
	}
	got := librariesOf(all)
	for name, want := range map[string]string{
		"libcrypto.so.3": "/usr/lib/x86_64-linux-gnu/libcrypto.so.3",
		"libc.so.6":      "/lib/x86_64-linux-gnu/libc.so.6",
		"libm.so":        "/opt/lib/libm.so",
	} {
		if got[name] != want {
			t.Errorf("%s is %s, want %s", name, got[name], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("libraries: %v", got)
	}
}

// TestDebs downloads packages, which needs Debian's tools and a mirror.
func TestDebs(t *testing.T) {
	if os.Getenv("KNARR_E2E") != "1" {
		t.Skip("downloads Debian packages with apt-get: set KNARR_E2E=1")
	}
	spec := &Spec{Names: []string{"redis"}, Layers: []Layer{{Debs: &Debs{
		Packages: []string{"redis-server", "redis-tools"}, Keep: []string{"/usr/bin/redis-server", "/usr/bin/redis-cli"}}}}}
	var digests []string
	for range 2 {
		img, err := Build(t.Context(), ".", spec)
		if err != nil {
			t.Fatal(err)
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, d.String())
	}
	if digests[0] != digests[1] {
		t.Errorf("the same packages gave %v", digests)
	}
	spec.Layers[0].Debs.Keep = []string{"/usr/bin/no-such"}
	if _, err := Build(t.Context(), ".", spec); err == nil {
		t.Error("a file that is in none of the packages was kept")
	}
}
