package podgc

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	ct "github.com/knarr-io/knarr/internal/controller/controllertest"
)

const ns = metav1.NamespaceDefault

func pod(c *ct.Cluster, name, node string, phase corev1.PodPhase) {
	spec := ct.Template("web", "img").Spec
	spec.NodeName = node
	ct.Make(c, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: spec})
	if phase != "" {
		ct.Change(c, ns, name, "status", func(p *corev1.Pod) { p.Status.Phase = phase })
	}
}

func names(c *ct.Cluster) string {
	var out []string
	for _, p := range ct.All[*corev1.Pod](c, ns) {
		out = append(out, p.Name)
	}
	return strings.Join(out, " ")
}

func TestPodsOfMissingNodes(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		for _, n := range []string{"stays", "goes", "returns"} {
			ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n}})
			pod(c, "on-"+n, n, corev1.PodRunning)
		}
		pod(c, "on-none", "none", corev1.PodRunning)
		pod(c, "waiting", "", "")
		c.Start(New(c.Client, 0))
		c.Settle()
		ct.Delete[*corev1.Node](c, "", "goes", metav1.DeleteOptions{})
		ct.Delete[*corev1.Node](c, "", "returns", metav1.DeleteOptions{})
		c.Pass(30 * time.Second)
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "returns"}})
		c.Pass(9 * time.Second)
		if got := names(c); got != "on-goes on-none on-returns on-stays waiting" {
			t.Errorf("after 39 s: %s", got)
		}
		c.Pass(2 * time.Second)
		if got := names(c); got != "on-returns on-stays waiting" {
			t.Errorf("after 41 s: %s", got)
		}
		// The time of the first absence does not count for a second one.
		ct.Delete[*corev1.Node](c, "", "returns", metav1.DeleteOptions{})
		c.Pass(20 * time.Second)
		if got := names(c); got != "on-returns on-stays waiting" {
			t.Errorf("20 s after the second absence began: %s", got)
		}
		c.Pass(25 * time.Second)
		if got := names(c); got != "on-stays waiting" {
			t.Errorf("45 s after the second absence began: %s", got)
		}
	})
}

func TestOutOfService(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		pod(c, "stuck", "n", corev1.PodRunning)
		pod(c, "other", "n", corev1.PodRunning)
		c.Start(New(c.Client, 0))
		ct.Delete[*corev1.Pod](c, ns, "stuck", metav1.DeleteOptions{})
		c.Pass(time.Hour)
		if got := names(c); got != "other stuck" {
			t.Errorf("a lost node that may come back: %s", got)
		}
		ct.Change(c, "", "n", "", func(n *corev1.Node) {
			n.Spec.Taints = []corev1.Taint{{Key: corev1.TaintNodeOutOfService, Value: "nodeshutdown", Effect: corev1.TaintEffectNoExecute}}
		})
		c.Settle()
		if got := names(c); got != "other" {
			t.Errorf("declared out of service: %s", got)
		}
	})
}

func TestThreshold(t *testing.T) {
	ct.Run(t, func(c *ct.Cluster) {
		ct.Make(c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
		c.Start(New(c.Client, 3))
		for i := range 6 {
			pod(c, fmt.Sprintf("p%d", i), "n", corev1.PodSucceeded)
			c.Pass(time.Second)
		}
		pod(c, "running", "n", corev1.PodRunning)
		c.Pass(30 * time.Second)
		if got := names(c); got != "p3 p4 p5 running" {
			t.Errorf("left: %s, want the newest three and the one that runs", got)
		}
	})
}

func TestSurplus(t *testing.T) {
	pod := func(name string, created int64, phase corev1.PodPhase, reason string) *corev1.Pod {
		return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(created, 0))},
			Status: corev1.PodStatus{Phase: phase, Reason: reason}}
	}
	pods := []*corev1.Pod{pod("new", 3, corev1.PodSucceeded, ""), pod("old", 1, corev1.PodFailed, ""), pod("evicted", 9, corev1.PodFailed, "Evicted"),
		pod("running", 0, corev1.PodRunning, ""), pod("also-old", 1, corev1.PodSucceeded, "")}
	for threshold, want := range map[int]string{4: "", 3: "evicted", 2: "evicted also-old", 0: "evicted also-old old new"} {
		var got []string
		for _, p := range surplus(pods, threshold) {
			got = append(got, p.Name)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("threshold %d: %v, want %s", threshold, got, want)
		}
	}
}
