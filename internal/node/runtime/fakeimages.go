package runtime

import (
	"context"
	"crypto/sha256"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeImageSize is what each image of a fake claims to hold.
const fakeImageSize = 10 << 20

func (f *Fake) addImage(name string) *cri.Image {
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(name)))
	image := &cri.Image{Id: digest, RepoTags: []string{name}, Size: fakeImageSize, Spec: &cri.ImageSpec{Image: name}}
	f.images[name], f.images[digest] = image, image
	return image
}

// PullImage succeeds after PullDelay for every name.
func (f *Fake) PullImage(ctx context.Context, image *cri.ImageSpec, _ *cri.AuthConfig, _ *cri.PodSandboxConfig) (string, error) {
	if image.GetImage() == "" {
		return "", status.Error(codes.InvalidArgument, "image without a name")
	}
	if err := pause(ctx, f.options.PullDelay); err != nil {
		return "", err
	}
	if err := f.begin(ctx, "PullImage", image.GetImage()); err != nil {
		return "", err
	}
	defer f.mu.Unlock()
	return f.addImage(image.Image).Id, nil
}

// ImageStatus returns the image, or nil.
func (f *Fake) ImageStatus(ctx context.Context, image *cri.ImageSpec) (*cri.Image, error) {
	if err := f.begin(ctx, "ImageStatus", image.GetImage()); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	return f.images[image.GetImage()], nil
}

// ListImages lists images in no order.
func (f *Fake) ListImages(ctx context.Context, filter *cri.ImageFilter) ([]*cri.Image, error) {
	if err := f.begin(ctx, "ListImages", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	var out []*cri.Image
	for key, image := range f.images {
		want := filter.GetImage().GetImage()
		if key == image.Id && (want == "" || want == image.Id || want == image.RepoTags[0]) {
			out = append(out, image)
		}
	}
	return out, nil
}

// RemoveImage removes an image by name or ID.
func (f *Fake) RemoveImage(ctx context.Context, image *cri.ImageSpec) error {
	if err := f.begin(ctx, "RemoveImage", image.GetImage()); err != nil {
		return err
	}
	defer f.mu.Unlock()
	if i := f.images[image.GetImage()]; i != nil {
		delete(f.images, i.Id)
		delete(f.images, i.RepoTags[0])
	}
	return nil
}

// ImageFsInfo adds up the images' sizes.
func (f *Fake) ImageFsInfo(ctx context.Context) (*cri.ImageFsInfoResponse, error) {
	if err := f.begin(ctx, "ImageFsInfo", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	return &cri.ImageFsInfoResponse{ImageFilesystems: []*cri.FilesystemUsage{{
		Timestamp: time.Now().UnixNano(),
		FsId:      &cri.FilesystemIdentifier{Mountpoint: "/"},
		UsedBytes: &cri.UInt64Value{Value: uint64(len(f.images) / 2 * fakeImageSize)},
	}}}, nil
}

// ContainerStats measures a container as its Behaviour says.
func (f *Fake) ContainerStats(ctx context.Context, containerID string) (*cri.ContainerStats, error) {
	if err := f.begin(ctx, "ContainerStats", containerID); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	c := f.containers[containerID]
	if c == nil {
		return nil, notFound("container", containerID)
	}
	return c.stats(time.Now()), nil
}

// ListContainerStats measures running containers.
func (f *Fake) ListContainerStats(ctx context.Context, filter *cri.ContainerStatsFilter) ([]*cri.ContainerStats, error) {
	if err := f.begin(ctx, "ListContainerStats", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	now := time.Now()
	var out []*cri.ContainerStats
	for id, c := range f.containers {
		if c.status.State != cri.ContainerState_CONTAINER_RUNNING ||
			filter.GetId() != "" && filter.GetId() != id ||
			filter.GetPodSandboxId() != "" && filter.GetPodSandboxId() != c.sandbox.status.Id ||
			!labelled(c.status.Labels, filter.GetLabelSelector()) {
			continue
		}
		out = append(out, c.stats(now))
	}
	return out, nil
}

// PodSandboxStats adds up the sandbox's containers.
func (f *Fake) PodSandboxStats(ctx context.Context, sandboxID string) (*cri.PodSandboxStats, error) {
	if err := f.begin(ctx, "PodSandboxStats", sandboxID); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	s := f.sandboxes[sandboxID]
	if s == nil {
		return nil, notFound("sandbox", sandboxID)
	}
	return s.stats(time.Now()), nil
}

// ListPodSandboxStats measures all ready sandboxes.
func (f *Fake) ListPodSandboxStats(ctx context.Context) ([]*cri.PodSandboxStats, error) {
	if err := f.begin(ctx, "ListPodSandboxStats", ""); err != nil {
		return nil, err
	}
	defer f.mu.Unlock()
	now := time.Now()
	var out []*cri.PodSandboxStats
	for _, s := range f.sandboxes {
		if s.status.State == cri.PodSandboxState_SANDBOX_READY {
			out = append(out, s.stats(now))
		}
	}
	return out, nil
}

func (s *fakeSandbox) stats(now time.Time) *cri.PodSandboxStats {
	linux := &cri.LinuxPodSandboxStats{}
	var cpu, cores, memory uint64
	for _, c := range s.containers {
		if c.status.State != cri.ContainerState_CONTAINER_RUNNING {
			continue
		}
		st := c.stats(now)
		linux.Containers = append(linux.Containers, st)
		cpu += st.Cpu.UsageCoreNanoSeconds.Value
		cores += st.Cpu.UsageNanoCores.Value
		memory += st.Memory.WorkingSetBytes.Value
	}
	linux.Cpu, linux.Memory = usage(now, cpu, cores, memory)
	return &cri.PodSandboxStats{
		Attributes: &cri.PodSandboxAttributes{Id: s.status.Id, Metadata: s.status.Metadata, Labels: s.status.Labels, Annotations: s.status.Annotations},
		Linux:      linux,
	}
}

func (c *fakeContainer) stats(now time.Time) *cri.ContainerStats {
	st := &cri.ContainerStats{Attributes: &cri.ContainerAttributes{
		Id: c.status.Id, Metadata: c.status.Metadata, Labels: c.status.Labels, Annotations: c.status.Annotations,
	}}
	if c.status.State != cri.ContainerState_CONTAINER_RUNNING {
		st.Cpu, st.Memory = usage(now, 0, 0, 0)
		return st
	}
	ran := uint64(max(now.UnixNano()-c.status.StartedAt, 0))
	st.Cpu, st.Memory = usage(now, ran/1000*c.does.MilliCPU, c.does.MilliCPU*1_000_000, c.does.MemoryBytes)
	return st
}

func usage(now time.Time, cpuNanoseconds, nanoCores, memory uint64) (*cri.CpuUsage, *cri.MemoryUsage) {
	return &cri.CpuUsage{
			Timestamp:            now.UnixNano(),
			UsageCoreNanoSeconds: &cri.UInt64Value{Value: cpuNanoseconds},
			UsageNanoCores:       &cri.UInt64Value{Value: nanoCores},
		}, &cri.MemoryUsage{
			Timestamp:       now.UnixNano(),
			WorkingSetBytes: &cri.UInt64Value{Value: memory},
			UsageBytes:      &cri.UInt64Value{Value: memory},
			RssBytes:        &cri.UInt64Value{Value: memory},
		}
}
