package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Member is a server of the cluster.
type Member struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // empty before its first start
	URL  string `json:"url"`
	// Learner tells that it does not vote yet: it is still catching up.
	Learner bool `json:"learner,omitempty"`
	Leader  bool `json:"leader,omitempty"`
	// Self tells that it is the one that was asked.
	Self bool `json:"self,omitempty"`
	// Answers tells whether it answers the server that was asked.
	Answers bool `json:"answers"`
}

var serversResource = schema.GroupResource{Group: "knarr", Resource: "servers"}

// Members lists the servers, confirmed by a majority, in the order of their names.
func (e *Etcd) Members(ctx context.Context) ([]Member, error) {
	resp, err := e.client.MemberList(ctx)
	if err != nil {
		return nil, unanswered("listing the servers", err)
	}
	answers := e.ask(ctx, resp.Members)
	out := make([]Member, 0, len(resp.Members))
	for _, m := range resp.Members {
		out = append(out, Member{
			ID: fmt.Sprintf("%x", m.ID), Name: m.Name, URL: firstURL(m), Learner: m.IsLearner,
			Leader: m.ID == uint64(e.server.Server.Leader()), Self: m.ID == uint64(e.server.Server.MemberID()), Answers: answers[m.ID],
		})
	}
	slices.SortFunc(out, func(a, b Member) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

func unanswered(what string, err error) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("%s: %v: a majority of the servers has to answer", what, err))
}

func firstURL(m *etcdserverpb.Member) string {
	if len(m.PeerURLs) == 0 {
		return ""
	}
	return m.PeerURLs[0]
}

// AddMember makes the server at url a learner, and returns what etcd there has to know at its first start. One that has begun to join before, and
// did not get to vote, begins anew.
func (e *Etcd) AddMember(ctx context.Context, name, url string) (join string, err error) {
	// From now on others write: reads here have to be confirmed.
	e.grow()
	e.joining.Lock()
	defer e.joining.Unlock()
	resp, err := e.alone(ctx, url)
	if err != nil {
		return "", unanswered("adding a server", err)
	}
	var initial []string
	for _, m := range resp.Members {
		switch same := firstURL(m) == url; {
		case (same || m.Name == name) && m.IsLearner:
			if _, err := e.client.MemberRemove(ctx, m.ID); err != nil {
				return "", unanswered("removing what is left of an earlier attempt of "+name, err)
			}
			continue
		case same:
			return "", apierrors.NewConflict(serversResource, name, fmt.Errorf("a server is at %s already, with the name %q; if it is gone for good, remove it: knarr member rm %s", url, m.Name, cmp.Or(m.Name, fmt.Sprintf("%x", m.ID))))
		case m.Name == name:
			return "", apierrors.NewConflict(serversResource, name, fmt.Errorf("the server at %s has this name already: give the new one another --node-name; or if that one is gone for good, remove it: knarr member rm %s", firstURL(m), name))
		}
		initial = append(initial, cmp.Or(m.Name, fmt.Sprintf("member-%x", m.ID))+"="+firstURL(m))
	}
	if err := e.addLearner(ctx, url); err != nil {
		return "", unanswered("adding "+name, err)
	}
	e.cfg.Log.Info("a server is joining", "server", name, "address", url)
	return strings.Join(append(initial, name+"="+url), ","), nil
}

// startTime is how long a server that was added is waited for.
const startTime = 10 * time.Second

// alone lists the members once there is none, other than at url, that has been added and has not started: etcd starts with exactly the list of members that
// it was given.
func (e *Etcd) alone(ctx context.Context, url string) (*clientv3.MemberListResponse, error) {
	const look = 50 * time.Millisecond
	for began := time.Now(); ; {
		resp, err := e.client.MemberList(ctx)
		if err != nil || time.Since(began) > startTime {
			return resp, err
		}
		if !slices.ContainsFunc(resp.Members, func(m *etcdserverpb.Member) bool { return m.IsLearner && m.Name == "" && firstURL(m) != url }) {
			return resp, nil
		}
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (e *Etcd) addLearner(ctx context.Context, url string) error {
	for {
		_, err := e.client.MemberAddAsLearner(ctx, []string{url})
		// The id is made of URL and second: within the same one it is still that of a member that was removed for good.
		if !errors.Is(err, rpctypes.ErrMemberNotFound) {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// RemoveMember removes the server with a name or id for good, unless too few of the others answer.
func (e *Etcd) RemoveMember(ctx context.Context, name string) (Member, error) {
	resp, err := e.client.MemberList(ctx)
	if err != nil {
		return Member{}, unanswered("removing "+name, err)
	}
	i := slices.IndexFunc(resp.Members, func(m *etcdserverpb.Member) bool { return m.Name == name || fmt.Sprintf("%x", m.ID) == name })
	if i < 0 {
		return Member{}, apierrors.NewNotFound(serversResource, name)
	}
	gone := resp.Members[i]
	if len(resp.Members) == 1 {
		return Member{}, apierrors.NewConflict(serversResource, name, fmt.Errorf("it is the only server, and has all the data: knarr down --delete-data ends the cluster"))
	}
	if !gone.IsLearner {
		answers := e.ask(ctx, resp.Members)
		voters, alive := 0, 0
		for _, m := range resp.Members {
			if m.ID == gone.ID || m.IsLearner {
				continue
			}
			voters++
			if answers[m.ID] {
				alive++
			}
		}
		if voters == 0 || alive < voters/2+1 {
			return Member{}, apierrors.NewConflict(serversResource, name, fmt.Errorf("only %d of the %d voting servers that would be left answer, too few to go on: start or remove those that do not answer first (knarr member ls)", alive, voters))
		}
	}
	_, err = e.client.MemberRemove(ctx, gone.ID)
	self := e.server.Server.MemberID()
	left := gone.ID == uint64(self) && e.server.Server.Cluster().Member(self) == nil // then etcd may end before it answers
	if err != nil && !left {
		return Member{}, unanswered("removing "+name, err)
	}
	e.cfg.Log.Info("a server was removed from the cluster", "server", gone.Name, "address", gone.PeerURLs)
	return Member{ID: fmt.Sprintf("%x", gone.ID), Name: gone.Name, URL: firstURL(gone)}, nil
}

// ask finds out which members answer this one.
func (e *Etcd) ask(ctx context.Context, members []*etcdserverpb.Member) map[uint64]bool {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	self := uint64(e.server.Server.MemberID())
	answers := map[uint64]bool{self: true}
	if len(members) == 1 {
		return answers
	}
	tr, err := transport.NewTransport(e.server.Config().PeerTLSInfo, patience)
	if err != nil {
		return answers
	}
	defer tr.CloseIdleConnections()
	yes := make(chan uint64)
	for _, m := range members {
		go func() {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, firstURL(m)+"/version", nil)
			var id uint64
			if err == nil && m.ID != self {
				if resp, err := tr.RoundTrip(req); err == nil {
					_ = resp.Body.Close() // only that there is an answer matters
					if resp.StatusCode == http.StatusOK {
						id = m.ID
					}
				}
			}
			yes <- id
		}()
	}
	for range members {
		if id := <-yes; id != 0 {
			answers[id] = true
		}
	}
	return answers
}
