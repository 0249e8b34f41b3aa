package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// newLeaderTime is how long a new leader may take to answer what waits for it; what has not been answered then was sent to the old one.
	newLeaderTime = 300 * time.Millisecond
	// resendAfter is how long an etcd of several members may take for a transaction where it is not known who leads.
	resendAfter = 3 * time.Second
)

// errLeaderLost says that a transaction was sent to a leader that is none any more. It may have been carried out, or may yet be.
var errLeaderLost = errors.New("etcd's leader was lost")

// onlyOnce tells whether a transaction that is carried out cannot be carried out again: it writes a key on condition of that key's revision. An object
// that was created could have been deleted since, and would be there again; what is written without a condition would replace what came later.
func onlyOnce(ops []Op) bool {
	return slices.ContainsFunc(ops, func(op Op) bool { return op.If > 0 && !op.Check })
}

// try sends a transaction once.
func (e *Etcd) try(ctx context.Context, conds []clientv3.Cmp, then []clientv3.Op) (*clientv3.TxnResponse, error) {
	var changed <-chan struct{}
	several := false
	if e.leader != nil {
		changed, several = e.leader()
	}
	if !several {
		return e.client.Txn(ctx).If(conds...).Then(then...).Commit()
	}
	during, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := func() { cancel(errLeaderLost) }
	if changed == nil {
		defer time.AfterFunc(resendAfter, lost).Stop()
	} else {
		var wg sync.WaitGroup
		defer wg.Wait()
		answered := make(chan struct{})
		defer close(answered)
		wg.Go(func() { giveUp(changed, answered, lost) })
	}
	resp, err := e.client.Txn(during).If(conds...).Then(then...).Commit()
	if err != nil && ctx.Err() == nil && errors.Is(context.Cause(during), errLeaderLost) {
		return nil, errLeaderLost
	}
	return resp, err
}

// giveUp calls lost a while after the leader has changed, unless there is an answer by then. It ends with the answer at the latest.
func giveUp(changed, answered <-chan struct{}, lost func()) {
	select {
	case <-changed:
	case <-answered:
		return
	}
	t := time.NewTimer(newLeaderTime)
	defer t.Stop()
	select {
	case <-t.C:
		lost()
	case <-answered:
	}
}

// mine tells the outcome of a transaction that was sent more than once and refused at last: an earlier sending may have been carried out. If all that it
// puts is there, put by one transaction, that was it. Else it is not known: somebody may have written after it.
func (e *Etcd) mine(ctx context.Context, ops []Op) (int64, error) {
	gets := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		gets[i] = clientv3.OpGet(op.Key)
	}
	resp, err := e.client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return 0, fmt.Errorf("asking etcd what became of a transaction of %d keys: %w", len(ops), unavailable(err))
	}
	rev := int64(0)
	for i, r := range resp.Responses {
		kvs, op := r.GetResponseRange().GetKvs(), ops[i]
		switch {
		case op.Check:
			continue
		case op.Value == nil && len(kvs) == 0:
			continue
		case op.Value == nil || len(kvs) == 0 || !bytes.Equal(kvs[0].Value, op.Value) || rev != 0 && rev != kvs[0].ModRevision:
			rev = 0
		default:
			rev = kvs[0].ModRevision
			continue
		}
		break
	}
	if rev == 0 {
		return 0, fmt.Errorf("%w: the leader was lost during a transaction of %d keys", ErrUnavailable, len(ops))
	}
	e.nudge(ctx)
	return rev, nil
}
