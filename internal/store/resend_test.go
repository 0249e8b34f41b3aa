package store_test

import (
	"context"
	"errors"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/knarr-io/knarr/internal/store"
)

// deaf is an etcd whose first answer to a transaction that writes is lost with its leader: it is carried out, and something else happens before the leader is
// given up.
type deaf struct {
	clientv3.KV
	leaderLost func()
	sent       int
}

func (d *deaf) Txn(ctx context.Context) clientv3.Txn {
	return &deafTxn{d.KV.Txn(context.WithoutCancel(ctx)), d, ctx}
}

type deafTxn struct {
	clientv3.Txn
	etcd *deaf
	ctx  context.Context
}

func (t *deafTxn) If(c ...clientv3.Cmp) clientv3.Txn  { t.Txn = t.Txn.If(c...); return t }
func (t *deafTxn) Then(o ...clientv3.Op) clientv3.Txn { t.Txn = t.Txn.Then(o...); return t }

func (t *deafTxn) Commit() (*clientv3.TxnResponse, error) {
	resp, err := t.Txn.Commit()
	if t.etcd.sent++; t.etcd.sent > 1 {
		return resp, err
	}
	t.etcd.leaderLost()
	<-t.ctx.Done()
	return nil, t.ctx.Err()
}

func TestWhatWasSentToALostLeaderIsDoneOnce(t *testing.T) {
	c, stop := startEtcd(t, t.TempDir()+"/etcd", false)
	defer stop()
	ctx := t.Context()
	plain := store.NewEtcd(c)
	rev, err := plain.Commit(ctx, []store.Op{{Key: "/registry/x/updated", Value: []byte("old")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name      string
		ops       []store.Op
		meanwhile []store.Op // by somebody else, between what was carried out and the leader's loss
		key, want string
		known     bool // the outcome must be
	}{
		{"an update", []store.Op{{Key: "/registry/x/updated", Value: []byte("new"), If: rev}}, nil, "/registry/x/updated", "new", true},
		{"a creation that somebody has deleted since", []store.Op{{Key: "/registry/x/created", Value: []byte("new")}},
			[]store.Op{{Key: "/registry/x/created", If: store.Any}}, "/registry/x/created", "", false},
		{"a write without a condition, and somebody has written since", []store.Op{{Key: "/registry/x/any", Value: []byte("new"), If: store.Any}},
			[]store.Op{{Key: "/registry/x/any", Value: []byte("newer"), If: store.Any}}, "/registry/x/any", "newer", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed := make(chan struct{})
			lossy := clientv3.NewCtxClient(ctx)
			lossy.Watcher = c.Watcher
			lossy.KV = &deaf{KV: c.KV, leaderLost: func() {
				if test.meanwhile != nil {
					if _, err := plain.Commit(ctx, test.meanwhile); err != nil {
						t.Error(err)
					}
				}
				close(changed)
			}}
			e := store.NewEtcd(lossy).WithLeader(func() (<-chan struct{}, bool) { return changed, true })
			rev, err := e.Commit(ctx, test.ops)
			if test.known && (err != nil || rev == 0) || !test.known && !errors.Is(err, store.ErrUnavailable) {
				t.Errorf("the outcome is %d, %v", rev, err)
			}
			var got string
			if _, err := plain.Load(ctx, test.key, func(kv store.KV) error { got = string(kv.Value); return nil }); err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("%s is %q, want %q", test.key, got, test.want)
			}
		})
	}
}
