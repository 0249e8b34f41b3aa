// Package image assembles container images from files, folders and Debian packages, without a registry or a container
// engine, and puts images into the node's runtime.
//
// What flows through it: a [Spec], usually read from an image.yaml, goes through [Build] and becomes an OCI image in memory; [Write] makes
// an archive of it (OCI image layout, in a tar). [Store.Import] receives an archive into containerd's content store, chooses what of it is
// meant for this machine, unpacks it, and at last writes the records by which the CRI finds it. [Store.List] and [Store.Remove] read and
// remove records, one for each tag, digest and ID of an image.
//
// What must stay true: the same input gives the same digest (times, owners and order are fixed); names are normalised as Kubernetes
// understands them, so that `redis:7` in a pod is docker.io/library/redis:7 here; an imported image has the records of a pulled one
// (TestAnImportedImageIsRecordedAsAPulledOne); an import happens as a whole or not at all (TestAFailedImportChangesNothing), and where
// it is killed no record stands for half an image (TestAnImportThatStopsBetweenRecords).
package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/distribution/reference"
	"sigs.k8s.io/yaml"
)

// SpecFile is the name under which a folder holds its Spec.
const SpecFile = "image.yaml"

// Spec says what is in an image. In image.yaml the field names begin with a small letter.
type Spec struct {
	// Names are the image's names with tags, e.g. guestbook:v1 or registry.example/team/app:1.2. At least one.
	Names []string `json:"names"`
	// Run is a list of commands run on the host before the files are read, in the folder of the Spec; $OUT in arguments
	// and in From stands for a temporary folder. To compile a program, for instance.
	Run [][]string `json:"run,omitempty"`
	// Architecture as GOARCH has it; the host's by default.
	Architecture string `json:"architecture,omitempty"`
	// Layers, the lowest first.
	Layers []Layer `json:"layers"`
	Config Config  `json:"config,omitempty"`
}

// Layer is one layer of an image. Later entries replace earlier ones of the same path.
type Layer struct {
	// Debs are Debian packages to download with apt-get and unpack.
	Debs *Debs `json:"debs,omitempty"`
	// Dirs, Files and Links are added after the packages, in this order.
	Dirs  []Dir  `json:"dirs,omitempty"`
	Files []File `json:"files,omitempty"`
	// Links maps the path of a symbolic link to what it points to.
	Links map[string]string `json:"links,omitempty"`
}

// Debs are Debian packages.
type Debs struct {
	Packages []string `json:"packages"`
	// Keep names files of the packages. If given, only those go into the image, and the shared libraries that they need,
	// which are searched for in the packages' dependencies. If not, the packages go in whole, without dependencies.
	Keep []string `json:"keep,omitempty"`
}

// Dir is an empty folder.
type Dir struct {
	Path string `json:"path"`
	Mode Mode   `json:"mode,omitempty"` // 0755 by default
	UID  int    `json:"uid,omitempty"`
	GID  int    `json:"gid,omitempty"`
}

// File is a file or a whole folder.
type File struct {
	// From is a path relative to the Spec's folder. Content, if given instead, is what the file holds.
	From    string `json:"from,omitempty"`
	Content string `json:"content,omitempty"`
	To      string `json:"to"`
	Mode    Mode   `json:"mode,omitempty"` // by default 0755 for what its owner may execute, else 0644
	UID     int    `json:"uid,omitempty"`
	GID     int    `json:"gid,omitempty"`
}

// Config is how a container of the image runs unless the pod says otherwise.
type Config struct {
	Entrypoint []string          `json:"entrypoint,omitempty"`
	Cmd        []string          `json:"cmd,omitempty"`
	Env        map[string]string `json:"env,omitempty"`
	User       string            `json:"user,omitempty"`
	WorkingDir string            `json:"workingDir,omitempty"`
	Ports      []string          `json:"ports,omitempty"` // 8080 or 53/udp
	Labels     map[string]string `json:"labels,omitempty"`
	StopSignal string            `json:"stopSignal,omitempty"`
}

// Mode is a file's permission bits, written in octal in a string ("0755") or a number that YAML reads as octal.
type Mode uint32

// UnmarshalJSON reads a string of octal digits, or a number.
func (m *Mode) UnmarshalJSON(data []byte) error {
	base := 10
	if bytes.HasPrefix(data, []byte(`"`)) {
		data, base = bytes.Trim(data, `"`), 8
	}
	n, err := strconv.ParseUint(string(data), base, 32)
	if err != nil || n > 0o7777 {
		return fmt.Errorf("mode %s: want octal digits in quotes, such as \"0755\"", data)
	}
	*m = Mode(n)
	return nil
}

// Load reads the Spec of a folder.
func Load(dir string) (*Spec, error) {
	file := filepath.Join(dir, SpecFile)
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var s Spec
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return &s, nil
}

// Normalize completes a short image name: redis becomes docker.io/library/redis:latest.
func Normalize(name string) (string, error) {
	ref, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", name, err)
	}
	return reference.TagNameOnly(ref).String(), nil
}

// check finds what is wrong with a Spec, all of it.
func (s *Spec) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(s.Names) == 0 {
		bad("names: at least one is required")
	}
	for i, n := range s.Names {
		if _, err := Normalize(n); err != nil {
			bad("names[%d]: %w", i, err)
		}
	}
	for i, cmd := range s.Run {
		if len(cmd) == 0 {
			bad("run[%d]: want a command and its arguments", i)
		}
	}
	if len(s.Layers) == 0 {
		bad("layers: at least one is required")
	}
	abs := func(field, p string) {
		if !path.IsAbs(p) {
			bad("%s: %q is not an absolute path", field, p)
		}
	}
	for i, l := range s.Layers {
		if l.Debs != nil && len(l.Debs.Packages) == 0 {
			bad("layers[%d].debs.packages: at least one is required", i)
		}
		if l.Debs != nil {
			for j, k := range l.Debs.Keep {
				abs(fmt.Sprintf("layers[%d].debs.keep[%d]", i, j), k)
			}
		}
		for j, d := range l.Dirs {
			abs(fmt.Sprintf("layers[%d].dirs[%d].path", i, j), d.Path)
		}
		for j, f := range l.Files {
			abs(fmt.Sprintf("layers[%d].files[%d].to", i, j), f.To)
			if (f.From == "") == (f.Content == "") {
				bad("layers[%d].files[%d]: want one of from and content", i, j)
			}
		}
		for p := range l.Links {
			abs(fmt.Sprintf("layers[%d].links", i), p)
		}
	}
	for i, p := range s.Config.Ports {
		number, protocol, _ := strings.Cut(p, "/")
		if n, err := strconv.ParseUint(number, 10, 16); err != nil || n == 0 || (protocol != "" && protocol != "tcp" && protocol != "udp" && protocol != "sctp") {
			bad("config.ports[%d]: %q is not a port such as 8080 or 53/udp", i, p)
		}
	}
	return errors.Join(errs...)
}
