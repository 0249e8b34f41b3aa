package registry

import (
	"context"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/request"
)

// Admit asks admission about what is not a write of an object itself: a binding, an eviction, a token, a connection. The user is that
// of ctx.
func (r *Registry) Admit(ctx context.Context, a *admission.Attributes) error {
	a.User = request.From(ctx).User
	if err := r.admission.Admit(ctx, a); err != nil {
		return err
	}
	return r.admission.Validate(ctx, a)
}

// admit lets admission change the object that is created, and packs what has come of it.
func (r *Registry) admit(ctx context.Context, a *admission.Attributes) error {
	if err := r.admission.Admit(ctx, a); err != nil {
		return err
	}
	if err := a.Resource.Pack(a.Object); err != nil {
		return apierrors.NewBadRequest(err.Error())
	}
	return nil
}

// admissionsAtOnce bounds how many objects of a batch are admitted at the same time.
const admissionsAtOnce = 16

// each calls do for 0 to n-1: one after the other where admission reads the copy only, which takes microseconds; several at a time
// where a plugin asks somebody else over the network.
func (r *Registry) each(n int, do func(i int)) {
	if n < 2 || !r.admission.Remote() {
		for i := range n {
			do(i)
		}
		return
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, admissionsAtOnce)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			do(i)
		})
	}
	wg.Wait()
}
