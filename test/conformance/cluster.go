package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// cluster is the cluster under test, started from bin/knarr like a user's.
type cluster struct{ bin, dataDir, listen string }

func (c *cluster) knarr(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "knarr"), append(args, "--data-dir", c.dataDir)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("knarr %s: %w", args[0], err)
	}
	return nil
}

func (c *cluster) up(ctx context.Context, images []string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "knarr"), "up", "--data-dir", c.dataDir, "--", "--listen", c.listen)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("knarr up: %w", err)
	}
	return c.knarr(ctx, append([]string{"image", "import"}, images...)...)
}

// down is not tied to the run's context: it has to be done when that was cancelled, too.
func (c *cluster) down() error {
	return c.knarr(context.Background(), "down", "--delete-data")
}

// buildImages assembles the images below dir that are older than what describes them, and returns the archives.
func buildImages(ctx context.Context, bin, dir string) ([]string, error) {
	specs, err := filepath.Glob(filepath.Join(dir, "*", "image.yaml"))
	if err != nil {
		return nil, err
	}
	var archives []string
	for _, spec := range specs {
		folder := filepath.Dir(spec)
		archive := filepath.Join(bin, "conformance", filepath.Base(folder)+".tar")
		archives = append(archives, archive)
		if newer(archive, spec, filepath.Join(dir, "applets"), filepath.Join(bin, "conformance", "agnhost")) {
			continue
		}
		fmt.Fprintln(os.Stderr, "building image", filepath.Base(folder))
		cmd := exec.CommandContext(ctx, filepath.Join(bin, "knarr"), "image", "build", folder, "-o", archive)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("image %s: %w", filepath.Base(folder), err)
		}
	}
	return archives, nil
}

// newer tells whether a file is there and newer than all it is made from.
func newer(file string, from ...string) bool {
	made, err := os.Stat(file)
	if err != nil {
		return false
	}
	for _, f := range from {
		if fi, err := os.Stat(f); err != nil || fi.ModTime().After(made.ModTime()) {
			return false
		}
	}
	return true
}
