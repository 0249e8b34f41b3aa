package replicaset

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

// fullNode binds every pod to a node that refuses it as long as refuses is set, as an agent does: at once.
type fullNode struct {
	client  client.Client
	refuses *atomic.Bool
}

func newFullNode(c client.Client, refuses *atomic.Bool) controller.Controller {
	return controller.Controller{Name: "full-node", Watches: []controller.Watch{{Resource: api.Pods}}, Reconciler: &fullNode{c, refuses}}
}

func (n *fullNode) Reconcile(ctx context.Context, key api.Key) (time.Duration, error) {
	p, err := client.Get[*corev1.Pod](ctx, n.client, key)
	if err != nil || p.Status.Phase != corev1.PodPending || p.DeletionTimestamp != nil {
		return 0, nil
	}
	if p.Spec.NodeName == "" {
		n.client.BindMany(ctx, []client.Binding{{Pod: key, UID: string(p.UID), Node: "n1"}})
		return 0, nil
	}
	_, err = client.Mutate(ctx, n.client, key, "status", func(p *corev1.Pod) bool {
		if !n.refuses.Load() {
			ct.MakeReady(p, "10.0.0.1", time.Now())
			return true
		}
		p.Status.Phase, p.Status.Reason, p.Status.Message = corev1.PodFailed, "OutOfcpu", "Node didn't have enough resource: cpu"
		return true
	})
	return 0, err
}

func TestPodsThatNodesRefuseAreReplacedWithBackOff(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		var refuses atomic.Bool
		refuses.Store(true)
		c.Start(New(c.Client), newFullNode(c.Client, &refuses))
		ct.Make(c, replicaSet("web", 3))
		c.Pass(time.Hour)
		made := len(ct.All[*corev1.Pod](c, ns))
		// 3 at first, then one after 10, 20, 40, 80, 160 seconds and every five minutes.
		if made < 3+5+10 || made > 3+5+12 {
			t.Errorf("%d pods in an hour, want about 19", made)
		}
		rs := ct.Get[*appsv1.ReplicaSet](c, ns, "web")
		if len(rs.Status.Conditions) != 1 || rs.Status.Conditions[0].Reason != "PodsRefused" || !strings.Contains(rs.Status.Conditions[0].Message, "OutOfcpu") {
			t.Errorf("conditions %+v, want ReplicaFailure with PodsRefused", rs.Status.Conditions)
		}
		if events := c.Events("PodsRefused"); len(events) == 0 || len(events) > 20 || !strings.Contains(events[0], "node n1 refused pod web-") {
			t.Errorf("%d events: %v", len(events), events)
		}
		refuses.Store(false)
		c.Pass(6 * time.Minute)
		rs = ct.Get[*appsv1.ReplicaSet](c, ns, "web")
		if rs.Status.ReadyReplicas != 3 || len(rs.Status.Conditions) != 0 {
			t.Errorf("once the node has room: %+v, want 3 ready and no condition", rs.Status)
		}
		if more := len(ct.All[*corev1.Pod](c, ns)) - made; more != 3 {
			t.Errorf("%d pods were made once the node had room, want 3", more)
		}
	})
}

func TestOneNodeThatRefusesDoesNotHoldUpTheOthersForLong(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		var refuses atomic.Bool
		c.Start(New(c.Client), newFullNode(c.Client, &refuses))
		ct.Make(c, replicaSet("web", 3))
		c.Pass(time.Minute)
		refuses.Store(true)
		ct.Change(c, ns, "web", "", func(rs *appsv1.ReplicaSet) { n := int32(4); rs.Spec.Replicas = &n })
		c.Pass(time.Second)
		refuses.Store(false)
		c.Pass(10 * time.Second)
		if s := ct.Get[*appsv1.ReplicaSet](c, ns, "web").Status; s.ReadyReplicas != 4 || len(ct.All[*corev1.Pod](c, ns)) != 5 {
			t.Errorf("%d ready of %d pods, want 4 of 5", s.ReadyReplicas, len(ct.All[*corev1.Pod](c, ns)))
		}
	})
}
