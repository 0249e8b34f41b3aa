package node

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

// images pulls images for containers and removes unused ones when the disk fills.
type images struct {
	a *Agent

	mu   sync.Mutex
	used map[string]time.Time // by image ID: when a container of it was last started
	gc   time.Time            // when the disk was last looked at
}

func newImages(a *Agent) *images { return &images{a: a, used: map[string]time.Time{}} }

// ensure returns the image of a container, pulling it where its policy says so. Errors are *waitError.
func (im *images) ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container, sandbox *cri.PodSandboxConfig) (*cri.Image, error) {
	named, err := reference.ParseNormalizedNamed(c.Image)
	if err != nil {
		msg := fmt.Sprintf("Failed to apply default image tag %q: couldn't parse image name %q: %v", c.Image, c.Image, err)
		im.a.events.Warning(pod, c.Name, "InspectFailed", msg)
		return nil, &waitError{"InvalidImageName", msg, time.Minute}
	}
	ref := reference.TagNameOnly(named).String()
	spec := &cri.ImageSpec{Image: ref, UserSpecifiedImage: c.Image}
	have, err := im.a.rt.ImageStatus(ctx, spec)
	if err != nil {
		msg := fmt.Sprintf("Failed to inspect image %q: %v", c.Image, err)
		im.a.events.Warning(pod, c.Name, "InspectFailed", msg)
		return nil, &waitError{"ImageInspectError", msg, configRetry}
	}
	switch {
	case c.ImagePullPolicy == corev1.PullNever && have == nil:
		msg := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		im.a.events.Warning(pod, c.Name, "ErrImageNeverPull", msg)
		return nil, &waitError{lifecycle.ReasonErrImageNeverPull, msg, configRetry}
	case have != nil && c.ImagePullPolicy != corev1.PullAlways:
		im.a.events.Normal(pod, c.Name, "Pulled", fmt.Sprintf("Container image %q already present on machine", c.Image))
		im.touch(have.Id)
		return have, nil
	}
	return im.pull(ctx, pod, c, spec, sandbox)
}

// ensureVolumes does the same for the images that are volumes of the pod (KEP-4639), and returns what the runtime calls them by what
// the pod does. As with a container's own image, the pull policy is followed at each start.
func (im *images) ensureVolumes(ctx context.Context, pod *corev1.Pod, sandbox *cri.PodSandboxConfig) (map[string]string, error) {
	var out map[string]string
	for i := range pod.Spec.Volumes {
		v := pod.Spec.Volumes[i].Image
		if v == nil {
			continue
		}
		have, err := im.ensure(ctx, pod, &corev1.Container{Image: v.Reference, ImagePullPolicy: v.PullPolicy}, sandbox)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]string{}
		}
		out[v.Reference] = have.Id
	}
	return out, nil
}

// volumeImages adds the images that are volumes of this node's pods.
func (a *Agent) volumeImages(inUse map[string]bool) {
	a.mu.Lock()
	workers := a.snapshot()
	a.mu.Unlock()
	for _, w := range workers {
		w.mu.Lock()
		pod := w.pod
		w.mu.Unlock()
		for i := range pod.Spec.Volumes {
			v := pod.Spec.Volumes[i].Image
			if v == nil {
				continue
			}
			if named, err := reference.ParseNormalizedNamed(v.Reference); err == nil {
				inUse[reference.TagNameOnly(named).String()] = true
			}
		}
	}
}

// pull pulls with each credential that fits, and without if there is none.
func (im *images) pull(ctx context.Context, pod *corev1.Pod, c *corev1.Container, spec *cri.ImageSpec, sandbox *cri.PodSandboxConfig) (*cri.Image, error) {
	im.a.events.Normal(pod, c.Name, "Pulling", fmt.Sprintf("Pulling image %q", c.Image))
	began := time.Now()
	auths := im.a.sources.credentials(ctx, pod, spec.Image)
	if len(auths) == 0 {
		auths = []*cri.AuthConfig{nil}
	}
	var err error
	var ref string
	for _, auth := range auths {
		if ref, err = im.a.rt.PullImage(ctx, spec, auth, sandbox); err == nil {
			break
		}
	}
	if err != nil {
		msg := fmt.Sprintf("failed to pull image %q: %v", c.Image, err)
		if ctx.Err() == nil {
			im.a.events.Warning(pod, c.Name, "Failed", fmt.Sprintf("Failed to pull image %q: %v", c.Image, err))
			im.a.events.Warning(pod, c.Name, "Failed", "Error: "+lifecycle.ReasonErrImagePull)
		}
		return nil, &waitError{lifecycle.ReasonErrImagePull, msg, configRetry}
	}
	have, err := im.a.rt.ImageStatus(ctx, &cri.ImageSpec{Image: ref})
	if err != nil || have == nil {
		return nil, &waitError{lifecycle.ReasonErrImagePull, fmt.Sprintf("image %q vanished after it was pulled (%v)", c.Image, err), configRetry}
	}
	took := time.Since(began).Round(time.Millisecond)
	im.a.events.Normal(pod, c.Name, "Pulled", fmt.Sprintf("Successfully pulled image %q in %s (%s including waiting). Image size: %d bytes.", c.Image, took, took, have.Size))
	im.touch(have.Id)
	return have, nil
}

func (im *images) touch(id string) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.used[id] = time.Now()
}

// collect removes images that no container uses, the longest unused first, when the disk is fuller than high percent, until it is less
// full than low. usage measures the disk, in percent.
func (im *images) collect(ctx context.Context, high, low int, usage func() (int, error)) error {
	now, err := usage()
	if err != nil || now < high {
		return err
	}
	all, err := im.a.rt.ListImages(ctx, nil)
	if err != nil {
		return err
	}
	containers, err := im.a.rt.ListContainers(ctx, nil)
	if err != nil {
		return err
	}
	inUse := map[string]bool{}
	for _, c := range containers {
		inUse[c.ImageRef], inUse[c.ImageId] = true, true
		if c.Image != nil {
			inUse[c.Image.Image] = true
		}
	}
	im.a.volumeImages(inUse)
	im.mu.Lock()
	unused := leastRecent(all, inUse, im.used)
	im.mu.Unlock()
	for _, i := range unused {
		if err := im.a.rt.RemoveImage(ctx, &cri.ImageSpec{Image: i.Id}); err != nil {
			return fmt.Errorf("removing image %s: %w", i.Id, err)
		}
		im.a.log.Info("removed an unused image: the disk is filling", "image", i.RepoTags, "bytes", i.Size, "usedPercent", now)
		if now, err = usage(); err != nil || now <= low {
			return err
		}
	}
	im.a.events.NodeEvent(corev1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf("The disk is %d %% full and no image is left that could be removed", now))
	return nil
}

// leastRecent returns the images that may be removed, the longest unused first.
func leastRecent(all []*cri.Image, inUse map[string]bool, used map[string]time.Time) []*cri.Image {
	var out []*cri.Image
	for _, i := range all {
		keep := i.Pinned || inUse[i.Id]
		for _, n := range append(append([]string(nil), i.RepoTags...), i.RepoDigests...) {
			keep = keep || inUse[n]
		}
		if !keep {
			out = append(out, i)
		}
	}
	sort.SliceStable(out, func(a, b int) bool { return used[out[a].Id].Before(used[out[b].Id]) })
	return out
}
