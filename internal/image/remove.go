package image

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
)

// Remove removes an image by a tag, by repository and digest, or by an ID or digest alone, which may be shortened. A tag takes the
// digest of its repository with it, and the last name its image; an ID takes all names. What no other image needs is collected at
// once. Containers that run from it go on.
func (s *Store) Remove(ctx context.Context, name string) error {
	ctx = namespaces.WithNamespace(ctx, Namespace)
	all, err := s.all(ctx)
	if err != nil {
		return err
	}
	records, err := removed(all, name)
	if err != nil {
		return err
	}
	for k, r := range records {
		var opts []images.DeleteOpt
		if k == len(records)-1 {
			opts = append(opts, images.SynchronousDelete())
		}
		if err := s.client.ImageService().Delete(ctx, r, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("removing the record %s: %w", r, err)
		}
	}
	return nil
}

// shortID is what may be the beginning of an ID or digest.
var shortID = regexp.MustCompile(`^(sha256:)?[0-9a-f]{6,64}$`)

// removed returns the records that go with a name, the one that was named last, so that a removal that was interrupted can be repeated.
func removed(all []Stored, name string) ([]string, error) {
	full, normErr := Normalize(name)
	gone := map[string]bool{}
	keys := map[string]bool{}
	if normErr == nil {
		repo, digested := repository(full)
		_, digest, _ := strings.Cut(full, "@")
		for _, st := range all {
			if r, _ := repository(st.Name); st.Name == full || digested && !isID(st.Name) && r == repo && st.Digest == digest {
				gone[st.Name], keys[st.key()] = true, true
			}
		}
	}
	if len(gone) == 0 && shortID.MatchString(name) {
		prefix := "sha256:" + strings.TrimPrefix(name, "sha256:")
		for _, st := range all {
			if strings.HasPrefix(st.key(), prefix) || strings.HasPrefix(st.Digest, prefix) {
				keys[st.key()] = true
			}
		}
		if len(keys) > 1 {
			return nil, fmt.Errorf("several images begin with %s", name)
		}
		for _, st := range all {
			gone[st.Name] = keys[st.key()]
		}
	}
	if len(keys) == 0 {
		if normErr != nil && !shortID.MatchString(name) {
			return nil, normErr
		}
		return nil, fmt.Errorf("image %s: %w", name, errdefs.ErrNotFound)
	}
	orphans(all, keys, gone)
	return inOrder(all, gone), nil
}

// orphans adds to gone the records of the images that stand for nothing once those in gone are removed: a digest without a tag of its
// repository, if it was such a tag that went, and an ID without any name.
func orphans(all []Stored, keys, gone map[string]bool) {
	type name struct{ repo, digest string }
	before, after, named := map[name]bool{}, map[name]bool{}, map[string]bool{}
	for _, st := range all {
		if repo, digested := repository(st.Name); !isID(st.Name) && !digested {
			before[name{repo, st.Digest}] = true
			after[name{repo, st.Digest}] = after[name{repo, st.Digest}] || !gone[st.Name]
		}
	}
	for _, st := range all {
		repo, digested := repository(st.Name)
		n := name{repo, st.Digest}
		if digested && keys[st.key()] && before[n] && !after[n] {
			gone[st.Name] = true
		}
		if !isID(st.Name) && !gone[st.Name] {
			named[st.key()] = true
		}
	}
	for _, st := range all {
		if isID(st.Name) && keys[st.key()] && !named[st.key()] {
			gone[st.Name] = true
		}
	}
}

// inOrder returns the records that are gone: IDs, then digests, then tags.
func inOrder(all []Stored, gone map[string]bool) []string {
	var ids, digests, tags []string
	for _, st := range all {
		_, digested := repository(st.Name)
		switch {
		case !gone[st.Name]:
		case isID(st.Name):
			ids = append(ids, st.Name)
		case digested:
			digests = append(digests, st.Name)
		default:
			tags = append(tags, st.Name)
		}
	}
	return slices.Concat(ids, digests, tags)
}
