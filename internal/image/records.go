package image

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// managedLabel marks a record as one that CRI has taken notice of.
const managedLabel = "io.cri-containerd.image"

// recordNames returns the names under which CRI's PullImage records an image: its ID, by which containers and image volumes refer to it,
// the repository with the digest, and the tag. name is normalised.
func recordNames(name string, target, id digest.Digest) ([]string, error) {
	named, err := reference.ParseNamed(name)
	if err != nil {
		return nil, fmt.Errorf("image name %q: %w", name, err)
	}
	if canonical, ok := named.(reference.Canonical); ok {
		if canonical.Digest() != target {
			return nil, fmt.Errorf("image name %q: the image has the digest %s", name, target)
		}
		return []string{id.String(), name}, nil
	}
	return []string{id.String(), named.Name() + "@" + target.String(), name}, nil
}

// transaction writes image records, and undoes what it wrote. containerd has no transaction over several records.
type transaction struct {
	store images.Store
	done  []change
}

// change is a record that was written. before is nil if there was none of its name.
type change struct {
	before *images.Image
	after  images.Image
}

// put writes a record, in place of what the name stood for.
func (t *transaction) put(ctx context.Context, name string, target ocispec.Descriptor) error {
	after := images.Image{Name: name, Target: target, Labels: map[string]string{managedLabel: "managed"}}
	before, err := t.store.Get(ctx, name)
	switch {
	case errdefs.IsNotFound(err):
		if _, err = t.store.Create(ctx, after); err == nil {
			t.done = append(t.done, change{after: after})
		}
	case err == nil:
		if before.Target.Digest == target.Digest && before.Labels[managedLabel] == after.Labels[managedLabel] {
			return nil
		}
		// Other labels stay, such as the one that pins an image.
		if _, err = t.store.Update(ctx, after, "target", "labels."+managedLabel); err == nil {
			t.done = append(t.done, change{before: &before, after: after})
		}
	}
	if err != nil {
		return fmt.Errorf("recording %s: %w", name, err)
	}
	return nil
}

// undo gives every record back what it had, the last first. It leaves alone what somebody else has written since.
func (t *transaction) undo(ctx context.Context) error {
	var errs []error
	for i := len(t.done) - 1; i >= 0; i-- {
		c := t.done[i]
		now, err := t.store.Get(ctx, c.after.Name)
		if errdefs.IsNotFound(err) || err == nil && now.Target.Digest != c.after.Target.Digest {
			continue
		}
		if err == nil && c.before != nil {
			_, err = t.store.Update(ctx, *c.before, "target", "labels")
		} else if err == nil {
			err = t.store.Delete(ctx, c.after.Name)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("taking back the record %s: %w", c.after.Name, err))
		}
	}
	t.done = nil
	return errors.Join(errs...)
}
