package image

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
)

// Stored is an image in the runtime, by one of its names.
type Stored struct {
	Name    string
	ID      string // the digest of the configuration, by which the CRI knows the image; "" if it cannot be read
	Digest  string // of the manifest or index
	Size    int64  // in bytes, of what would be transferred: compressed layers, configuration, manifest
	Created time.Time
	// Problem is what keeps the image from being used; nil if nothing does.
	Problem error
}

// List returns the images by name: every tag, a digest where no tag of its repository stands for the same, and an ID where an image
// has no other name. An image whose content is damaged is among them, with its Problem.
func (s *Store) List(ctx context.Context) ([]Stored, error) {
	all, err := s.all(namespaces.WithNamespace(ctx, Namespace))
	if err != nil {
		return nil, err
	}
	return listed(all), nil
}

// all returns what every record stands for.
func (s *Store) all(ctx context.Context) ([]Stored, error) {
	records, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing images: %w", err)
	}
	out := make([]Stored, len(records))
	for i, r := range records {
		out[i] = s.inspect(ctx, r)
	}
	return out, nil
}

// listed leaves out the records that only repeat others by digest or ID.
func listed(all []Stored) []Stored {
	type key struct{ repo, digest string }
	tagged, named := map[key]bool{}, map[string]bool{}
	for _, st := range all {
		if isID(st.Name) {
			continue
		}
		named[st.key()] = true
		if repo, digested := repository(st.Name); !digested {
			tagged[key{repo, st.Digest}] = true
		}
	}
	var out []Stored
	for _, st := range all {
		repo, digested := repository(st.Name)
		if isID(st.Name) && named[st.key()] || !isID(st.Name) && digested && tagged[key{repo, st.Digest}] {
			continue
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Stored) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// key is the same for all records of an image: its ID, or the digest of what they stand for if that cannot be read.
func (st Stored) key() string { return cmp.Or(st.ID, st.Digest) }

// Get returns one image by tag, repository and digest, or ID; ok reports whether it is there.
func (s *Store) Get(ctx context.Context, name string) (st Stored, ok bool, err error) {
	if _, notID := digest.Parse(name); notID != nil {
		if name, err = Normalize(name); err != nil {
			return Stored{}, false, err
		}
	}
	ctx = namespaces.WithNamespace(ctx, Namespace)
	i, err := s.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return Stored{}, false, nil
	} else if err != nil {
		return Stored{}, false, fmt.Errorf("image %s: %w", name, err)
	}
	return s.inspect(ctx, i), true, nil
}

// inspect returns what a record stands for, and what of it is missing or is not what it claims to be.
func (s *Store) inspect(ctx context.Context, i images.Image) Stored {
	st := Stored{Name: i.Name, Digest: i.Target.Digest.String(), Created: i.CreatedAt}
	store, machine := s.client.ContentStore(), platforms.Default()
	manifest, err := images.Manifest(ctx, store, i.Target, machine)
	if err != nil {
		st.Problem = fmt.Errorf("reading the manifest: %w", explained(err, i.Target))
		return st
	}
	st.ID = manifest.Config.Digest.String()
	for _, d := range append(slices.Clone(manifest.Layers), manifest.Config) {
		info, err := store.Info(ctx, d.Digest)
		switch {
		case err != nil:
			st.Problem = explained(err, d)
		case info.Size != d.Size:
			st.Problem = fmt.Errorf("content %s has %d bytes, its manifest says %d", d.Digest, info.Size, d.Size)
		}
		if st.Problem != nil {
			return st
		}
	}
	if st.Size, err = client.NewImage(s.client, i).Size(ctx); err != nil {
		st.Problem = fmt.Errorf("adding up the size: %w", err)
	}
	return st
}
