package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/node/mount"
)

// Teardown unmounts and removes everything of a pod. It is idempotent, and never removes through a mount that would not go.
func (d *Disk) Teardown(ctx context.Context, uid string) error {
	if uid == "" || strings.ContainsRune(uid, '/') || uid == "." || uid == ".." {
		return fmt.Errorf("pod UID %q cannot name a directory", uid)
	}
	dir := d.PodDir(uid)
	if err := mount.UnmountBelow(dir); err != nil {
		return err
	}
	// What was mounted on is removed without what might be in it: after a mount that was not found that would be somebody's data.
	if d.Claims != nil {
		if err := d.Claims.Release(ctx, types.UID(uid)); err != nil {
			return err
		}
	}
	parts, err := filepath.Glob(filepath.Join(dir, subPathDir, "*", "*", "*"))
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("removing a mount point: %w", err)
		}
	}
	dirs := []string{dir} // last: it is by this that the pod is found again
	if d.Memory != "" {
		dirs = []string{filepath.Join(d.Memory, uid), dir}
	}
	for _, dir := range dirs {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("removing volumes of pod %s: %w", uid, err)
		}
	}
	return nil
}

// Pods returns the UIDs of all pods that have a directory.
func (d *Disk) Pods() []string {
	entries, _ := os.ReadDir(d.Dir)
	out := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, e.Name())
		}
	}
	return out
}
