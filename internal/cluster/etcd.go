// Package cluster is how machines become one cluster: the embedded etcd, which grows from one server to several, who of several
// servers leads, and the one process per data directory.
//
// What flows through it: at start the process locks the data directory, joins another server's cluster if it is told to ([Join]) and
// opens etcd ([OpenEtcd]); [Gate] stands before the API and lets nobody in who would get old or no answers. What must stay true: nothing
// listens without TLS; everything is under the data directory; starting again finds what an earlier start, or a crash, left.
// Tests: TestEtcdKeepsWhatItWasGiven, TestOnlyServersReachEtcd, TestServerThatIsCutOffRefuses, TestGateWaitsForAServerThatStarts.
package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/knarr-io/knarr/internal/cluster/space"
	"github.com/knarr-io/knarr/internal/pki"
	"github.com/knarr-io/knarr/internal/store"
)

// EtcdConfig is what an etcd in this process needs.
type EtcdConfig struct {
	// Dir is where its data is, made if need be.
	Dir string
	// Name is this server's among the members.
	Name string
	// PeerURL is where the other members reach this one: the API's address, since [Etcd.PeerHandler] is served there.
	PeerURL string
	// Peer are the certificates for reaching the others.
	Peer pki.PeerFiles
	// Join is what the members of a cluster are, as NAME=URL,..., this one included, for the first start in it; empty for a new cluster.
	Join string
	// QuotaBytes is what the database may become; 0 means 8 GB.
	QuotaBytes int64
	Log        *slog.Logger
}

// Etcd is an etcd in this process, which talks to it by function calls. It listens nowhere: the other members come through the API's
// port.
type Etcd struct {
	cfg     EtcdConfig
	server  *embed.Etcd
	client  *clientv3.Client
	peers   http.Handler
	several atomic.Bool   // there are, or have been, other members
	grown   chan struct{} // that has changed
	joining sync.Mutex    // one server is added at a time
	terms   terms
	contact *Contact
	space   *space.Guard

	closeLog func()
}

// etcdStart is how long etcd may take until it can be written to; replaying a long log takes the most. One that waits for other members
// waits as long as it takes.
const etcdStart = 60 * time.Second

// Timing of elections: a leader says that it is there every tick; who has not heard it for one to two electionMs, drawn anew each time, stands for
// election. Shorter would mistake a loaded machine for a dead one.
const (
	tickMs     = 100
	electionMs = 1000
)

// OpenEtcd starts an etcd. It returns before etcd can be read and written, which WaitReady waits for: other members may be needed for that,
// and they need PeerHandler.
func OpenEtcd(cfg EtcdConfig) (*Etcd, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("etcd's directory: %w", err)
	}
	peer, err := url.Parse(cfg.PeerURL)
	if err != nil {
		return nil, fmt.Errorf("etcd's peer URL: %w", err)
	}
	c := embed.NewConfig()
	c.Name = cfg.Name
	c.Dir = cfg.Dir
	c.ListenPeerUrls, c.ListenClientUrls, c.AdvertiseClientUrls = nil, nil, nil
	c.AdvertisePeerUrls = []url.URL{*peer}
	c.InitialCluster = cfg.Name + "=" + cfg.PeerURL
	if cfg.Join != "" {
		c.InitialCluster, c.ClusterState = cfg.Join, embed.ClusterStateFlagExisting
	}
	if cfg.Peer.Cert != "" {
		c.PeerTLSInfo = transport.TLSInfo{CertFile: cfg.Peer.Cert, KeyFile: cfg.Peer.Key, TrustedCAFile: cfg.Peer.CA}
	}
	// Ticks cost processor time for ever, so they are no shorter than etcd's own.
	c.TickMs, c.ElectionMs, c.PreVote = tickMs, electionMs, true
	// Members are added as learners and promoted once they have caught up; who removes one looks after the majority (see members.go).
	// etcd's own check would make the third server of a new cluster wait for seconds.
	c.StrictReconfigCheck, c.MaxLearners = false, 8
	c.MaxTxnOps = 8192
	c.MaxRequestBytes = 8 << 20
	c.QuotaBackendBytes = cmp.Or(cfg.QuotaBytes, 8<<30)
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "5m" // as kube-apiserver compacts
	c.SnapshotCount = 10000
	// etcd keeps this many transactions in memory for members that lag behind, and up to a hundred more; ours are large batches: 50 kB and
	// more under load. Who lags further gets a snapshot. A lone server keeps few until it is started again after others have joined.
	c.SnapshotCatchUpEntries = 50
	if cfg.Join != "" || wasSeveral(cfg.Dir) {
		c.SnapshotCatchUpEntries = 500
	}
	// The log on disk makes writes last; the tree of keys beside it may follow in larger steps than each 100 ms.
	c.BackendBatchInterval = 500 * time.Millisecond
	var closeLog func()
	if c.ZapLoggerBuilder, closeLog, err = etcdLog(cfg); err != nil {
		return nil, err
	}
	lent := space.Lend(cfg.Dir, wal.SegmentSizeBytes)
	s, err := embed.StartEtcd(c)
	if err != nil {
		closeLog()
		return nil, fmt.Errorf("starting etcd in %s: %w", cfg.Dir, err)
	}
	e := &Etcd{
		cfg: cfg, server: s, client: v3client.New(s.Server), peers: etcdhttp.NewPeerHandler(s.GetLogger(), s.Server),
		grown: make(chan struct{}, 1), terms: newTerms(), contact: NewContact(), closeLog: closeLog,
	}
	e.space = e.guard(c.QuotaBackendBytes, lent)
	if cfg.Join != "" || len(s.Server.Cluster().Members()) > 1 {
		e.several.Store(true)
	}
	return e, nil
}

// WaitReady returns when etcd can be read and written.
func (e *Etcd) WaitReady(ctx context.Context) error {
	const look, tellAfter = 10 * time.Millisecond, 5 * time.Second
	began, told := time.Now(), false
	for {
		s := e.server.Server
		select {
		case <-s.ReadyNotify():
			return e.ready(ctx)
		case <-s.StopNotify():
			return e.stopped()
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(look):
		}
		if e.caughtUp(ctx) {
			return e.ready(ctx)
		}
		members, waited := s.Cluster().Members(), time.Since(began)
		switch {
		case len(members) == 1 && s.Leader() == 0:
			// Nobody else could become the leader, so nothing is waited for. (Before the log has been replayed this has no effect.)
			if err := s.Process(ctx, &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: new(uint64(s.MemberID())), From: new(uint64(s.MemberID()))}); err != nil {
				return fmt.Errorf("starting etcd in %s: %w", e.cfg.Dir, err)
			}
		case len(members) > 1 && !told && waited > tellAfter:
			told = true
			e.cfg.Log.Warn("waiting for a majority of the cluster's servers", "servers", memberNames(members))
		}
		if waited > etcdStart && !e.several.Load() && len(members) <= 1 {
			return fmt.Errorf("etcd in %s was not ready within %v; etcd.log beside it may say why", e.cfg.Dir, etcdStart)
		}
	}
}

// caughtUp tells whether this member is known to the cluster and has all its data. Etcd's own notice waits until it has seen its own name pass by, which it
// does not when that is part of the others' snapshot; it tries again after seven seconds.
func (e *Etcd) caughtUp(ctx context.Context) bool {
	const patience = time.Second
	s := e.server.Server
	if self := s.Cluster().Member(s.MemberID()); s.Leader() == 0 || self == nil || self.Name == "" {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_, err := e.client.Get(ctx, store.LeaderKey, clientv3.WithCountOnly())
	return err == nil
}

func (e *Etcd) ready(ctx context.Context) error {
	if len(e.server.Server.Cluster().Members()) > 1 {
		e.grow()
	}
	return e.announce(ctx)
}

// announce tells the others where this member is reached, if that has changed.
func (e *Etcd) announce(ctx context.Context) error {
	self := e.server.Server.Cluster().Member(e.server.Server.MemberID())
	if self == nil || len(self.PeerURLs) == 1 && self.PeerURLs[0] == e.cfg.PeerURL {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, etcdStart)
	defer cancel()
	if _, err := e.client.MemberUpdate(ctx, uint64(self.ID), []string{e.cfg.PeerURL}); err != nil {
		return fmt.Errorf("telling the other servers the new address %s: %w", e.cfg.PeerURL, err)
	}
	return nil
}

// ErrRemoved says that this server has been removed from the cluster for good.
var ErrRemoved = errors.New("this server was removed from the cluster (knarr member rm): run knarr down --delete-data, then it can join again")

// stopped is why etcd has ended although nobody here ended it.
func (e *Etcd) stopped() error {
	s := e.server.Server
	if s.Cluster().Member(s.MemberID()) == nil {
		return ErrRemoved
	}
	return fmt.Errorf("etcd in %s has ended; etcd.log beside it may say why", e.cfg.Dir)
}

// Client returns a client that calls etcd without a network in between.
func (e *Etcd) Client() *clientv3.Client { return e.client }

// PeerHandler answers the other members, which must have shown a server's certificate (pki.IsPeer).
func (e *Etcd) PeerHandler() http.Handler { return e.peers }

// Several tells whether other servers may read and write, too.
func (e *Etcd) Several() bool { return e.several.Load() }

// grow notes that there are other members from now on.
func (e *Etcd) grow() {
	if !e.several.Swap(true) {
		e.grown <- struct{}{}
	}
	if err := os.WriteFile(severalFile(e.cfg.Dir), nil, 0o600); err != nil {
		e.cfg.Log.Warn("that there are several servers is not noted for the next start", "err", err)
	}
}

// severalFile is there once the etcd in dir has had other members.
func severalFile(dir string) string { return filepath.Join(filepath.Dir(dir), "several-servers") }

func wasSeveral(dir string) bool {
	_, err := os.Stat(severalFile(dir))
	return err == nil
}

// Space says what may be written.
func (e *Etcd) Space() *space.Guard { return e.space }

// Contact tells whether this server is in touch with a majority.
func (e *Etcd) Contact() *Contact { return e.contact }

// Close stops etcd after it has written what it was given. A leader hands over first, if there is somebody to take it: the others then need
// no election.
func (e *Etcd) Close() {
	_ = e.client.Close() // closing an in-process client has nothing that could be lost
	e.handOver()
	e.server.Server.HardStop() // else Close would try to hand over, too, and wait for longer
	e.server.Close()
	e.closeLog()
}

// handOverTime is how long a leader that stops tries to find another.
const handOverTime = time.Second

func (e *Etcd) handOver() {
	s := e.server.Server
	select {
	case <-s.StopNotify(): // by itself: this server was removed
		return
	default:
	}
	if !e.Several() || s.Leader() != s.MemberID() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), handOverTime)
	defer cancel()
	var voters []*etcdserverpb.Member
	for _, m := range s.Cluster().Members() {
		if !m.IsLearner {
			voters = append(voters, &etcdserverpb.Member{ID: uint64(m.ID), PeerURLs: m.PeerURLs})
		}
	}
	for id := range e.ask(ctx, voters) {
		if id != uint64(s.MemberID()) && s.MoveLeader(ctx, uint64(s.MemberID()), id) == nil {
			return
		}
	}
}
