package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// LeaderKey is the key that each server writes when it begins to lead. Its revision is the fence that all writes of its
// controllers and scheduler carry: whatever an earlier leader still sends is refused.
const LeaderKey = "/registry/knarr/leader"

// ElectionPrefix is where servers that share an etcd of somebody else stand for leader.
const ElectionPrefix = "/registry/knarr/election"

// Fence is the right to write as the one leader. It is a key of the backend that nobody has written since: every transaction that carries
// the fence is refused once somebody else has taken it, however late it arrives.
type Fence struct {
	key  string
	rev  int64
	once sync.Once
	lost chan struct{}
}

// ErrFenced says that somebody else has taken the fence that a write carried: nothing of it was or will be done.
var ErrFenced = errors.New("another server has become the leader: this one may not act as such any more")

// Lost is closed when a write has been refused because the fence is somebody else's by now.
func (f *Fence) Lost() <-chan struct{} { return f.lost }

func (f *Fence) refused() { f.once.Do(func() { close(f.lost) }) }

// TakeFence writes value to the fence's key, below /registry/ and of no table, and returns when the copy holds everything that those
// who had the fence before have written. A *ConflictError says that somebody else took it at the same moment.
func (s *Store) TakeFence(ctx context.Context, key string, value []byte) (*Fence, error) {
	present := int64(0)
	if _, err := s.backend.Load(ctx, key, func(kv KV) error {
		if kv.Key == key {
			present = kv.Rev
		}
		return nil
	}); err != nil {
		return nil, err
	}
	// Not whatever is there: a write of mine that is under way for long would take the fence from who has it by then.
	rev, err := s.backend.Commit(ctx, []Op{{Key: key, Value: append([]byte{}, value...), If: present}})
	if err != nil {
		return nil, fmt.Errorf("taking %s: %w", key, err)
	}
	if err := s.WaitFor(ctx, rev); err != nil {
		return nil, err
	}
	return &Fence{key: key, rev: rev, lost: make(chan struct{})}, nil
}

type fenceKey struct{}

// WithFence returns a context whose commits carry f.
func WithFence(ctx context.Context, f *Fence) context.Context {
	return context.WithValue(ctx, fenceKey{}, f)
}

func fenceOf(ctx context.Context) *Fence {
	f, _ := ctx.Value(fenceKey{}).(*Fence)
	return f
}

// withFences adds the check of each fence that the batch carries, once, behind its ops.
func withFences(ops []Op, batch []*request) ([]Op, []*Fence) {
	var fences []*Fence
next:
	for _, r := range batch {
		if r.fence == nil {
			continue
		}
		for _, f := range fences {
			if f == r.fence {
				continue next
			}
		}
		fences = append(fences, r.fence)
		ops = append(ops[:len(ops):len(ops)], Op{Key: r.fence.key, If: r.fence.rev, Check: true})
	}
	return ops, fences
}

// answerFenced tells the requests whose fence was refused, which is what the ops from n on tell, and returns the others.
func answerFenced(batch []*request, fences []*Fence, conflict *ConflictError, n int) (rest []*request, refused bool) {
	lost := map[*Fence]bool{}
	for _, i := range conflict.Ops {
		if i >= n {
			fences[i-n].refused()
			lost[fences[i-n]] = true
		}
	}
	if len(lost) == 0 {
		return batch, false
	}
	for _, r := range batch {
		if r.fence != nil && lost[r.fence] {
			r.done <- result{err: ErrFenced}
		} else {
			rest = append(rest, r)
		}
	}
	return rest, true
}
