package controller

import (
	"context"
	"errors"
	"sync"

	"k8s.io/client-go/util/workqueue"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
)

// every watches each resource that w chooses, as long as there is one of them in the catalogue. It returns when ctx ends, or with the error of a watch
// that ended although its resource is served.
func (r *Runner) every(ctx context.Context, w Watch, queue workqueue.TypedRateLimitingInterface[api.Key]) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	type ending struct {
		table string
		err   error
	}
	ended := make(chan ending)
	watched := map[string]bool{} // by table: one that is declared anew goes on, or its watch ends and begins again
	for {
		catalog, changed := r.Client.Served().Catalog()
		for _, res := range catalog.Stored() {
			if watched[res.Table()] {
				continue
			}
			keys := w.Every(res)
			if keys == nil {
				continue
			}
			watched[res.Table()] = true
			wg.Go(func() {
				err := client.FollowOnce(ctx, r.Client, res, client.ListOptions{}, func(b client.Batch) {
					enqueue(Watch{Resource: res, Keys: keys}, b, queue)
				})
				select {
				case ended <- ending{res.Table(), err}:
				case <-ctx.Done():
				}
			})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case e := <-ended:
			if !errors.Is(e.err, client.ErrRetired) {
				return e.err
			}
			delete(watched, e.table)
		}
	}
}
