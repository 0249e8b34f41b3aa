package cluster

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"golang.org/x/sync/errgroup"
)

// cutAfter is how long there may be no leader until this server takes itself for cut off from the others: a little longer than an
// election that goes well.
const cutAfter = 3 * time.Second

var errCutOff = errors.New("this server is cut off from the majority of the cluster's servers: another one may answer")

// Run follows who leads, promotes learners while it is this server, and looks after the disk, until ctx ends.
func (e *Etcd) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return e.followLeader(ctx) })
	g.Go(func() error { return e.space.Run(ctx) })
	return g.Wait()
}

func (e *Etcd) followLeader(ctx context.Context) error {
	defer e.terms.finish()
	s := e.server.Server
	var without time.Time // since when there has been no leader
	var look time.Time    // when learners are looked at again
	pause := tickMs * time.Millisecond
	for {
		changed := s.LeaderChangedNotify()
		now := time.Now()
		leads := s.Leader() == s.MemberID()
		switch {
		case s.Leader() != 0:
			without = time.Time{}
			if e.contact.regained() {
				e.cfg.Log.Info("in touch with the cluster's servers again", "leader", e.nameOf(uint64(s.Leader())))
			}
		case without.IsZero():
			without = now
		case now.Sub(without) > cutAfter && e.contact.lost(errCutOff):
			e.cfg.Log.Warn("cut off from the cluster's servers: requests are refused until a majority is reached")
		}
		if leads && e.terms.begin() && e.Several() {
			e.cfg.Log.Info("leading the cluster's servers")
		}
		if !leads && e.terms.finish() {
			e.cfg.Log.Info("another server leads, or none", "leader", e.nameOf(uint64(s.Leader())))
		}
		if leads && e.Several() && !now.Before(look) {
			pause = min(2*pause, promotePause)
			if !e.promote(ctx) {
				pause = tickMs * time.Millisecond
			}
			look = now.Add(pause)
		}
		var tick <-chan time.Time
		if e.Several() { // etcd tells of new leaders, but not that the old one is lost
			tick = time.After(tickMs * time.Millisecond)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-s.StopNotify():
			if ctx.Err() != nil {
				return nil
			}
			return e.stopped()
		case <-changed:
		case <-tick:
		case <-e.grown:
		}
	}
}

// Leader is what store.Etcd.WithLeader asks for.
func (e *Etcd) Leader() (changed <-chan struct{}, several bool) {
	if !e.Several() {
		return nil, false
	}
	return e.server.Server.LeaderChangedNotify(), true
}

// Lead calls act whenever this server is the leader.
func (e *Etcd) Lead(ctx context.Context, act func(ctx context.Context) error) error {
	return e.terms.each(ctx, act)
}

// promotePause is the longest pause between two looks at a learner that does not catch up.
const promotePause = 5 * time.Second

// promote gives learners that have caught up their vote. It reports whether some have not.
func (e *Etcd) promote(ctx context.Context) (waiting bool) {
	for _, m := range e.server.Server.Cluster().Members() {
		if !m.IsLearner || m.Name == "" { // one without a name has not started yet
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		_, err := e.server.Server.PromoteMember(ctx, uint64(m.ID))
		cancel()
		if err != nil { // it has not caught up
			waiting = true
			continue
		}
		e.cfg.Log.Info("a server has joined and votes from now on", "server", m.Name, "address", m.PeerURLs)
	}
	return waiting
}

func (e *Etcd) nameOf(id uint64) string {
	for _, m := range e.server.Server.Cluster().Members() {
		if uint64(m.ID) == id {
			return m.Name
		}
	}
	return ""
}

func memberNames(members []*membership.Member) []string {
	var out []string
	for _, m := range members {
		out = append(out, m.Name)
	}
	return out
}
