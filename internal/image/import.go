package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	archives "github.com/containerd/containerd/v2/core/images/archive"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/archive/compression"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Import adds the images of an archive (OCI layout or docker save, also compressed), unpacks them, and returns them when the CRI knows
// them as it knows images that it pulled: by tag, digest and ID. With a name, the archive's only image gets that name.
//
// It is all or nothing. Names are recorded when all content of all images is there and unpacked, so that pods never see half an image,
// also when this process is killed. After an error the names stand for what they stood for before, and what was received is left to the
// runtime's garbage collector.
func (s *Store) Import(ctx context.Context, r io.Reader, name string) (_ []Stored, err error) {
	ctx = namespaces.WithNamespace(ctx, Namespace)
	// The lease keeps the garbage collector from what is not named yet. It ends by itself, should this process be killed.
	manager := s.client.LeasesService()
	lease, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(24*time.Hour))
	if err != nil {
		return nil, fmt.Errorf("creating a lease: %w", err)
	}
	defer func() { err = errors.Join(err, endLease(context.WithoutCancel(ctx), manager, lease)) }()
	ctx = leases.WithLease(ctx, lease.ID)

	all, err := s.receive(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("reading the archive: %w", err)
	}
	images, err := choose(all, name, platforms.Default())
	if err != nil {
		return nil, err
	}
	stored := make([]Stored, len(images))
	for i, c := range images {
		if stored[i], err = s.prepare(ctx, c); err != nil {
			return nil, fmt.Errorf("image %s: %w", c.name, err)
		}
	}
	t := &transaction{store: s.client.ImageService()}
	if err := s.record(ctx, t, images, stored); err != nil {
		return nil, errors.Join(err, t.undo(context.WithoutCancel(ctx)))
	}
	return stored, nil
}

func endLease(ctx context.Context, manager leases.Manager, lease leases.Lease) error {
	if err := manager.Delete(ctx, lease); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("ending the lease: %w", err)
	}
	return nil
}

// receive puts the archive's blobs into the content store and returns what its index lists.
func (s *Store) receive(ctx context.Context, r io.Reader) ([]candidate, error) {
	plain, err := compression.DecompressStream(r)
	if err != nil {
		return nil, err
	}
	defer plain.Close()
	in := newIngest(s.client.ContentStore())
	index, err := archives.ImportIndex(ctx, in, plain)
	if err != nil {
		return nil, errors.Join(err, in.abort(context.WithoutCancel(ctx)))
	}
	data, err := content.ReadBlob(ctx, in, index)
	if err != nil {
		return nil, err
	}
	var listed ocispec.Index
	if err := json.Unmarshal(data, &listed); err != nil {
		return nil, fmt.Errorf("index.json: %w", err)
	}
	var out []candidate
	for _, d := range listed.Manifests {
		if !images.IsManifestType(d.MediaType) && !images.IsIndexType(d.MediaType) {
			if n := nameOf(d); n != "" {
				return nil, fmt.Errorf("%s is of type %q, which is no image", n, d.MediaType)
			}
			continue
		}
		p, err := s.platformsOf(ctx, d)
		if err != nil {
			return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
		}
		out = append(out, candidate{target: d, platforms: p})
	}
	return out, nil
}

// platformsOf returns the platforms of an image, or of the images in an index. What the images of an index lack does not matter unless
// they are the ones for this machine: an archive may hold one platform of several.
func (s *Store) platformsOf(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Platform, error) {
	if d.Platform != nil && images.IsManifestType(d.MediaType) {
		return []ocispec.Platform{*d.Platform}, nil
	}
	children, err := images.Children(ctx, s.client.ContentStore(), d)
	if err != nil {
		return nil, explained(err, d)
	}
	if images.IsManifestType(d.MediaType) {
		p, err := images.ConfigPlatform(ctx, s.client.ContentStore(), children[0])
		if err != nil {
			return nil, explained(err, children[0])
		}
		if p.OS == "" && p.Architecture == "" {
			return nil, nil
		}
		return []ocispec.Platform{p}, nil
	}
	var all []ocispec.Platform
	for _, c := range children {
		p, err := s.platformsOf(ctx, c)
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, err
		}
		all = append(all, p...)
	}
	return all, nil
}

// explained says which blob is missing.
func explained(err error, d ocispec.Descriptor) error {
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("content %s is missing: %w", d.Digest, errdefs.ErrNotFound)
	}
	return err
}

// prepare makes an image complete and unpacked, without a name yet.
func (s *Store) prepare(ctx context.Context, c chosen) (Stored, error) {
	store, machine := s.client.ContentStore(), platforms.Default()
	// The labels make each blob keep those that it refers to.
	handler := images.SetChildrenLabels(store, images.LimitManifests(images.FilterPlatforms(images.ChildrenHandler(store), machine), machine, 1))
	if err := images.Walk(ctx, handler, c.target); err != nil {
		return Stored{}, explained(err, c.target)
	}
	img := images.Image{Name: c.name, Target: c.target}
	st := s.inspect(ctx, img)
	if st.Problem != nil {
		return Stored{}, st.Problem
	}
	if err := client.NewImage(s.client, img).Unpack(ctx, ""); err != nil {
		return Stored{}, fmt.Errorf("unpacking: %w", err)
	}
	return st, nil
}

// record writes the records of images as CRI's PullImage does, and waits until the CRI has read them.
func (s *Store) record(ctx context.Context, t *transaction, images []chosen, stored []Stored) error {
	for i, c := range images {
		names, err := recordNames(c.name, c.target.Digest, digest.Digest(stored[i].ID))
		if err != nil {
			return err
		}
		for _, n := range names {
			if err := t.put(ctx, n, c.target); err != nil {
				return err
			}
		}
		record, err := s.client.ImageService().Get(ctx, c.name)
		if err != nil {
			return fmt.Errorf("reading the record %s: %w", c.name, err)
		}
		stored[i].Created = record.CreatedAt
		if err := s.waitForCRI(ctx, stored[i].ID, names); err != nil {
			return err
		}
	}
	return nil
}
