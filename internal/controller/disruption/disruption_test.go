package disruption

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
	"github.com/knarr-io/knarr/internal/controller/deployment"
	"github.com/knarr-io/knarr/internal/controller/replicaset"
)

const ns = metav1.NamespaceDefault

// status is a budget's expected/desired/healthy/allowed.
func status(c *ct.Cluster, name string) string {
	s := ct.Get[*policyv1.PodDisruptionBudget](c, ns, name).Status
	return fmt.Sprintf("%d/%d/%d/%d", s.ExpectedPods, s.DesiredHealthy, s.CurrentHealthy, s.DisruptionsAllowed)
}

func expect(c *ct.Cluster, when, name, want string) {
	c.T.Helper()
	if got := status(c, name); got != want {
		c.T.Errorf("%s: %s has expected/desired/healthy/allowed %s, want %s", when, name, got, want)
	}
}

func makeBudget(c *ct.Cluster, name string, change func(*policyv1.PodDisruptionBudget)) {
	b := budget(change)
	b.Name, b.Generation = name, 0
	ct.Make(c, b)
}

func makeDeployment(c *ct.Cluster, replicas int32) {
	ct.Make(c, &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
		Spec: appsv1.DeploymentSpec{Replicas: &replicas, Selector: ct.Selector("web"), Template: ct.Template("web", "img")}})
}

// start runs the controllers between a Deployment and its pods.
func start(c *ct.Cluster) (stop func()) {
	return c.Start(New(c.Client), deployment.New(c.Client, nil), replicaset.New(c.Client), ct.Kubelet(c.Client, time.Second, 5*time.Second))
}

func TestFollowsDeployment(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeBudget(c, "min", minAvailable("3"))
		makeBudget(c, "max", maxUnavailable("25%"))
		stop := start(c)
		c.Settle()
		expect(c, "without pods", "min", "0/3/0/0")
		if n := len(c.Events("NoPods")); n != 2 {
			t.Errorf("%d NoPods events, want one for each budget", n)
		}
		makeDeployment(c, 4)
		c.Pass(100 * time.Millisecond)
		expect(c, "pods not ready", "max", "4/3/0/0")
		c.Pass(3 * time.Second)
		expect(c, "pods ready", "min", "4/3/4/1")
		expect(c, "pods ready", "max", "4/3/4/1")

		ct.Change(c, ns, "web", "", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To(int32(8)) })
		c.Pass(3 * time.Second)
		expect(c, "scaled up", "min", "8/3/8/5")
		expect(c, "scaled up", "max", "8/6/8/2")

		one := ct.All[*corev1.Pod](c, ns)[0]
		ct.Change(c, ns, one.Name, "status", func(p *corev1.Pod) { p.Status.Conditions = nil })
		c.Pass(time.Second)
		expect(c, "a pod became unready", "max", "8/6/7/1")

		ct.Change(c, ns, "max", "", maxUnavailable("5"))
		c.Pass(time.Second)
		expect(c, "the budget changed", "max", "8/3/7/4")
		pdb := ct.Get[*policyv1.PodDisruptionBudget](c, ns, "max")
		if pdb.Status.ObservedGeneration != pdb.Generation || pdb.Generation != 2 || pdb.Status.Conditions[0].ObservedGeneration != 2 {
			t.Errorf("generation %d, observed %+v", pdb.Generation, pdb.Status)
		}

		// What happens while nobody looks is found at the next start.
		stop()
		ct.Change(c, ns, one.Name, "status", func(p *corev1.Pod) { ct.MakeReady(p, "10.0.0.9", time.Now()) })
		start(c)
		c.Pass(time.Second)
		expect(c, "after a restart", "max", "8/3/8/5")
		ct.Delete[*appsv1.Deployment](c, ns, "web", metav1.DeleteOptions{})
		c.Pass(time.Second)
		if reason := ct.Get[*policyv1.PodDisruptionBudget](c, ns, "max").Status.Conditions[0].Reason; reason == "SyncFailed" {
			t.Error("without its Deployment, a ReplicaSet's own scale ought to count")
		}
	})
}

func TestScaleThatAQuotaHolds(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeBudget(c, "b", maxUnavailable("1"))
		c.Start(New(c.Client), ct.Kubelet(c.Client, time.Second, time.Second)) // nobody makes pods
		rs := ct.Make(c, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "web"},
			Spec: appsv1.ReplicaSetSpec{Replicas: ptr.To(int32(1)), Selector: ct.Selector("web"), Template: ct.Template("web", "img")}})
		p := makePod(c, "web-a")
		ct.Change(c, ns, p.Name, "", func(p *corev1.Pod) {
			p.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(rs, appsv1.SchemeGroupVersion.WithKind("ReplicaSet"))}
		})
		c.Pass(3 * time.Second)
		expect(c, "one of one", "b", "1/0/1/1")
		ct.Change(c, ns, "web", "", func(rs *appsv1.ReplicaSet) { rs.Spec.Replicas = ptr.To(int32(3)) })
		c.Pass(time.Second)
		expect(c, "one of three", "b", "3/2/1/0")
	})
}

func makePod(c *ct.Cluster, name string) *corev1.Pod {
	tmpl := ct.Template("web", "img")
	return ct.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, Labels: tmpl.Labels}, Spec: tmpl.Spec})
}

func TestGrantedEvictions(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeBudget(c, "b", minAvailable("1"))
		c.Start(New(c.Client), ct.Kubelet(c.Client, time.Second, 5*time.Second))
		for _, name := range []string{"a", "b", "c"} {
			makePod(c, name)
		}
		c.Pass(3 * time.Second)
		expect(c, "three pods of nobody", "b", "3/1/3/2")

		// As the eviction subresource does: a is deleted at once, b never.
		ct.Change(c, ns, "b", "status", func(b *policyv1.PodDisruptionBudget) {
			b.Status.DisruptionsAllowed = 0
			b.Status.DisruptedPods = map[string]metav1.Time{"a": metav1.Now(), "b": metav1.Now()}
		})
		c.Pass(time.Second)
		expect(c, "two granted", "b", "3/1/1/0")
		ct.Delete[*corev1.Pod](c, ns, "a", metav1.DeleteOptions{})
		c.Pass(time.Second)
		d := ct.Get[*policyv1.PodDisruptionBudget](c, ns, "b").Status.DisruptedPods
		if _, ok := d["b"]; !ok || len(d) != 1 {
			t.Errorf("granted and still there: %v, want b", d)
		}
		c.Pass(time.Minute)
		expect(c, "after a minute", "b", "2/1/1/0")
		c.Pass(time.Minute)
		expect(c, "after two minutes", "b", "2/1/2/1")
		if ev := c.Events("NotDeleted"); len(ev) != 1 || !strings.Contains(ev[0], "default/b") {
			t.Errorf("events %q", ev)
		}
	})
}

func TestUnknownControllerAllowsNothing(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeBudget(c, "b", maxUnavailable("1"))
		c.Start(New(c.Client), ct.Kubelet(c.Client, time.Second, 5*time.Second))
		p := makePod(c, "a")
		own := func(apiVersion, kind string) metav1.Condition {
			ct.Change(c, ns, p.Name, "", func(p *corev1.Pod) {
				p.OwnerReferences = nil
				if kind != "" {
					p.OwnerReferences = []metav1.OwnerReference{{APIVersion: apiVersion, Kind: kind, Name: "x", UID: types.UID(kind), Controller: ptr.To(true)}}
				}
			})
			c.Pass(3 * time.Second)
			return ct.Get[*policyv1.PodDisruptionBudget](c, ns, "b").Status.Conditions[0]
		}
		for _, test := range []struct{ apiVersion, kind, want string }{
			{"example.com/v1", "Ship", `no matches for kind "Ship" in version "example.com/v1"`},
			{"v1", "ConfigMap", "configmaps does not implement the scale subresource"},
			{"apps/v1", "ReplicaSet", `found no controllers for pod "a"`},
		} {
			if cond := own(test.apiVersion, test.kind); cond.Reason != "SyncFailed" || cond.Message != test.want {
				t.Errorf("%s: %+v, want %s", test.kind, cond, test.want)
			}
		}
		if n := len(c.Events("CalculateExpectedPodCountFailed")); n != 3 {
			t.Errorf("%d events of failures, want 3", n)
		}
		if cond := own("", ""); cond.Reason != "InsufficientPods" || cond.Message != "" {
			t.Errorf("without a controller: %+v", cond)
		}
	})
}

// TestNeverOverwritesAGrant: between the read and the write of a status an eviction is granted.
func TestNeverOverwritesAGrant(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		makeBudget(c, "b", minAvailable("1"))
		for _, name := range []string{"a", "b", "c"} {
			makePod(c, name)
			ct.Change(c, ns, name, "status", func(p *corev1.Pod) { ct.MakeReady(p, "10.0.0.1", time.Now()) })
		}
		granted := false
		between := interposed{Client: c.Client, beforeUpdate: func() {
			if !granted {
				granted = true
				ct.Change(c, ns, "b", "status", func(b *policyv1.PodDisruptionBudget) {
					b.Status.DisruptedPods = map[string]metav1.Time{"a": metav1.Now()}
				})
			}
		}}
		c.Start(New(between))
		c.Pass(time.Second)
		expect(c, "after the grant", "b", "3/1/2/1")
		if !granted {
			t.Error("no status was written at all")
		}
	})
}

type interposed struct {
	client.Client
	beforeUpdate func()
}

func (i interposed) Update(ctx context.Context, obj api.Object, sub string) (api.Object, error) {
	i.beforeUpdate()
	return i.Client.Update(ctx, obj, sub)
}
