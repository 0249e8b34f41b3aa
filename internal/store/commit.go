package store

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Mutation writes Object at Key of Table, or deletes what is there when Object is nil, provided that what is there has
// revision If (0: nothing there; Any: no matter).
//
// Without a Table it writes the bytes Raw (nil deletes) at the full key Key, which no table holds: a reservation that must be
// taken or given back in the same transaction as an object.
type Mutation struct {
	Table  *Table
	Key    string
	Object Object // the store's from now on, even if it refuses it: it sets the resourceVersion and shares it
	Raw    []byte
	If     int64
}

const (
	writers       = 2       // transactions under way at once: one waits for the disk while the next is put together
	maxBatchOps   = 1024    // per transaction; the embedded etcd is told to accept more
	maxBatchBytes = 1 << 20 // per transaction, unless a single group is larger
	commitTimeout = 10 * time.Second
)

// request is one atomic group of ops waiting for a transaction.
type request struct {
	ctx   context.Context // of the caller: who has gone need not be served
	ops   []Op
	fence *Fence // nil: anybody may write this
	size  int
	done  chan result
}

type result struct {
	rev int64
	err error
}

// ErrEnded says that the store's Run has ended: nothing is written any more.
var ErrEnded = errors.New("the store has been shut down")

// Commit carries out all mutations, or none, and returns when the copy has seen them. The error is a *ConflictError where
// conditions did not hold; the copy has then seen what was in the way. Groups of concurrent callers may share a transaction and so a
// revision. A context of WithFence adds its condition: ErrFenced where it does not hold. After any other error than these two the mutations
// may have been made, or may yet be.
func (s *Store) Commit(ctx context.Context, group ...Mutation) (int64, error) {
	wait, err := s.begin(ctx, group)
	if err != nil {
		return 0, err
	}
	return wait()
}

// CommitEach carries out each group on its own, in as few transactions as possible. errs[i] belongs to groups[i].
func (s *Store) CommitEach(ctx context.Context, groups [][]Mutation) (errs []error) {
	errs = make([]error, len(groups))
	waits := make([]func() (int64, error), len(groups))
	for i, g := range groups {
		waits[i], errs[i] = s.begin(ctx, g)
	}
	for i, wait := range waits {
		if wait != nil {
			_, errs[i] = wait()
		}
	}
	return errs
}

// begin queues a group; the returned function waits for its outcome.
func (s *Store) begin(ctx context.Context, group []Mutation) (func() (int64, error), error) {
	req := &request{ctx: ctx, ops: make([]Op, len(group)), fence: fenceOf(ctx), done: make(chan result, 1)}
	pendings := make([]*pending, 0, len(group))
	for i, m := range group {
		op := Op{Key: m.Key, Value: m.Raw, If: m.If}
		if m.Table != nil {
			if m.Table.dropped.Load() {
				return nil, ErrDropped
			}
			op.Key = m.Table.spec.Prefix + m.Key
		}
		if m.Object != nil {
			m.Object.SetResourceVersion("") // known once it is stored, and not part of what is stored
			m.Table.share(m.Key, m.Object)
			value, err := m.Table.spec.Encode(m.Object)
			if err != nil {
				return nil, fmt.Errorf("encoding %s: %w", op.Key, err)
			}
			op.Value = value
			pendings = append(pendings, &pending{full: op.Key, value: value, object: m.Object})
		}
		req.ops[i] = op
		req.size += len(op.Key) + len(op.Value)
	}
	s.addPending(pendings)
	var err error
	select {
	case <-s.ended:
		err = ErrEnded
	default:
		select {
		case s.requests <- req:
			return func() (int64, error) {
				rev, err := s.outcome(ctx, req)
				if err != nil {
					rev = 0
				}
				s.settle(pendings, rev)
				return rev, err
			}, nil
		case <-ctx.Done():
			err = ctx.Err()
		case <-s.ended:
			err = ErrEnded
		}
	}
	s.settle(pendings, 0)
	return nil, err
}

// outcome waits for a request's result and for the copy to show it: what was written, or what was in the way.
func (s *Store) outcome(ctx context.Context, req *request) (int64, error) {
	var r result
	select {
	case r = <-req.done:
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-s.ended:
		select {
		case r = <-req.done:
		default:
			return 0, ErrEnded
		}
	}
	var conflict *ConflictError
	switch {
	case errors.As(r.err, &conflict):
		if err := s.WaitFor(ctx, conflict.Rev); err != nil {
			return 0, err
		}
		return 0, r.err
	case r.err != nil:
		return 0, r.err
	}
	return r.rev, s.WaitFor(ctx, r.rev)
}

// write takes what waits, as much as fits one transaction, and commits it, until ctx ends.
func (s *Store) write(ctx context.Context) error {
	var late []*request // would have repeated a key of the batch before
	for {
		batch, keys, ops, size := []*request(nil), map[string]bool{}, 0, 0
		take := func(r *request) bool {
			if err := r.ctx.Err(); err != nil {
				r.done <- result{err: err}
				return true
			}
			if len(batch) > 0 && (ops+len(r.ops) > s.maxOps || size+r.size > maxBatchBytes) {
				return false
			}
			for _, op := range r.ops {
				if keys[op.Key] {
					return false
				}
			}
			for _, op := range r.ops {
				keys[op.Key] = true
			}
			batch = append(batch, r)
			ops += len(r.ops)
			size += r.size
			return true
		}
		waiting := late
		late = nil
		for _, r := range waiting {
			if !take(r) {
				late = append(late, r)
			}
		}
		if len(batch) == 0 {
			select {
			case r := <-s.requests:
				take(r)
			case <-ctx.Done():
				return nil
			}
		}
	more:
		for len(late) < 64 {
			select {
			case r := <-s.requests:
				if !take(r) {
					late = append(late, r)
				}
			default:
				break more
			}
		}
		s.commitBatch(ctx, batch)
	}
}

// commitBatch commits the requests in one transaction; those whose conditions do not hold are answered and the rest tried again.
func (s *Store) commitBatch(ctx context.Context, batch []*request) {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	for len(batch) > 0 {
		ops := batch[0].ops
		if len(batch) > 1 {
			ops = nil
			for _, r := range batch {
				ops = append(ops, r.ops...)
			}
		}
		n := len(ops)
		ops, fences := withFences(ops, batch)
		rev, err := s.backend.Commit(ctx, ops)
		var conflict *ConflictError
		if !errors.As(err, &conflict) {
			for _, r := range batch {
				r.done <- result{rev, err}
			}
			return
		}
		rest, refused := answerFenced(batch, fences, conflict, n)
		if !refused {
			rest = answerConflicts(batch, conflict)
		}
		batch = rest
	}
}

// answerConflicts tells the requests that own the failed ops and returns the others.
func answerConflicts(batch []*request, conflict *ConflictError) []*request {
	var rest []*request
	failed := conflict.Ops
	first := 0
	for _, r := range batch {
		var mine []int
		for len(failed) > 0 && failed[0] < first+len(r.ops) {
			mine = append(mine, failed[0]-first)
			failed = failed[1:]
		}
		first += len(r.ops)
		if mine != nil {
			r.done <- result{err: &ConflictError{Ops: mine, Rev: conflict.Rev}}
		} else {
			rest = append(rest, r)
		}
	}
	return rest
}
