package csi

import (
	"context"
	"errors"
	"fmt"
	"time"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
)

// How long an attachment is waited for before a pod says that it waits, and how often it is looked for.
const (
	attachPatience = 15 * time.Second
	attachLook     = 100 * time.Millisecond
	attachLookMost = 2 * time.Second
)

// attached waits until a volume is attached to the node, and returns what its driver's controller says of that.
func (m *Manager) attached(ctx context.Context, driver, handle string) (map[string]string, error) {
	name := volume.AttachmentName(handle, driver, m.Node)
	pause := attachLook
	for deadline := time.Now().Add(attachPatience); ; pause = min(2*pause, attachLookMost) {
		a, err := client.Get[*storagev1.VolumeAttachment](ctx, m.Client, api.Key{Name: name})
		if err != nil && !apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("reading VolumeAttachment %s: %w", name, err)
		}
		if err == nil {
			done, why := settled(a)
			if why != nil {
				return nil, why
			}
			if done {
				return a.Status.AttachmentMetadata, nil
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("timed out waiting for external-attacher of %s CSI driver to attach volume %s", driver, handle)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// settled reports whether a volume is attached, or why it will not be.
func settled(a *storagev1.VolumeAttachment) (bool, error) {
	switch {
	case a.DeletionTimestamp != nil:
		return false, errors.New("volume attachment is being deleted")
	case a.Status.Attached:
		return true, nil
	case a.Status.AttachError != nil:
		return false, errors.New(a.Status.AttachError.Message)
	}
	return false, nil
}
