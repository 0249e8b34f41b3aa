package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// write puts files into a new folder.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o600)
		if strings.HasSuffix(name, ".sh") {
			mode = 0o700
		}
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const exampleSpec = `
names: [app:v1, registry.example/team/app]
run:
- [sh, -c, "echo made > $OUT/made"]
architecture: arm64
layers:
- dirs: [{path: /data, mode: "1777", uid: 5, gid: 6}]
  files:
  - {from: site, to: /srv}
  - {from: $OUT/made, to: /srv/made, mode: "0600", uid: 7}
  - {content: "root:x:0:0::/:/bin/sh\n", to: /etc/passwd}
  links: {/bin/sh: busybox}
config:
  entrypoint: [/srv/run.sh]
  env: {B: "2", A: "1"}
  user: "65532"
  workingDir: /srv
  ports: ["8080", 53/udp]
`

func TestBuild(t *testing.T) {
	build := func() *Image {
		dir := write(t, map[string]string{SpecFile: exampleSpec, "site/run.sh": "#!/bin/sh\n", "site/css/a.css": "a{}"})
		s, err := Load(dir)
		if err != nil {
			t.Fatal(err)
		}
		img, err := Build(t.Context(), dir, s)
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	img := build()
	if got := fmt.Sprint(img.Names); got != "[docker.io/library/app:v1 registry.example/team/app:latest]" {
		t.Errorf("names: %s", got)
	}
	c, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("%s/%s %v %v %s %s %v", c.OS, c.Architecture, c.Config.Entrypoint, c.Config.Env, c.Config.User, c.Config.WorkingDir, c.Config.ExposedPorts)
	if want := "linux/arm64 [/srv/run.sh] [A=1 B=2 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin] 65532 /srv map[53/udp:{} 8080/tcp:{}]"; config != want {
		t.Errorf("configuration\n%s\nwant\n%s", config, want)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("layers: %v, %v", layers, err)
	}
	if err := validate.Layer(layers[0]); err != nil {
		t.Error(err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	const want = `bin/ 5 0755 0:0
bin/sh 2 0777 0:0 -> busybox
data/ 5 1777 5:6
etc/ 5 0755 0:0
etc/passwd 0 0644 0:0 22
srv/ 5 0755 0:0
srv/css/ 5 0755 0:0
srv/css/a.css 0 0644 0:0 3
srv/made 0 0600 7:0 5
srv/run.sh 0 0755 0:0 10
`
	if got := list(t, r); got != want {
		t.Errorf("layer\n%swant\n%s", got, want)
	}

	// The same input, built later and elsewhere, is the same image and the same archive.
	again := build()
	one, _ := img.Digest()
	if two, _ := again.Digest(); one != two {
		t.Errorf("digests differ: %s, %s", one, two)
	}
	var a, b bytes.Buffer
	if err := errors.Join(Write(&a, img), Write(&b, again)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("archives differ")
	}
	var names []string
	for line := range strings.Lines(list(t, &a)) {
		name, _, _ := strings.Cut(line, " ")
		names = append(names, path.Dir(name))
	}
	if got := strings.Join(names, " "); got != ". blobs/sha256 blobs/sha256 blobs/sha256 ." {
		t.Errorf("archive: %s; want oci-layout, three blobs, index.json", got)
	}
}

// list shows a tar stream.
func list(t *testing.T, r io.Reader) string {
	t.Helper()
	var out strings.Builder
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return out.String()
		} else if err != nil {
			t.Fatal(err)
		}
		if !h.ModTime.Equal(epoch) {
			t.Errorf("%s has the time %v", h.Name, h.ModTime)
		}
		fmt.Fprintf(&out, "%s %c %04o %d:%d", h.Name, h.Typeflag, h.Mode, h.Uid, h.Gid)
		switch h.Typeflag {
		case tar.TypeSymlink:
			fmt.Fprintf(&out, " -> %s", h.Linkname)
		case tar.TypeReg:
			fmt.Fprintf(&out, " %d", h.Size)
		}
		out.WriteByte('\n')
	}
}

func TestSpecErrors(t *testing.T) {
	for _, test := range []struct{ spec, want string }{
		{`{}`, "names: at least one is required\nlayers: at least one is required"},
		{`{names: [app], layers: [{}], colour: red}`, `unknown field "colour"`},
		{`{names: [UPPER], layers: [{}]}`, `names[0]: image name "UPPER": invalid reference format: repository name`},
		{`{names: [app], layers: [{files: [{from: a, to: b}]}]}`, `layers[0].files[0].to: "b" is not an absolute path`},
		{`{names: [app], layers: [{files: [{to: /b}]}]}`, `layers[0].files[0]: want one of from and content`},
		{`{names: [app], layers: [{dirs: [{path: /d, mode: "0888"}]}]}`, `want octal digits`},
		{`{names: [app], layers: [{debs: {packages: []}}]}`, `layers[0].debs.packages: at least one is required`},
		{`{names: [app], layers: [{}], config: {ports: [http]}}`, `config.ports[0]: "http" is not a port`},
		{`{names: [app], layers: [{}], run: [[]]}`, `run[0]: want a command`},
	} {
		_, err := Load(write(t, map[string]string{SpecFile: test.spec}))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s\ngave %v\nwant %s", test.spec, err, test.want)
		}
	}
	_, err := Build(t.Context(), t.TempDir(), &Spec{Names: []string{"a"}, Run: [][]string{{"sh", "-c", "echo oh no; exit 1"}}, Layers: []Layer{{}}})
	if err == nil || !strings.Contains(err.Error(), "oh no") {
		t.Errorf("a command that fails: %v", err)
	}
	_, err = Build(t.Context(), t.TempDir(), &Spec{Names: []string{"a"}, Layers: []Layer{{Files: []File{{From: "none", To: "/none"}}}}})
	if err == nil || !strings.Contains(err.Error(), "layers[0]: files[0]") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestKeepFollowsLinks(t *testing.T) {
	all := tree{}
	file := func(p, content string) { all.add(p, tar.Header{Typeflag: tar.TypeReg, Mode: 0o755}, []byte(content)) }
	link := func(p, to string) { all.add(p, tar.Header{Typeflag: tar.TypeSymlink, Linkname: to, Mode: 0o777}, nil) }
	file("/usr/bin/app-7", "not ELF")
	link("/usr/bin/app", "app-7")
	link("/usr/bin/loop", "loop")
	link("/current", "/usr")
	file("/unwanted", "")

	got := tree{}
	if err := got.keep(all, []string{"/usr/bin/app", "/current/bin/app-7"}); err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]bool{"/usr/bin/app": true, "/usr/bin/app-7": true, "/unwanted": false} {
		if (got[p] != nil) != want {
			t.Errorf("%s is in: %v, want %v", p, got[p] != nil, want)
		}
	}
	for _, bad := range []string{"/none", "/usr/bin/loop", "/usr/bin"} {
		if err := (tree{}).keep(all, []string{bad}); err == nil {
			t.Errorf("keep %s: no error", bad)
		}
	}
}
