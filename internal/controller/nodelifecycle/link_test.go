package nodelifecycle

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/controller"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/podstate"
	"github.com/knarr-io/knarr/internal/server/agentlink"
)

// links are connections that a test opens and closes.
type links struct {
	mu      sync.Mutex
	state   map[string]agentlink.State
	changed func(string)
}

func (l *links) State(node string) agentlink.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state[node]
}

func (l *links) Follow(ctx context.Context, changed func(string)) {
	l.mu.Lock()
	l.changed = changed
	l.mu.Unlock()
	<-ctx.Done()
}

func (l *links) set(node string, s agentlink.State) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state[node] = s
	if l.changed != nil {
		l.changed(node)
	}
}

func (l *links) up(nodes ...string) {
	for _, n := range nodes {
		l.set(n, agentlink.State{Connected: true})
	}
}

func (l *links) down(node string) {
	l.set(node, agentlink.State{Lost: time.Now(), Why: "it was closed"})
}

func newLinks() *links { return &links{state: map[string]agentlink.State{}} }

func linked(c *ct.Cluster, l *links) []controller.Controller {
	return []controller.Controller{New(c.Client, Config{Links: l}), NewTaintEviction(c.Client)}
}

func renew(c *ct.Cluster, node string) {
	now := metav1.NowMicro()
	ct.Change(c, corev1.NamespaceNodeLease, node, "", func(l *coordinationv1.Lease) { l.Spec.RenewTime = &now })
}

func TestLostConnection(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		l := newLinks()
		for _, n := range []string{"a", "b", "local"} {
			join(c, n, "z")
		}
		podOn(c, "stays", "b")
		podTolerating(c, "goes", "b", 2)
		l.up("a", "b")
		c.Start(linked(c, l)...)
		beat(c, 31*time.Second, "a", "b", "local")
		l.down("b")
		c.Pass(4900 * time.Millisecond)
		if got := status(c, "b"); got != "True" {
			t.Errorf("4.9 s after the loss: %s", got)
		}
		c.Pass(200 * time.Millisecond)
		if got := status(c, "b"); got != "Unknown unreachable:NoSchedule unreachable:NoExecute" {
			t.Errorf("5.1 s after the loss: %s", got)
		}
		r := conditionOf(ct.Get[*corev1.Node](c, "", "b"), corev1.NodeReady)
		if r.Reason != "NodeStatusUnknown" || !strings.Contains(r.Message, "connection with the control plane ended: it was closed") {
			t.Errorf("the reason: %s: %s", r.Reason, r.Message)
		}
		if podstate.Ready(ct.Get[*corev1.Pod](c, ns, "stays")) {
			t.Error("a pod of the lost node is still ready")
		}
		c.Pass(2 * time.Second)
		if ct.Get[*corev1.Pod](c, ns, "goes").DeletionTimestamp == nil || ct.Get[*corev1.Pod](c, ns, "stays").DeletionTimestamp != nil {
			t.Error("only the pod that tolerates two seconds should go after them")
		}
		for _, n := range []string{"a", "local"} {
			if got := status(c, n); got != "True" {
				t.Errorf("%s: %s", n, got)
			}
		}
		l.up("b")
		renew(c, "b")
		ct.Change(c, "", "b", "status", func(n *corev1.Node) {
			n.Status.Conditions[0].Status, n.Status.Conditions[0].LastHeartbeatTime = corev1.ConditionTrue, metav1.Now()
		})
		c.Settle()
		if got := status(c, "b"); got != "True" {
			t.Errorf("back again: %s", got)
		}
		beat(c, 10*time.Minute, "a", "b", "local")
		if ct.Get[*corev1.Pod](c, ns, "stays").DeletionTimestamp != nil {
			t.Error("a pod that tolerates five minutes was evicted although its node was back after seconds")
		}
	})
}

// An agent that ends in order says so: its containers go on, and its node is not lost because the connection is.
func TestAnAgentThatLeftInOrderIsNotLost(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		l := newLinks()
		join(c, "a", "z")
		podOn(c, "p", "a")
		l.up("a")
		c.Start(linked(c, l)...)
		leave := func(left bool) {
			now := metav1.NowMicro()
			ct.Change(c, corev1.NamespaceNodeLease, "a", "", func(lease *coordinationv1.Lease) {
				lease.Spec.RenewTime, lease.Annotations = &now, nil
				if left {
					lease.Annotations = map[string]string{agentlink.AnnotationLeft: "2026-01-01T00:00:00Z"}
				}
			})
		}
		leave(true)
		l.down("a")
		c.Pass(45 * time.Second)
		if got := status(c, "a"); got != "True" {
			t.Errorf("45 s after its agent left in order the node is %s", got)
		}
		c.Pass(6 * time.Second)
		if got := status(c, "a"); !strings.HasPrefix(got, "Unknown") {
			t.Errorf("after the grace period of the Lease the node is %s", got)
		}
		leave(false)
		l.up("a")
		c.Settle()
		ct.Change(c, "", "a", "status", func(n *corev1.Node) {
			n.Status.Conditions[0].Status, n.Status.Conditions[0].LastHeartbeatTime = corev1.ConditionTrue, metav1.Now()
		})
		c.Settle()
		leave(false)
		l.down("a")
		c.Pass(6 * time.Second)
		if got := status(c, "a"); !strings.HasPrefix(got, "Unknown") {
			t.Errorf("the next loss, without a word, is taken for an orderly one: %s", got)
		}
	})
}

func TestAgentThatIsRestartedDoesNotFallOut(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		l := newLinks()
		join(c, "a", "z")
		l.up("a")
		c.Start(linked(c, l)...)
		for range 20 {
			l.down("a")
			c.Pass(3 * time.Second)
			l.up("a")
			renew(c, "a")
			c.Pass(3 * time.Second)
		}
		if got, events := status(c, "a"), c.Events("NodeNotReady"); got != "True" || len(events) > 0 {
			t.Errorf("%s, events %q", got, events)
		}
	})
}

func TestNodeThatIsHeardOfOverAnotherServer(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		l := newLinks()
		join(c, "a", "z")
		l.up("a")
		c.Start(linked(c, l)...)
		beat(c, 30*time.Second, "a")
		l.down("a")
		c.Pass(3500 * time.Millisecond)
		beat(c, 10*time.Minute, "a")
		if got, events := status(c, "a"), c.Events("NodeNotReady"); got != "True" || len(events) > 0 {
			t.Errorf("connection lost, but the Lease is renewed: %s, events %q", got, events)
		}
		c.Pass(60 * time.Second)
		if got := status(c, "a"); !strings.HasPrefix(got, "Unknown") {
			t.Errorf("neither connection nor Lease for a minute: %s", got)
		}
	})
}

func TestNobodyEvictsWhenAllConnectionsAreLost(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeLeaseNamespace(c)
		l := newLinks()
		for _, n := range []string{"a", "b", "c"} {
			join(c, n, "z")
			l.up(n)
		}
		podOn(c, "p", "a")
		c.Start(linked(c, l)...)
		beat(c, 30*time.Second, "a", "b", "c")
		for _, n := range []string{"a", "b", "c"} {
			l.down(n)
		}
		c.Pass(time.Hour)
		for _, n := range []string{"a", "b", "c"} {
			if got := status(c, n); got != "Unknown unreachable:NoSchedule" {
				t.Errorf("%s: %s", n, got)
			}
		}
		if ct.Get[*corev1.Pod](c, ns, "p").DeletionTimestamp != nil {
			t.Error("a pod was evicted although no node answers")
		}
	})
}

func TestNewLeader(t *testing.T) {
	for _, tc := range []struct {
		name  string
		lost  time.Duration // before this process began to lead
		renew time.Duration // when the Lease is renewed after that, and then every ten seconds; 0 never
		dead  time.Duration // when the node counts as lost; 0 never
	}{
		{name: "died with the old leader", lost: 3 * time.Second, dead: 5 * time.Second},
		{name: "lost the connection with the old leader and hastens", lost: 3 * time.Second, renew: 2 * time.Second},
		{name: "died long ago", lost: 10 * time.Minute, dead: 12 * time.Second},
		{name: "lives, but has had no connection with this one for long", lost: 10 * time.Minute, renew: 9 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ct.Run(t, func(c *ct.Cluster) {
				makeLeaseNamespace(c)
				l := newLinks()
				join(c, "a", "z")
				join(c, "well", "z")
				time.Sleep(time.Hour)
				l.set("a", agentlink.State{Lost: time.Now().Add(-tc.lost), Why: "it was closed"})
				l.up("well")
				c.Start(linked(c, l)...)
				began := time.Now()
				for next := tc.renew; time.Since(began) < 48*time.Second; {
					if since := time.Since(began); next > 0 && since >= next {
						renew(c, "a")
						next = since + 10*time.Second
					}
					c.Pass(500 * time.Millisecond)
					since := time.Since(began)
					want := tc.dead == 0 || since <= tc.dead
					if got := status(c, "a"); (got == "True") != want {
						t.Fatalf("after %v: %s", since, got)
					}
				}
			})
		})
	}
}
