package registry

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

// Space says whether there is room for a write. Admit returns why there is none. Essential writes are those that keep nodes and pods alive, or
// make room; they are taken for longer.
type Space interface {
	Admit(essential bool) error
}

// roomFor returns ServiceUnavailable where there is no room for a write.
func (r *Registry) roomFor(essential bool) error {
	if r.space == nil {
		return nil
	}
	if err := r.space.Admit(essential); err != nil {
		return apierrors.NewServiceUnavailable(err.Error())
	}
	return nil
}

// essential reports whether the update of current, or of its subresource sub, or the creation of a new object (nil), is one that keeps nodes and
// pods alive or makes room: leases, statuses, nodes (taints that keep pods away, draining), scales, and whatever ends what is being deleted.
func essential(ctx context.Context, res *api.Resource, sub string, current api.Object) bool {
	switch {
	case ctx.Value(essentialKey{}) != nil, res == api.Leases, sub == "status", sub == "scale":
		return true
	case current == nil:
		return false
	}
	return res == api.Nodes || current.GetDeletionTimestamp() != nil
}

type essentialKey struct{}

// Essential returns a context whose writes are essential: those few without which a server cannot serve.
func Essential(ctx context.Context) context.Context {
	return context.WithValue(ctx, essentialKey{}, true)
}
