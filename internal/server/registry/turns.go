package registry

import (
	"context"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/knarr-io/knarr/internal/api"
)

// turns lets those who read, change and commit one object do so one after the other, in the order in which they came. The store's conditions
// would keep them apart, too, but of all who change the same state one gets on and the others have worked in vain: with 64 of them, 63 times
// in a row. Turns are for speed alone: other servers and the batches' first tries do not take them, and meet at the conditions.
//
// Whoever needs several turns takes them in the order of their keys, so that nobody waits in a circle. A turn of a Pod may be held while one of
// a ResourceQuota is waited for (admission), never the other way round.
type turns struct {
	mu    sync.Mutex
	lines map[string]*line // by full key; only of objects that somebody is changing
}

type line struct {
	turn chan struct{} // holds one value while somebody has the turn
	n    int           // who has the turn or waits for it
}

// wait blocks until it is the caller's turn to change the object at key, or ctx ends. The turn lasts until leave is called.
func (t *turns) wait(ctx context.Context, res *api.Resource, key api.Key) (leave func(), err error) {
	full := res.Table() + res.Key(key)
	t.mu.Lock()
	l := t.lines[full]
	if l == nil {
		if t.lines == nil {
			t.lines = map[string]*line{}
		}
		l = &line{turn: make(chan struct{}, 1)}
		t.lines[full] = l
	}
	l.n++
	t.mu.Unlock()
	select {
	case l.turn <- struct{}{}:
		return func() { <-l.turn; t.leave(full, l) }, nil
	case <-ctx.Done():
		t.leave(full, l)
		return nil, apierrors.NewTimeoutError(fmt.Sprintf("%s %q is being changed by many at once; nothing was done", res.GroupResource(), key.Name), 1)
	}
}

func (t *turns) leave(full string, l *line) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.n--; l.n == 0 {
		delete(t.lines, full)
	}
}

// waitAll is wait for several objects.
func (t *turns) waitAll(ctx context.Context, res *api.Resource, keys []api.Key) (leave func(), err error) {
	keys = slices.Clone(keys)
	slices.SortFunc(keys, func(a, b api.Key) int {
		switch x, y := res.Key(a), res.Key(b); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	var held []func()
	leave = func() {
		for _, f := range held {
			f()
		}
	}
	for _, key := range slices.Compact(keys) {
		f, err := t.wait(ctx, res, key)
		if err != nil {
			leave()
			return nil, err
		}
		held = append(held, f)
	}
	return leave, nil
}

// rounds carries out a bulk write of n objects: round does what is to be done for those that todo lists and returns which of them met somebody
// else's write. The first round takes no turns, for there may be thousands of objects that nobody else writes; those that met somebody take
// theirs for the next.
func (r *Registry) rounds(ctx context.Context, res *api.Resource, results []Result, key func(i int) api.Key, round func(try int, todo []int) (again []int)) {
	todo := make([]int, len(results))
	for i := range todo {
		todo[i] = i
	}
	for try := 0; len(todo) > 0; try++ {
		todo = r.round(ctx, res, results, key, try, todo, round)
	}
}

func (r *Registry) round(ctx context.Context, res *api.Resource, results []Result, key func(i int) api.Key, try int, todo []int,
	round func(try int, todo []int) []int) (again []int) {
	if try > 0 {
		keys := make([]api.Key, len(todo))
		for n, i := range todo {
			keys[n] = key(i)
		}
		leave, err := r.turns.waitAll(ctx, res, keys)
		if err != nil {
			for _, i := range todo {
				results[i] = Result{Err: err}
			}
			return nil
		}
		defer leave()
	}
	return round(try, todo)
}
