package local

import (
	"cmp"
	"context"
	"path/filepath"
	"slices"
)

// Listed is a local volume that is on a node's disk.
type Listed struct {
	Handle string `json:"handle"`
	About
	// Used is how many bytes it takes now.
	Used uint64 `json:"used"`
	// Orphan says that it is of no PersistentVolume.
	Orphan bool `json:"orphan,omitempty"`
	// Pods are those that use it, as NAMESPACE/NAME.
	Pods []string `json:"pods,omitempty"`
}

// Listed returns the volumes on the node's disk, in order. measure returns how many bytes a directory takes.
func (k *Keeper) Listed(ctx context.Context, measure func(ctx context.Context, dir string) uint64) ([]Listed, error) {
	there, err := k.Store.List()
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	known := k.known
	orphans := map[string]bool{}
	for handle := range there {
		orphans[handle] = known != nil && !known[handle]
	}
	k.mu.Unlock()
	out := make([]Listed, 0, len(there))
	for handle, a := range there {
		out = append(out, Listed{Handle: handle, About: a, Used: measure(ctx, filepath.Join(k.Store.Dir, handle)), Orphan: orphans[handle]})
	}
	slices.SortFunc(out, func(a, b Listed) int { return cmp.Compare(a.Handle, b.Handle) })
	return out, nil
}
