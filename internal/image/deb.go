package image

import (
	"archive/tar"
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// addDebs adds Debian packages, or what is to be kept of them.
func (t tree) addDebs(ctx context.Context, d *Debs) error {
	dir, err := os.MkdirTemp("", "knarr-debs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	names := d.Packages
	if len(d.Keep) > 0 {
		if names, err = dependencies(ctx, d.Packages); err != nil {
			return err
		}
	}
	// apt-get would rather download as its own user, who may not write here.
	args := append([]string{"-o", "APT::Sandbox::User=root", "download"}, names...)
	if _, err := command(ctx, dir, "apt-get", args...); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	slices.Sort(debs)
	all := tree{}
	for _, deb := range debs {
		content, err := command(ctx, dir, "dpkg-deb", "--fsys-tarfile", deb)
		if err != nil {
			return err
		}
		if err := all.addTar(bytes.NewReader(content)); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(deb), err)
		}
	}
	if len(d.Keep) == 0 {
		for p, n := range all {
			t.add(p, n.header, n.content)
		}
		return nil
	}
	return t.keep(all, d.Keep)
}

// dependencies returns the packages and all that they depend on, without recommendations.
func dependencies(ctx context.Context, packages []string) ([]string, error) {
	args := append([]string{"depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts", "--no-breaks",
		"--no-replaces", "--no-enhances"}, packages...)
	out, err := command(ctx, "", "apt-cache", args...)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(out)) {
		name := strings.TrimSpace(line)
		// Indented lines name dependencies, which have a line of their own; <name> is a virtual package.
		if strings.HasPrefix(line, " ") || strings.HasPrefix(name, "<") || strings.Contains(name, ":") || name == "" {
			continue
		}
		seen[name] = true
	}
	var names []string
	for n := range seen {
		names = append(names, n)
	}
	slices.Sort(names)
	return names, nil
}

// keep adds the files named, the links on the way to them, and the shared libraries that they need, from all.
func (t tree) keep(all tree, names []string) error {
	libraries := librariesOf(all)
	done := map[string]bool{}
	for queue := slices.Clone(names); len(queue) > 0; {
		p := queue[0]
		queue = queue[1:]
		if done[p] {
			continue
		}
		done[p] = true
		n, err := t.take(all, p)
		if err != nil {
			return err
		}
		needed, err := needs(n.content)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		for _, lib := range needed {
			at := lib
			if !path.IsAbs(lib) {
				at = libraries[lib]
			}
			if at == "" {
				return fmt.Errorf("%s needs %s, which is in none of the packages", p, lib)
			}
			queue = append(queue, at)
		}
	}
	return nil
}

// librariesOf returns the shared libraries in a tree, by file name. Of several with the same name the one nearest to the
// root is meant: below it are variants for newer processors (glibc-hwcaps) and plug-ins.
func librariesOf(all tree) map[string]string {
	libraries := map[string]string{}
	for p := range all {
		name := path.Base(p)
		if !strings.Contains(name, ".so") {
			continue
		}
		old, ok := libraries[name]
		depth, oldDepth := strings.Count(p, "/"), strings.Count(old, "/")
		if !ok || depth < oldDepth || depth == oldDepth && p < old {
			libraries[name] = p
		}
	}
	return libraries
}

// take copies one file from all, with the symbolic links that lead to it.
func (t tree) take(all tree, p string) (*node, error) {
	for range 40 {
		real, err := all.resolve(path.Dir(p))
		if err != nil {
			return nil, err
		}
		n := all[path.Join(real, path.Base(p))]
		if n == nil && strings.HasPrefix(p, "/lib") {
			// A merged /usr (Debian's usrmerge): packages may still have files in /lib that a path in /usr/lib means,
			// and the other way round.
			n = all["/usr"+p]
		}
		if n == nil {
			return nil, fmt.Errorf("%s is in none of the packages", p)
		}
		t.add(p, n.header, n.content)
		switch n.header.Typeflag {
		case tar.TypeReg:
			return n, nil
		case tar.TypeSymlink:
			if target := n.header.Linkname; path.IsAbs(target) {
				p = target
			} else {
				p = path.Join(path.Dir(p), target)
			}
		default:
			return nil, fmt.Errorf("%s is not a file", p)
		}
	}
	return nil, fmt.Errorf("%s: too many symbolic links", p)
}

// needs returns the shared libraries, and the dynamic linker, that an ELF file needs; nothing for other files.
func needs(content []byte) ([]string, error) {
	if !bytes.HasPrefix(content, []byte(elf.ELFMAG)) {
		return nil, nil
	}
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	libs, err := f.ImportedLibraries()
	if err != nil && !errors.Is(err, elf.ErrNoSymbols) {
		return nil, err
	}
	for _, prog := range f.Progs {
		if prog.Type == elf.PT_INTERP {
			interp, err := io.ReadAll(prog.Open())
			if err != nil {
				return nil, err
			}
			libs = append(libs, strings.TrimRight(string(interp), "\x00"))
		}
	}
	return libs, nil
}

// command runs a program and returns its output; what it complains of is in the error.
func command(ctx context.Context, dir, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
		}
		return nil, fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
	}
	return out, nil
}
