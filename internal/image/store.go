package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Namespace is the containerd namespace in which CRI has its images and containers.
const Namespace = "k8s.io"

// managedLabel marks an image as one that CRI looks after.
const managedLabel = "io.cri-containerd.image"

// Stored is an image in the runtime.
type Stored struct {
	Name    string
	Digest  string // of the manifest or index
	Size    int64  // of what would be transferred: compressed layers, configuration, manifest
	Created time.Time
}

// Store is the runtime's image store.
type Store struct {
	client *client.Client
}

// OpenStore connects to the containerd that listens at socket. Close it.
func OpenStore(socket string) (*Store, error) {
	c, err := client.New(socket, client.WithDefaultNamespace(Namespace), client.WithTimeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connect to containerd at %s: %w", socket, err)
	}
	return &Store{c}, nil
}

// Close releases the connection.
func (s *Store) Close() error { return s.client.Close() }

// Import reads an archive (OCI image layout or docker save), unpacks its images for this machine's platform, and returns
// them when the CRI knows them, so that a pod that names one starts at once.
func (s *Store) Import(ctx context.Context, archive io.Reader) ([]Stored, error) {
	ctx = namespaces.WithNamespace(ctx, Namespace)
	// The lease keeps the garbage collector from what is not named yet.
	ctx, done, err := s.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	defer func() { _ = done(context.WithoutCancel(ctx)) }()
	imported, err := s.client.Import(ctx, archive, client.WithImageLabels(map[string]string{managedLabel: "managed"}))
	if err != nil {
		return nil, fmt.Errorf("import images: %w", err)
	}
	if len(imported) == 0 {
		return nil, errors.New("import images: the archive names no image")
	}
	var stored []Stored
	for _, i := range imported {
		img := client.NewImage(s.client, i)
		if err := img.Unpack(ctx, ""); err != nil {
			return nil, fmt.Errorf("unpack image %s: %w", i.Name, err)
		}
		st, err := s.stored(ctx, i)
		if err != nil {
			return nil, err
		}
		stored = append(stored, st)
	}
	return stored, s.waitForCRI(ctx, imported)
}

// waitForCRI waits until the CRI, which hears of images by events, knows them.
func (s *Store) waitForCRI(ctx context.Context, imported []images.Image) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, ok := s.client.Conn().(*grpc.ClientConn)
	if !ok {
		return nil // a client in the same process; there is no CRI to ask
	}
	service := cri.NewImageServiceClient(conn)
	for _, i := range imported {
		for {
			r, err := service.ImageStatus(ctx, &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: i.Name}})
			if err != nil {
				return fmt.Errorf("image %s is stored, but the CRI does not answer: %w", i.Name, err)
			}
			if refersTo(r.GetImage(), i.Target.Digest.String()) {
				break
			}
			select {
			case <-ctx.Done():
				return fmt.Errorf("image %s is stored, but the CRI does not know it yet: %w", i.Name, ctx.Err())
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return nil
}

// refersTo tells whether the CRI's image is the one with the digest, and not an older one of the same name.
func refersTo(i *cri.Image, digest string) bool {
	return i != nil && (i.Id == digest || len(i.RepoDigests) == 0 ||
		slices.ContainsFunc(i.RepoDigests, func(ref string) bool { return strings.HasSuffix(ref, "@"+digest) }))
}

// List returns the images by name. Those that only repeat another by its ID or digest are left out.
func (s *Store) List(ctx context.Context) ([]Stored, error) {
	ctx = namespaces.WithNamespace(ctx, Namespace)
	all, err := s.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	var out []Stored
	for _, i := range all {
		if !isName(i.Name) {
			continue
		}
		st, err := s.stored(ctx, i)
		if err != nil {
			return nil, err
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b Stored) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Get returns one image by its name; ok tells whether it is there.
func (s *Store) Get(ctx context.Context, name string) (st Stored, ok bool, err error) {
	name, err = Normalize(name)
	if err != nil {
		return Stored{}, false, err
	}
	ctx = namespaces.WithNamespace(ctx, Namespace)
	i, err := s.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return Stored{}, false, nil
	} else if err != nil {
		return Stored{}, false, fmt.Errorf("image %s: %w", name, err)
	}
	st, err = s.stored(ctx, i)
	return st, err == nil, err
}

// Remove removes an image and all names of it that are IDs or digests; what no other image needs is collected at once.
// Containers that run from it go on.
func (s *Store) Remove(ctx context.Context, name string) error {
	name, err := Normalize(name)
	if err != nil {
		return err
	}
	ctx = namespaces.WithNamespace(ctx, Namespace)
	service := s.client.ImageService()
	i, err := service.Get(ctx, name)
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	all, err := service.List(ctx, "target.digest=="+i.Target.Digest.String())
	if err != nil {
		return fmt.Errorf("image %s: %w", name, err)
	}
	names := []string{name}
	if !slices.ContainsFunc(all, func(o images.Image) bool { return o.Name != name && isName(o.Name) }) {
		for _, o := range all {
			if o.Name != name {
				names = append([]string{o.Name}, names...)
			}
		}
	}
	for k, n := range names {
		var opts []images.DeleteOpt
		if k == len(names)-1 {
			opts = append(opts, images.SynchronousDelete())
		}
		if err := service.Delete(ctx, n, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", n, err)
		}
	}
	return nil
}

// isName tells a name that somebody gave from an ID or digest.
func isName(n string) bool { return !strings.HasPrefix(n, "sha256:") && !strings.Contains(n, "@") }

// SetDefaultSnapshotter says what unpacks images when nobody says otherwise, which is so for Import.
func (s *Store) SetDefaultSnapshotter(ctx context.Context, snapshotter string) error {
	service := s.client.NamespaceService()
	err := service.Create(ctx, Namespace, nil)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return service.SetLabel(ctx, Namespace, "containerd.io/defaults/snapshotter", snapshotter)
}

func (s *Store) stored(ctx context.Context, i images.Image) (Stored, error) {
	size, err := client.NewImage(s.client, i).Size(ctx)
	if err != nil {
		return Stored{}, fmt.Errorf("size of image %s: %w", i.Name, err)
	}
	return Stored{Name: i.Name, Digest: i.Target.Digest.String(), Size: size, Created: i.CreatedAt}, nil
}
