package csi

import (
	"context"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
)

// Unpublish gives back what a pod had, and has the volume unstaged if last, asked while nobody publishes it, says that no other pod of the node
// has it. It may be called again, and for what was never there.
func (m *Manager) Unpublish(ctx context.Context, r Ref, last func() (bool, error)) error {
	if err := r.check(); err != nil {
		return err
	}
	defer m.lock(r.Driver, r.Handle)()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p := m.where(r)
	if may, _ := marked(p.publishedMark); may {
		d, err := m.driver(r.Driver)
		if err != nil {
			return err
		}
		if _, err := d.node.NodeUnpublishVolume(call, &spec.NodeUnpublishVolumeRequest{VolumeId: r.Handle, TargetPath: m.Root.For(d.endpoint, p.target)}); err != nil {
			return fmt.Errorf("NodeUnpublishVolume of driver %s: %w", r.Driver, err)
		}
		if err := removeEmpty(p.publishedTop, p.target, p.publishedMark); err != nil {
			return err
		}
	}
	if r.Inline {
		return nil
	}
	if is, err := last(); err != nil || !is {
		return err
	}
	if may, _ := marked(p.stagedMark); !may {
		return nil
	}
	d, err := m.driver(r.Driver)
	if err != nil {
		return err
	}
	if _, err := d.node.NodeUnstageVolume(call, &spec.NodeUnstageVolumeRequest{VolumeId: r.Handle, StagingTargetPath: m.Root.For(d.endpoint, p.staging)}); err != nil {
		return fmt.Errorf("NodeUnstageVolume of driver %s: %w", r.Driver, err)
	}
	return removeEmpty(p.stagedTop, p.staging, p.stagedMark)
}

// Freed says soon that volumes are no longer in use, so that they can be attached to another node.
func (m *Manager) Freed(ctx context.Context) {
	if m.Announce == nil {
		return
	}
	if err := m.Announce(ctx); err != nil && ctx.Err() == nil {
		m.Log.Warn("writing which volumes are in use failed; the next heartbeat will", "err", err)
	}
}
