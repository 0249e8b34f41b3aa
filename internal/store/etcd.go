package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unsafe"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Etcd is a Backend over an etcd client, which may talk to an etcd in this process without a network hop
// (go.etcd.io/etcd/server/v3/etcdserver/api/v3client) or to an external cluster.
type Etcd struct {
	client *clientv3.Client
	maxOps int
	leader func() (changed <-chan struct{}, several bool)
}

// NewEtcd returns a Backend that stores in the etcd behind client, which the caller closes.
func NewEtcd(client *clientv3.Client) *Etcd { return &Etcd{client: client} }

// WithMaxOps says how many operations the etcd takes in one transaction; the default is for one that is told to accept many.
func (e *Etcd) WithMaxOps(n int) *Etcd {
	c := *e
	c.maxOps = n
	return &c
}

// WithLeader is for an etcd of several members: leader tells whether there are several now, and returns a channel that is closed when another
// one becomes the leader, nil where that is not known. What had been sent to the old leader is sent again.
func (e *Etcd) WithLeader(leader func() (changed <-chan struct{}, several bool)) *Etcd {
	c := *e
	c.leader = leader
	return &c
}

// MaxOps is how many operations a transaction may have; 0 means that the store decides.
func (e *Etcd) MaxOps() int { return e.maxOps }

// loadPage is how many keys one range request of Load asks for.
const loadPage = 5000

// Commit implements Backend.
func (e *Etcd) Commit(ctx context.Context, ops []Op) (int64, error) {
	conds := make([]clientv3.Cmp, 0, len(ops))
	then := make([]clientv3.Op, 0, len(ops))
	for _, op := range ops {
		if op.If != Any {
			conds = append(conds, clientv3.Compare(clientv3.ModRevision(op.Key), "=", op.If))
		}
		switch {
		case op.Check:
		case op.Value == nil:
			then = append(then, clientv3.OpDelete(op.Key))
		default:
			then = append(then, clientv3.OpPut(op.Key, unsafe.String(unsafe.SliceData(op.Value), len(op.Value)))) // nobody changes it: no copy
		}
	}
	again := false
	for {
		resp, err := e.try(ctx, conds, then)
		if errors.Is(err, errLeaderLost) {
			if !onlyOnce(ops) {
				return 0, fmt.Errorf("%w: the leader was lost during a transaction of %d keys, which may have been carried out", ErrUnavailable, len(ops))
			}
			again = true
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("etcd transaction of %d keys: %w", len(ops), unavailable(err))
		}
		if resp.Succeeded {
			return resp.Header.Revision, nil
		}
		if again {
			return e.mine(ctx, ops)
		}
		if err := e.conflict(ctx, ops); err != nil {
			return 0, err
		}
		// Whatever was in the way has gone since.
	}
}

// unavailable marks the errors of an etcd that is starting, electing, overloaded or gone as ErrUnavailable.
func unavailable(err error) error {
	var e rpctypes.EtcdError
	code := status.Code(err)
	if errors.As(err, &e) {
		code = e.Code()
	}
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted:
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if errors.Is(err, rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrGRPCNoSpace) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	if errors.Is(err, rpctypes.ErrTooManyRequests) || strings.HasSuffix(err.Error(), "raft: stopped") { // an etcd in this process that is ending
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return err
}

// conflict returns a *ConflictError with the ops of a refused transaction whose conditions do not hold; nil if all do by now. It is asked afterwards, not in the
// transaction's other branch: that would stand in the log of every transaction for the sake of the few that are refused.
func (e *Etcd) conflict(ctx context.Context, ops []Op) error {
	gets := make([]clientv3.Op, len(ops))
	for i, op := range ops {
		gets[i] = clientv3.OpGet(op.Key, clientv3.WithKeysOnly())
	}
	resp, err := e.client.Txn(ctx).Then(gets...).Commit()
	if err != nil {
		return fmt.Errorf("asking etcd why a transaction of %d keys was refused: %w", len(ops), unavailable(err))
	}
	conflict := ConflictError{Rev: resp.Header.Revision}
	for i, r := range resp.Responses {
		var rev int64
		if kvs := r.GetResponseRange().GetKvs(); len(kvs) > 0 {
			rev = kvs[0].ModRevision
		}
		if ops[i].If != Any && ops[i].If != rev {
			conflict.Ops = append(conflict.Ops, i)
		}
	}
	if len(conflict.Ops) == 0 {
		return nil
	}
	e.nudge(ctx)
	return &conflict
}

// nudge asks etcd to tell running watches how far they have come, if they have seen everything: the newest revision may be one
// that changed nothing of theirs.
func (e *Etcd) nudge(ctx context.Context) {
	_ = e.client.RequestProgress(clientv3.WithRequireLeader(ctx)) // where no watch runs there is nobody to tell
}

// Load implements Backend.
func (e *Etcd) Load(ctx context.Context, prefix string, visit func(KV) error) (int64, error) {
	end := clientv3.GetPrefixRangeEnd(prefix)
	var rev int64
	for from := prefix; ; {
		opts := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(loadPage), clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend)}
		if rev > 0 {
			opts = append(opts, clientv3.WithRev(rev))
		}
		resp, err := e.client.Get(ctx, from, opts...)
		if err != nil {
			return 0, fmt.Errorf("reading %s from etcd: %w", prefix, unavailable(err))
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			if err := visit(KV{Key: string(kv.Key), Value: kv.Value, Rev: kv.ModRevision}); err != nil {
				return 0, err
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return rev, nil
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// Watch implements Backend.
func (e *Etcd) Watch(ctx context.Context, prefix string, from int64, apply func(int64, []Change)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range e.client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from+1)) {
		if err := resp.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) {
				return ErrTooOld
			}
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watching %s in etcd: %w", prefix, err)
		}
		if resp.IsProgressNotify() {
			apply(resp.Header.Revision, nil)
			continue
		}
		for evs := resp.Events; len(evs) > 0; {
			rev := evs[0].Kv.ModRevision
			n := 1
			for n < len(evs) && evs[n].Kv.ModRevision == rev {
				n++
			}
			changes := make([]Change, n)
			for i, ev := range evs[:n] {
				changes[i] = Change{Key: string(ev.Kv.Key)}
				if ev.Type == clientv3.EventTypePut {
					changes[i].Value = ev.Kv.Value
				}
			}
			apply(rev, changes)
			evs = evs[n:]
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("watching %s in etcd: the stream ended", prefix)
}

// Revision implements Backend.
func (e *Etcd) Revision(ctx context.Context) (int64, error) {
	resp, err := e.client.Get(ctx, "/registry", clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("reading etcd's revision: %w", unavailable(err))
	}
	e.nudge(ctx)
	return resp.Header.Revision, nil
}
