package image

import (
	"context"
	"fmt"
	"slices"
	"time"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// criPatience is how long the CRI may take to hear of an image.
const criPatience = 10 * time.Second

// waitForCRI waits until the CRI, which hears of images by events, knows an image by all names of its records.
func (s *Store) waitForCRI(ctx context.Context, id string, names []string) error {
	if s.cri == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, criPatience)
	defer cancel()
	for _, n := range names {
		for {
			r, err := s.cri.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: n}})
			if err != nil {
				return fmt.Errorf("asking the CRI for image %s: %w", n, err)
			}
			if refersTo(r.GetImage(), id, n) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("waiting for the CRI to know image %s: %w", n, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// refersTo reports whether the CRI's image is the one with the ID, and not an older one of the same name, and has the name.
func refersTo(i *cri.Image, id, name string) bool {
	return i != nil && i.Id == id && (name == id || slices.Contains(i.RepoTags, name) || slices.Contains(i.RepoDigests, name))
}
