package image

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
)

// ingest is the content store as one import writes to it. containerd names a blob that is being received after its file in the archive
// and goes on where an earlier one of that name stopped. Here the names are the import's own: a blob never begins with what an import of
// another archive left behind, and two imports do not wait for each other.
type ingest struct {
	content.Store
	prefix string
	refs   []string
}

func newIngest(s content.Store) *ingest {
	return &ingest{Store: s, prefix: "import-" + rand.Text() + "-"}
}

// Writer begins a blob.
func (i *ingest) Writer(ctx context.Context, opts ...content.WriterOpt) (content.Writer, error) {
	var o content.WriterOpts
	for _, opt := range opts {
		if err := opt(&o); err != nil {
			return nil, err
		}
	}
	ref := i.prefix + o.Ref
	i.refs = append(i.refs, ref)
	return i.Store.Writer(ctx, content.WithRef(ref), content.WithDescriptor(o.Desc))
}

// abort drops the blobs that were begun and not finished.
func (i *ingest) abort(ctx context.Context) error {
	var errs []error
	for _, ref := range i.refs {
		if err := i.Abort(ctx, ref); err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
