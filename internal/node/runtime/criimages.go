package runtime

import (
	"context"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PullImage pulls an image.
func (c *CRI) PullImage(ctx context.Context, image *cri.ImageSpec, auth *cri.AuthConfig, sandboxConfig *cri.PodSandboxConfig) (string, error) {
	r, err := c.images.PullImage(ctx, &cri.PullImageRequest{Image: image, Auth: auth, SandboxConfig: sandboxConfig})
	return r.GetImageRef(), err
}

// ImageStatus returns the image, or nil if it is not there.
func (c *CRI) ImageStatus(ctx context.Context, image *cri.ImageSpec) (*cri.Image, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.images.ImageStatus(ctx, &cri.ImageStatusRequest{Image: image})
	return r.GetImage(), ignoreNotFound(err)
}

// ListImages lists images.
func (c *CRI) ListImages(ctx context.Context, filter *cri.ImageFilter) ([]*cri.Image, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.images.ListImages(ctx, &cri.ListImagesRequest{Filter: filter})
	return r.GetImages(), err
}

// RemoveImage removes an image.
func (c *CRI) RemoveImage(ctx context.Context, image *cri.ImageSpec) error {
	ctx, cancel := short(ctx)
	defer cancel()
	_, err := c.images.RemoveImage(ctx, &cri.RemoveImageRequest{Image: image})
	return ignoreNotFound(err)
}

// ImageFsInfo returns the use of the file systems that hold images.
func (c *CRI) ImageFsInfo(ctx context.Context) (*cri.ImageFsInfoResponse, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	return c.images.ImageFsInfo(ctx, &cri.ImageFsInfoRequest{})
}

// ContainerStats measures one container.
func (c *CRI) ContainerStats(ctx context.Context, containerID string) (*cri.ContainerStats, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.ContainerStats(ctx, &cri.ContainerStatsRequest{ContainerId: containerID})
	return r.GetStats(), err
}

// ListContainerStats measures many containers.
func (c *CRI) ListContainerStats(ctx context.Context, filter *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.ListContainerStats(ctx, &cri.ListContainerStatsRequest{Filter: filter})
	return r.GetStats(), err
}

// PodSandboxStats measures one sandbox.
func (c *CRI) PodSandboxStats(ctx context.Context, sandboxID string) (*cri.PodSandboxStats, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	r, err := c.rt.PodSandboxStats(ctx, &cri.PodSandboxStatsRequest{PodSandboxId: sandboxID})
	return r.GetStats(), err
}

// ListPodSandboxStats measures all ready sandboxes.
func (c *CRI) ListPodSandboxStats(ctx context.Context) ([]*cri.PodSandboxStats, error) {
	ctx, cancel := short(ctx)
	defer cancel()
	ready := &cri.PodSandboxStatsFilter{} // with a filter, however empty, containerd leaves out what it cannot measure
	r, err := c.rt.ListPodSandboxStats(ctx, &cri.ListPodSandboxStatsRequest{Filter: ready})
	return r.GetStats(), err
}
