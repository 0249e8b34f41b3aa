package workloads

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"
	"k8s.io/kubernetes/pkg/controller/daemon"
	"k8s.io/kubernetes/pkg/controller/daemon/util"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/controller/daemonset"
	"github.com/knarr-io/knarr/internal/controller/workload"
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// drawNode is a node with labels and taints, some of which every pod of a DaemonSet tolerates.
func drawNode(r *rand.Rand, name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"disk": pick(r, "ssd", "hdd"), "rack": pick(r, "1", "2", "3")}}}
	for range r.IntN(3) {
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{
			Key:    pick(r, "a", "b", corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable, corev1.TaintNodeUnschedulable, corev1.TaintNodeMemoryPressure, corev1.TaintNodeNetworkUnavailable),
			Value:  pick(r, "", "x"),
			Effect: pick(r, corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute, corev1.TaintEffectPreferNoSchedule)})
	}
	// The API refuses two taints of one key and effect.
	slices.SortStableFunc(n.Spec.Taints, func(a, b corev1.Taint) int { return len(a.Key+string(a.Effect)) - len(b.Key+string(b.Effect)) })
	n.Spec.Taints = slices.CompactFunc(n.Spec.Taints, func(a, b corev1.Taint) bool { return a.Key == b.Key && a.Effect == b.Effect })
	return n
}

// drawDaemonSet is a set that asks something of its nodes.
func drawDaemonSet(r *rand.Rand) *appsv1.DaemonSet {
	labels := map[string]string{"app": "agent"}
	ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: "agent"}, Spec: appsv1.DaemonSetSpec{
		Selector: &metav1.LabelSelector{MatchLabels: labels},
		Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
			HostNetwork: r.IntN(2) == 0, Containers: []corev1.Container{{Name: "c", Image: "i"}}}}}}
	spec := &ds.Spec.Template.Spec
	if r.IntN(3) == 0 {
		spec.NodeSelector = map[string]string{"disk": pick(r, "ssd", "hdd")}
	}
	if r.IntN(3) == 0 {
		spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
			{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "rack", Operator: pick(r, corev1.NodeSelectorOpIn, corev1.NodeSelectorOpNotIn), Values: []string{"1", "2"}}}},
			{MatchFields: []corev1.NodeSelectorRequirement{{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n3"}}}}}}}}
	}
	for range r.IntN(3) {
		t := corev1.Toleration{Key: pick(r, "a", "b", "", corev1.TaintNodeUnreachable), Operator: pick(r, corev1.TolerationOpExists, corev1.TolerationOpEqual), Value: "x",
			Effect: pick(r, "", corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute)}
		if t.Key == "" || t.Operator == corev1.TolerationOpExists {
			t.Operator, t.Value = corev1.TolerationOpExists, ""
		}
		spec.Tolerations = append(spec.Tolerations, t)
	}
	return ds
}

// TestDaemonSetsGoWhereKubernetesPutsThem: the nodes that get a pod, and what the pods tolerate, are what Kubernetes' controller finds.
func TestDaemonSetsGoWhereKubernetesPutsThem(t *testing.T) {
	eligible, all := 0, 0
	for seed := range uint64(*histories) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := clienttest.New(t)
		ds := clienttest.Create(t, c, drawDaemonSet(r))
		var want []string
		for i := range 12 {
			n := clienttest.Create(t, c, drawNode(r, fmt.Sprint("n", i)))
			if run, _ := daemon.NodeShouldRunDaemonPod(klog.Background(), n, ds); run {
				want = append(want, n.Name)
			}
		}
		if _, err := daemonset.New(c).Reconciler.Reconcile(t.Context(), api.KeyOf(ds)); err != nil {
			t.Fatal(err)
		}
		pods, err := client.List[*corev1.Pod](t.Context(), c, client.ListOptions{Namespace: ds.Namespace})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		template := util.CreatePodTemplate(ds.Spec.Template, nil, "")
		for _, p := range pods {
			node := workload.TargetNode(p)
			got = append(got, node)
			if !apiequality.Semantic.DeepEqual(p.Spec.Tolerations, template.Spec.Tolerations) {
				t.Errorf("seed %d: pods tolerate %v, want %v", seed, p.Spec.Tolerations, template.Spec.Tolerations)
			}
			if want := util.ReplaceDaemonSetPodNodeNameNodeAffinity(template.Spec.Affinity.DeepCopy(), node); !apiequality.Semantic.DeepEqual(p.Spec.Affinity, want) {
				t.Errorf("seed %d: a pod has the affinity %v, want %v", seed, p.Spec.Affinity, want)
			}
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("seed %d: pods for %v, want %v", seed, got, want)
		}
		eligible, all = eligible+len(want), all+12
	}
	if eligible < all/10 || eligible > all*9/10 {
		t.Errorf("%d of %d nodes are eligible: what is drawn tests little", eligible, all)
	}
}
