package scheduling

import (
	"context"
	"flag"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/kubernetes/pkg/scheduler/backend/cache"
	"k8s.io/kubernetes/pkg/scheduler/framework"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins"
	"k8s.io/kubernetes/pkg/scheduler/framework/plugins/names"
	frameworkruntime "k8s.io/kubernetes/pkg/scheduler/framework/runtime"
	"k8s.io/kubernetes/pkg/scheduler/metrics"
	tf "k8s.io/kubernetes/pkg/scheduler/testing/framework"

	"github.com/knarr-io/knarr/internal/scheduler/placement"
)

var seeds = flag.Int("seeds", 300, "how many clusters")

// TestFeasibleNodesAreKubernetes: for every pod, kube-scheduler's filters and placement leave the same nodes.
func TestFeasibleNodesAreKubernetes(t *testing.T) {
	metrics.Register()
	fits, pairs := 0, 0
	for seed := range *seeds {
		c := draw(rand.New(rand.NewSource(int64(seed))))
		theirs := newKubeScheduler(t, c)
		ours := placement.New(placement.Options{NoPreemption: true})
		for _, ns := range c.namespaces {
			ours.SetNamespace(ns)
		}
		for _, n := range c.nodes {
			ours.SetNode(n)
		}
		for _, p := range c.placed {
			ours.SetPod(p)
		}
		for _, p := range c.pending {
			want, reasons := theirs.feasible(t, p)
			got, why := ours.Explain(p)
			fits, pairs = fits+len(want), pairs+len(c.nodes)
			if !slices.Equal(got, want) {
				t.Errorf("seed %d, pod %s: Knarr finds %v, kube-scheduler %v\nKnarr: %v\nkube-scheduler: %v", seed, p.Name, got, want, why, reasons)
			}
		}
	}
	if fits < pairs/50 || fits > pairs/2 {
		t.Errorf("%d of %d pairs of pod and node fit: what is drawn tests little", fits, pairs)
	}
	t.Logf("%d pairs of pod and node, of which %d fit", pairs, fits)
}

// kubeScheduler is its framework with the default profile's filters, but for volumes.
type kubeScheduler struct {
	framework framework.Framework
	snapshot  *cache.Snapshot
}

func newKubeScheduler(t *testing.T, c *cluster) *kubeScheduler {
	ctx := t.Context()
	var objs []runtime.Object
	for _, ns := range c.namespaces {
		objs = append(objs, ns)
	}
	factory := informers.NewSharedInformerFactory(fake.NewClientset(objs...), 0)
	registry := plugins.NewInTreeRegistry()
	fns := []tf.RegisterPluginFunc{
		tf.RegisterQueueSortPlugin(names.PrioritySort, registry[names.PrioritySort]),
		tf.RegisterBindPlugin(names.DefaultBinder, registry[names.DefaultBinder]),
		tf.RegisterPluginAsExtensions(names.NodeUnschedulable, registry[names.NodeUnschedulable], "Filter"),
		tf.RegisterPluginAsExtensions(names.TaintToleration, registry[names.TaintToleration], "Filter"),
	}
	for _, name := range []string{names.NodeAffinity, names.NodePorts, names.NodeResourcesFit, names.PodTopologySpread, names.InterPodAffinity, names.NodeDeclaredFeatures} {
		fns = append(fns, tf.RegisterPluginAsExtensions(name, registry[name], "PreFilter", "Filter"))
	}
	snapshot := cache.NewSnapshot(c.placed, c.nodes)
	f, err := tf.NewFramework(ctx, fns, "default-scheduler",
		frameworkruntime.WithSnapshotSharedLister(snapshot), frameworkruntime.WithInformerFactory(factory))
	if err != nil {
		t.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	return &kubeScheduler{f, snapshot}
}

func (k *kubeScheduler) feasible(t *testing.T, pod *corev1.Pod) (nodes, reasons []string) {
	ctx := context.Background()
	state := framework.NewCycleState()
	result, status, _ := k.framework.RunPreFilterPlugins(ctx, state, pod)
	if !status.IsSuccess() {
		return nil, []string{status.Message()}
	}
	all, err := k.snapshot.NodeInfos().List()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		name := n.Node().Name
		if !result.AllNodes() && !result.NodeNames.Has(name) {
			reasons = append(reasons, name+": not among those of PreFilter")
			continue
		}
		if status := k.framework.RunFilterPlugins(ctx, state, pod, n); !status.IsSuccess() {
			reasons = append(reasons, fmt.Sprintf("%s: %s: %s", name, status.Plugin(), status.Message()))
			continue
		}
		nodes = append(nodes, name)
	}
	slices.Sort(nodes)
	return nodes, reasons
}
