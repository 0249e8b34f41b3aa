package fair

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/server/request"
)

const ms = time.Millisecond

// fixture is a Fairness over a cluster's objects.
type fixture struct {
	*testing.T
	*Fairness
	client *client.Local
}

// within runs f in virtual time, over a cluster with the standard objects.
func within(t *testing.T, seats int, f func(f *fixture)) {
	synctest.Test(t, func(t *testing.T) {
		c, reg := clienttest.NewRegistry(t)
		for _, l := range slices.Concat(bootstrap.MandatoryPriorityLevelConfigurations, bootstrap.SuggestedPriorityLevelConfigurations) {
			clienttest.Create(t, c, l.DeepCopy())
		}
		for _, s := range slices.Concat(bootstrap.MandatoryFlowSchemas, bootstrap.SuggestedFlowSchemas) {
			clienttest.Create(t, c, s.DeepCopy())
		}
		f(&fixture{t, New(Config{Seats: seats, Schemas: reg.Table(api.FlowSchemas), Levels: reg.Table(api.PriorityLevelConfigurations)}), c})
	})
}

func someone(name string, groups ...string) *request.Info {
	return &request.Info{
		User: &user.DefaultInfo{Name: name, Groups: append(groups, user.AllAuthenticated)}, IsResource: true, Verb: "get", Version: "v1",
		Resource: "configmaps", Namespace: "default", Name: "x",
	}
}

// heartbeat is the request by which a node says that it lives.
func heartbeat(node string) *request.Info {
	i := someone("system:node:"+node, user.NodesGroup)
	i.Verb, i.Group, i.Resource, i.Namespace, i.Name = "update", "coordination.k8s.io", "leases", "kube-node-lease", node
	return i
}

// ask is one request, and how long it waited.
func (f *fixture) ask(of *request.Info, seats int, takes time.Duration) (waited time.Duration, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	came := time.Now()
	s, err := f.Enter(ctx, f.Classify(of), seats, false)
	if err != nil {
		return time.Since(came), err
	}
	waited = time.Since(came)
	time.Sleep(takes)
	s.Leave()
	return waited, nil
}

// flood sends requests of one user from many connections until stop is called, which returns how many were served.
func (f *fixture) flood(connections int, of func(i int) *request.Info, seats int, takes time.Duration) (stop func() int64) {
	var over atomic.Bool
	var served atomic.Int64
	done := make(chan struct{}, connections)
	for i := range connections {
		go func() {
			defer func() { done <- struct{}{} }()
			for !over.Load() {
				if _, err := f.ask(of(i), seats, takes); err != nil {
					time.Sleep(time.Second)
				} else {
					served.Add(1)
				}
			}
		}()
	}
	return func() int64 {
		over.Store(true)
		for range connections {
			<-done
		}
		return served.Load()
	}
}

// quiet is the longest that a quiet user waited who asks every now and then.
func (f *fixture) quiet(of *request.Info, n int) time.Duration {
	f.Helper()
	var longest time.Duration
	for range n {
		waited, err := f.ask(of, 1, 5*ms)
		if err != nil {
			f.Errorf("%s: %v", of.User.GetName(), err)
		}
		longest = max(longest, waited)
		time.Sleep(100 * ms)
	}
	return longest
}

// TestQuietUserIsServed: a user on hundreds of connections cannot starve another of the same level.
func TestQuietUserIsServed(t *testing.T) {
	within(t, 60, func(f *fixture) {
		stop := f.flood(150, func(int) *request.Info { return someone("noisy") }, 1, 50*ms)
		time.Sleep(time.Second)
		if waited := f.quiet(someone("quiet"), 100); waited > 500*ms { // the noisy one waits for seconds
			f.Errorf("waited for %s", waited)
		}
		if n := stop(); n < 1000 {
			f.Errorf("the noisy one was served %d times", n)
		}
	})
}

// TestHeartbeatsAreServed: whatever users and service accounts do, a node's heartbeat does not wait.
func TestHeartbeatsAreServed(t *testing.T) {
	within(t, 60, func(f *fixture) {
		users := f.flood(150, func(i int) *request.Info { return someone(fmt.Sprint("user", i)) }, 1, 500*ms)
		accounts := f.flood(150, func(i int) *request.Info {
			return someone(fmt.Sprint("system:serviceaccount:a:b", i), "system:serviceaccounts")
		}, 1, 500*ms)
		time.Sleep(30 * time.Second) // everything that can be borrowed is
		if waited := f.quiet(heartbeat("node"), 100); waited > 0 {
			f.Errorf("waited for %s", waited)
		}
		users()
		accounts()
	})
}

// TestListsDoNotStarveGets: a flood of wide lists leaves seats to small requests of others.
func TestListsDoNotStarveGets(t *testing.T) {
	within(t, 60, func(f *fixture) {
		p := f.Classify(someone("lister"))
		stop := f.flood(60, func(int) *request.Info { return someone("lister") }, p.MaxWidth(), 500*ms)
		time.Sleep(time.Second)
		if waited := f.quiet(someone("quiet"), 50); waited > time.Second {
			f.Errorf("waited for %s", waited)
		}
		stop()
	})
}

// TestSeatsAreGivenBack: what a busy level has borrowed it gives back when the lender wants it.
func TestSeatsAreGivenBack(t *testing.T) {
	within(t, 245, func(f *fixture) { // as many as there are shares
		seats := func(of *request.Info) int {
			l := f.Classify(of).schema.level
			l.mu.Lock()
			defer l.mu.Unlock()
			return l.queue.Seats()
		}
		account := someone("system:serviceaccount:a:b", "system:serviceaccounts")
		stop := f.flood(250, func(int) *request.Info { return someone("noisy") }, 1, 500*ms)
		time.Sleep(40 * time.Second)
		if n := seats(someone("noisy")); n < 100 {
			f.Errorf("borrowed up to %d", n)
		}
		back := f.flood(250, func(int) *request.Info { return account }, 1, 500*ms)
		time.Sleep(40 * time.Second)
		if n := seats(account); n < 100 {
			f.Errorf("got back %d of 100", n)
		}
		stop()
		back()
	})
}

// mine makes a level that neither lends nor borrows, and a schema for the users of namespaces.
func (f *fixture) mine() *flowcontrolv1.FlowSchema {
	shares, none := int32(20), int32(0)
	clienttest.Create(f.T, f.client, &flowcontrolv1.PriorityLevelConfiguration{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: flowcontrolv1.PriorityLevelConfigurationSpec{
		Type: "Limited", Limited: &flowcontrolv1.LimitedPriorityLevelConfiguration{NominalConcurrencyShares: &shares, LendablePercent: &none, BorrowingLimitPercent: &none,
			LimitResponse: flowcontrolv1.LimitResponse{Type: "Queue", Queuing: &flowcontrolv1.QueuingConfiguration{Queues: 4, HandSize: 1, QueueLengthLimit: 10}}}}})
	return clienttest.Create(f.T, f.client, &flowcontrolv1.FlowSchema{ObjectMeta: metav1.ObjectMeta{Name: "mine"}, Spec: flowcontrolv1.FlowSchemaSpec{
		MatchingPrecedence: 50, PriorityLevelConfiguration: flowcontrolv1.PriorityLevelConfigurationReference{Name: "mine"},
		Rules: []flowcontrolv1.PolicyRulesWithSubjects{{Subjects: []flowcontrolv1.Subject{{Kind: "User", User: &flowcontrolv1.UserSubject{Name: "sam"}}},
			ResourceRules: []flowcontrolv1.ResourcePolicyRule{{Verbs: []string{"*"}, APIGroups: []string{"*"}, Resources: []string{"*"}, Namespaces: []string{"*"}}}}}}})
}

// hold takes all seats of a user's level.
func (f *fixture) hold(of *request.Info) (release func()) {
	f.Helper()
	var all []*Stay
	p := f.Classify(of)
	l := p.schema.level
	for l.queue.SeatsInUse < l.queue.Seats() {
		s, err := f.Enter(context.Background(), p, 1, false)
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, s)
	}
	return func() {
		for _, s := range all {
			s.Leave()
			s.Leave()
		}
	}
}

// TestWaitEnds: a request waits for a quarter of its time; one whose client goes away leaves its queue at once.
func TestWaitEnds(t *testing.T) {
	within(t, 60, func(f *fixture) {
		f.mine()
		defer f.hold(someone("sam"))()
		waited, err := f.ask(someone("sam"), 1, 0)
		var no *Rejection
		if !errors.As(err, &no) || no.Reason != "time-out" || no.RetryAfter != 1 || waited != 15*time.Second {
			f.Errorf("%v after %s", err, waited)
		}
		ctx, cancel := context.WithCancel(context.Background())
		p := f.Classify(someone("sam"))
		go func() {
			time.Sleep(time.Second)
			cancel()
		}()
		came := time.Now()
		if _, err := f.Enter(ctx, p, 1, false); !errors.As(err, &no) || time.Since(came) != time.Second {
			f.Errorf("%v after %s", err, time.Since(came))
		}
		if l := p.schema.level; l.queue.Waiting != 0 || p.schema.figures.waiting.Load() != 0 {
			f.Errorf("%d wait", l.queue.Waiting)
		}
	})
}

// TestSchemaChangesWhileRequestsWait: who waits is served where it waits, though its schema now says otherwise and its level is deleted;
// who comes later goes by what is said then.
func TestSchemaChangesWhileRequestsWait(t *testing.T) {
	within(t, 60, func(f *fixture) {
		s := f.mine()
		p := f.Classify(someone("sam"))
		if p.schema.level.name != "mine" || p.SchemaUID()[0] != string(s.UID) {
			f.Fatalf("at level %s", p.schema.level.name)
		}
		release := f.hold(someone("sam"))
		result := make(chan error, 1)
		go func() {
			_, err := f.ask(someone("sam"), 1, ms)
			result <- err
		}()
		synctest.Wait()
		if err := client.Delete[*flowcontrolv1.PriorityLevelConfiguration](f.Context(), f.client, api.Key{Name: "mine"}, metav1.DeleteOptions{}); err != nil {
			f.Fatal(err)
		}
		if now := f.Classify(someone("sam")).schema.name; now != "global-default" {
			f.Errorf("a schema that dangles: %s", now)
		}
		if f.levels["mine"] == nil {
			f.Fatal("the level is gone while requests wait in it")
		}
		release()
		if err := <-result; err != nil {
			f.Error(err)
		}
		if _, err := f.client.Update(f.Context(), func() api.Object { s := s.DeepCopy(); s.Spec.MatchingPrecedence = 60; return s }(), ""); err != nil {
			f.Fatal(err)
		}
		f.Classify(someone("sam"))
		if f.levels["mine"] != nil {
			f.Error("the level is still there")
		}
	})
}

// TestExempt: administrators are served while nobody else is, and before there are any objects.
func TestExempt(t *testing.T) {
	for _, groups := range [][]string{{user.SystemPrivilegedGroup}, nil} {
		f := New(Config{Seats: 1})
		s, err := f.Enter(t.Context(), f.Classify(someone("a")), 1, false)
		if err != nil {
			t.Fatal(err)
		}
		admin := f.Classify(someone("b", groups...))
		if _, err := f.Enter(t.Context(), admin, 1, false); (err == nil) != (groups != nil) {
			t.Errorf("groups %v: %v", groups, err)
		}
		s.Leave()
	}
}
