package images

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/distribution/reference"
	corev1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// minAge is how long an image stays though nobody uses it (KubeletConfiguration's imageMinimumGCAge, by default): it has been pulled or
// imported for a container that is about to be made.
const minAge = 2 * time.Minute

// record is what is known of an image's use.
type record struct {
	seen   time.Time // when it was first noticed; zero if it was there before the agent
	wanted time.Time // when a pod last asked for it
	used   time.Time // when a container or a volume of a pod last had it
}

// Collect notes which images are used, and when the disk is fuller than high percent, removes some that neither a container nor a volume
// of pods uses, the longest unused first, until it is no fuller than low. An image that cannot be removed does not keep the others.
// usage measures the disk, in percent.
func (im *Store) Collect(ctx context.Context, pods []*corev1.Pod, high, low int, usage func() (int, error)) error {
	all, inUse, err := im.inUse(ctx, pods)
	if err != nil {
		return err
	}
	im.mu.Lock()
	im.records = noted(im.records, all, inUse, im.wanted, time.Now())
	clear(im.wanted)
	unused := removable(all, inUse, im.records, time.Now())
	im.mu.Unlock()
	percent, err := usage()
	if err != nil || percent < high {
		return err
	}
	var errs []error
	for _, i := range unused {
		if err := im.Runtime.RemoveImage(ctx, &cri.ImageSpec{Image: i.Id}); err != nil {
			errs = append(errs, fmt.Errorf("removing image %s: %w", i.Id, err))
			continue
		}
		im.Log.Info("removed an unused image: the disk is filling", "image", append(slices.Clone(i.RepoTags), i.RepoDigests...), "bytes", i.Size, "usedPercent", percent)
		if percent, err = usage(); err != nil || percent <= low {
			return errors.Join(append(errs, err)...)
		}
	}
	im.Events.NodeEvent(corev1.EventTypeWarning, "FreeDiskSpaceFailed", fmt.Sprintf("The disk is %d %% full and no image is left that could be removed", percent))
	return errors.Join(errs...)
}

// inUse returns the images, and the IDs and names of those that containers, also ended ones, and volumes of pods have.
func (im *Store) inUse(ctx context.Context, pods []*corev1.Pod) ([]*cri.Image, map[string]bool, error) {
	all, err := im.Runtime.ListImages(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	containers, err := im.Runtime.ListContainers(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	names := map[string]bool{}
	for _, c := range containers {
		names[c.ImageRef], names[c.ImageId] = true, true
		if c.Image != nil {
			names[c.Image.Image] = true
		}
	}
	volumeImages(pods, names)
	return all, names, nil
}

// noted returns the records of the images that are there. Those of the first time are not new.
func noted(before map[string]record, all []*cri.Image, inUse map[string]bool, wanted map[string]time.Time, now time.Time) map[string]record {
	out := make(map[string]record, len(all))
	for _, i := range all {
		r, ok := before[i.Id]
		if !ok && before != nil {
			r.seen = now
		}
		if at, ok := wanted[i.Id]; ok {
			r.wanted, r.used = at, at
		}
		if uses(i, inUse) {
			r.used = now
		}
		out[i.Id] = r
	}
	return out
}

// removable returns the images that may be removed, the longest unused first; of those never used, the one noticed first.
func removable(all []*cri.Image, inUse map[string]bool, records map[string]record, now time.Time) []*cri.Image {
	var out []*cri.Image
	for _, i := range all {
		r := records[i.Id]
		if !i.Pinned && !uses(i, inUse) && now.Sub(r.seen) >= minAge && now.Sub(r.wanted) >= minAge {
			out = append(out, i)
		}
	}
	slices.SortStableFunc(out, func(a, b *cri.Image) int {
		ra, rb := records[a.Id], records[b.Id]
		if c := ra.used.Compare(rb.used); c != 0 {
			return c
		}
		return ra.seen.Compare(rb.seen)
	})
	return out
}

// uses reports whether an image is among those in use, by whatever name.
func uses(i *cri.Image, inUse map[string]bool) bool {
	used := func(name string) bool { return inUse[name] }
	return inUse[i.Id] || slices.ContainsFunc(i.RepoTags, used) || slices.ContainsFunc(i.RepoDigests, used)
}

// volumeImages adds the images that are volumes of pods (KEP-4639).
func volumeImages(pods []*corev1.Pod, inUse map[string]bool) {
	for _, pod := range pods {
		for i := range pod.Spec.Volumes {
			v := pod.Spec.Volumes[i].Image
			if v == nil {
				continue
			}
			inUse[v.Reference] = true // an ID
			if named, err := reference.ParseDockerRef(v.Reference); err == nil {
				inUse[named.String()] = true
			}
		}
	}
}
