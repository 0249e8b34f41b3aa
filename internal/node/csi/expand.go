package csi

import (
	"context"
	"errors"
	"fmt"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/knarr-io/knarr/internal/amount"

	corev1 "k8s.io/api/core/v1"
)

// ErrInfeasible is in the error of a volume that cannot grow as it is to, however often that is tried.
var ErrInfeasible = errors.New("the volume cannot grow to this size")

// Expand lets the file system, or the device, of a published volume grow to what the PersistentVolume has.
func (m *Manager) Expand(ctx context.Context, r *Request) error {
	if err := r.check(); err != nil {
		return err
	}
	d, err := m.driver(r.Driver)
	if err != nil {
		return err
	}
	if !d.can[canExpand] {
		return fmt.Errorf("NodeExpand is not supported by the CSI driver %s", r.Driver)
	}
	secrets, err := m.secret(ctx, r.PV.Spec.CSI.NodeExpandSecretRef)
	if err != nil {
		return fmt.Errorf("fetching NodeExpandSecretRef: %w", err)
	}
	defer m.lock(r.Driver, r.Handle)()
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	p := m.where(r.Ref)
	ask := &spec.NodeExpandVolumeRequest{VolumeId: r.Handle, VolumePath: m.Root.For(d.endpoint, p.target), VolumeCapability: d.capability(r), Secrets: secrets,
		CapacityRange: &spec.CapacityRange{RequiredBytes: amount.Units(r.PV.Spec.Capacity[corev1.ResourceStorage])}}
	if d.can[canStage] {
		ask.StagingTargetPath = m.Root.For(d.endpoint, p.staging)
	}
	_, err = d.node.NodeExpandVolume(call, ask)
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.InvalidArgument, codes.OutOfRange, codes.NotFound:
		return fmt.Errorf("%w: %w", ErrInfeasible, err)
	}
	return err
}
