package image

import (
	"archive/tar"
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is a built image and its normalised names.
type Image struct {
	Names []string
	v1.Image
}

// Build assembles the image that a Spec describes. dir is the folder to which its paths are relative.
func Build(ctx context.Context, dir string, s *Spec) (*Image, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	out, err := os.MkdirTemp("", "knarr-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(out)
	if err := run(ctx, dir, out, s.Run); err != nil {
		return nil, err
	}
	base, err := mutate.ConfigFile(mutate.MediaType(empty.Image, types.OCIManifestSchema1), s.configFile())
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(base, types.OCIConfigJSON)
	for i, l := range s.Layers {
		layer, err := l.build(ctx, dir, out)
		if err != nil {
			return nil, fmt.Errorf("layers[%d]: %w", i, err)
		}
		img, err = mutate.Append(img, mutate.Addendum{Layer: layer, History: v1.History{Created: v1.Time{Time: epoch}, CreatedBy: "knarr image build"}})
		if err != nil {
			return nil, fmt.Errorf("layers[%d]: %w", i, err)
		}
	}
	built := &Image{Image: img}
	for _, n := range s.Names {
		name, err := Normalize(n)
		if err != nil {
			return nil, err
		}
		built.Names = append(built.Names, name)
	}
	return built, nil
}

// run runs the commands that prepare files.
func run(ctx context.Context, dir, out string, commands [][]string) error {
	for i, c := range commands {
		args := make([]string, len(c))
		for j, a := range c {
			args[j] = strings.ReplaceAll(a, "$OUT", out)
		}
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "OUT="+out, "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("run[%d]: %s: %w\n%s", i, strings.Join(args, " "), err, text)
		}
	}
	return nil
}

func (l *Layer) build(ctx context.Context, dir, out string) (v1.Layer, error) {
	t := tree{}
	if l.Debs != nil {
		if err := t.addDebs(ctx, l.Debs); err != nil {
			return nil, fmt.Errorf("debs: %w", err)
		}
	}
	for _, d := range l.Dirs {
		t.add(d.Path, tar.Header{Typeflag: tar.TypeDir, Mode: int64(cmp.Or(d.Mode, 0o755)), Uid: d.UID, Gid: d.GID}, nil)
	}
	for i, f := range l.Files {
		if f.Content != "" {
			t.add(f.To, tar.Header{Typeflag: tar.TypeReg, Mode: int64(cmp.Or(f.Mode, 0o644)), Uid: f.UID, Gid: f.GID}, []byte(f.Content))
			continue
		}
		from := strings.ReplaceAll(f.From, "$OUT", out)
		if !filepath.IsAbs(from) {
			from = filepath.Join(dir, from)
		}
		if err := t.addPath(from, f); err != nil {
			return nil, fmt.Errorf("files[%d]: %w", i, err)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(l.Links)) {
		t.add(p, tar.Header{Typeflag: tar.TypeSymlink, Linkname: l.Links[p], Mode: 0o777}, nil)
	}
	return t.layer()
}

// configFile is the OCI image configuration, still without layers.
func (s *Spec) configFile() *v1.ConfigFile {
	c := v1.Config{
		Entrypoint: s.Config.Entrypoint,
		Cmd:        s.Config.Cmd,
		User:       s.Config.User,
		WorkingDir: s.Config.WorkingDir,
		Labels:     s.Config.Labels,
		StopSignal: s.Config.StopSignal,
	}
	for _, k := range slices.Sorted(maps.Keys(s.Config.Env)) {
		c.Env = append(c.Env, k+"="+s.Config.Env[k])
	}
	if _, ok := s.Config.Env["PATH"]; !ok {
		c.Env = append(c.Env, "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	for _, p := range s.Config.Ports {
		if c.ExposedPorts == nil {
			c.ExposedPorts = map[string]struct{}{}
		}
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		c.ExposedPorts[p] = struct{}{}
	}
	return &v1.ConfigFile{
		Created:      v1.Time{Time: epoch},
		OS:           "linux",
		Architecture: cmp.Or(s.Architecture, runtime.GOARCH),
		Config:       c,
		RootFS:       v1.RootFS{Type: "layers"},
	}
}
