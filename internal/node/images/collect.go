package images

import (
	"context"
	"fmt"
	"sort"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Collect removes images that neither a container uses nor a volume of pods, the longest unused first, when the disk is fuller than high percent, until it is less
// full than low. usage measures the disk, in percent.
func (im *Store) Collect(ctx context.Context, pods []*corev1.Pod, high, low int, usage func() (int, error)) error {
	now, err := usage()
	if err != nil || now < high {
		return err
	}
	all, err := im.Runtime.ListImages(ctx, nil)
	if err != nil {
		return err
	}
	containers, err := im.Runtime.ListContainers(ctx, nil)
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
	volumeImages(pods, inUse)
	im.mu.Lock()
	unused := leastRecent(all, inUse, im.used)
	im.mu.Unlock()
	for _, i := range unused {
		if err := im.Runtime.RemoveImage(ctx, &cri.ImageSpec{Image: i.Id}); err != nil {
			return fmt.Errorf("removing image %s: %w", i.Id, err)
		}
		im.Log.Info("removed an unused image: the disk is filling", "image", i.RepoTags, "bytes", i.Size, "usedPercent", now)
		if now, err = usage(); err != nil || now <= low {
			return err
		}
	}
	im.Events.NodeEvent(corev1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf("The disk is %d %% full and no image is left that could be removed", now))
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

// volumeImages adds the images that are volumes of pods (KEP-4639).
func volumeImages(pods []*corev1.Pod, inUse map[string]bool) {
	for _, pod := range pods {
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
