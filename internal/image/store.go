package image

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/errdefs"
	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Namespace is the containerd namespace in which CRI has its images and containers.
const Namespace = "k8s.io"

// Store is the runtime's image store.
type Store struct {
	client *client.Client
	cri    imageStatuses // nil if no CRI reads this store
}

// imageStatuses is the part of the CRI that reports whether it knows an image.
type imageStatuses interface {
	ImageStatus(ctx context.Context, r *cri.ImageStatusRequest, opts ...grpc.CallOption) (*cri.ImageStatusResponse, error)
}

// OpenStore connects to the containerd that listens at socket. Close it.
func OpenStore(socket string) (*Store, error) {
	c, err := client.New(socket, client.WithDefaultNamespace(Namespace), client.WithTimeout(10*time.Second))
	if err != nil {
		return nil, fmt.Errorf("connecting to containerd at %s: %w", socket, err)
	}
	s := &Store{client: c}
	if conn, ok := c.Conn().(grpc.ClientConnInterface); ok {
		s.cri = cri.NewImageServiceClient(conn)
	}
	return s, nil
}

// Close ends the connection.
func (s *Store) Close() error { return s.client.Close() }

// SetDefaultSnapshotter sets what unpacks images when nobody names a snapshotter, as Import does not.
func (s *Store) SetDefaultSnapshotter(ctx context.Context, snapshotter string) error {
	service := s.client.NamespaceService()
	err := service.Create(ctx, Namespace, nil)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return err
	}
	return service.SetLabel(ctx, Namespace, "containerd.io/defaults/snapshotter", snapshotter)
}

// isID reports whether a record's name is an image ID, the digest of the image's configuration.
func isID(record string) bool { return strings.HasPrefix(record, "sha256:") }

// repository returns the part of a record's name before the tag or digest, and whether it is a digest that follows.
func repository(record string) (repo string, digested bool) {
	if repo, _, ok := strings.Cut(record, "@"); ok {
		return repo, true
	}
	if i := strings.LastIndexByte(record, ':'); i > strings.LastIndexByte(record, '/') {
		return record[:i], false
	}
	return record, false
}
