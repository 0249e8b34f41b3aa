// Package cluster is how machines become one cluster: the embedded etcd, the objects every cluster begins with, and the one
// process per data directory.
//
// What flows through it: at start the composition root locks the data directory, starts etcd here and creates the
// initial objects. What must stay true: nothing listens without TLS; everything is under the data directory; starting
// again finds what an earlier start, or a crash, left.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
)

// Etcd is an etcd in this process. As the only member it listens nowhere: this process talks to it by function calls.
type Etcd struct {
	server *embed.Etcd
	client *clientv3.Client
}

// etcdStart is how long etcd may take until it can be written to; replaying a long log takes the most.
const etcdStart = 60 * time.Second

// StartEtcd starts a single-member etcd whose data is in dir, made if need be. It returns once etcd can be read and written.
func StartEtcd(ctx context.Context, dir string) (*Etcd, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd's directory: %w", err)
	}
	cfg := embed.NewConfig()
	cfg.Name = "knarr"
	cfg.Dir = dir
	cfg.ListenPeerUrls, cfg.ListenClientUrls = nil, nil
	cfg.AdvertiseClientUrls = nil
	peer := url.URL{Scheme: "http", Host: "localhost:2380"} // names the member; nobody listens there
	cfg.AdvertisePeerUrls = []url.URL{peer}
	cfg.InitialCluster = cfg.Name + "=" + peer.String()
	// With one member an election only delays the start: a short time-out makes it win within half a second. Ticks cost processor
	// time for ever, so they are no shorter than etcd's own.
	cfg.TickMs, cfg.ElectionMs = 100, 500
	cfg.MaxTxnOps = 8192
	cfg.MaxRequestBytes = 8 << 20
	cfg.QuotaBackendBytes = 8 << 30
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModePeriodic, "5m" // as kube-apiserver compacts
	cfg.SnapshotCount = 10000
	// etcd keeps this many transactions in memory for members that lag behind. There are none, and ours are large batches.
	cfg.SnapshotCatchUpEntries = 10
	// The log on disk makes writes last; the tree of keys beside it may follow in larger steps than each 100 ms.
	cfg.BackendBatchInterval = 500 * time.Millisecond
	cfg.LogLevel = "error"
	cfg.LogOutputs = []string{filepath.Join(filepath.Dir(dir), "etcd.log")}
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, fmt.Errorf("starting etcd in %s: %w", dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, etcdStart)
	defer cancel()
	select {
	case <-e.Server.ReadyNotify():
	case err := <-e.Err():
		e.Close()
		return nil, fmt.Errorf("starting etcd in %s: %w", dir, err)
	case <-ctx.Done():
		e.Close()
		return nil, errors.Join(fmt.Errorf("etcd in %s was not ready in time", dir), ctx.Err())
	}
	return &Etcd{server: e, client: v3client.New(e.Server)}, nil
}

// Client returns a client that calls etcd without a network in between.
func (e *Etcd) Client() *clientv3.Client { return e.client }

// Close stops etcd after it has written what it was given.
func (e *Etcd) Close() {
	_ = e.client.Close() // closing an in-process client has nothing that could be lost
	e.server.Close()
}
