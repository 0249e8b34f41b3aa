package placement

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// BenchmarkPlace measures placing alone, in pods per second: pods of 20 owners come in turn, in batches of 500, and each
// batch is confirmed as bound as it would be by the watch. Building pods is not counted.
func BenchmarkPlace(b *testing.B) {
	kinds := []struct {
		name string
		spec func(p *corev1.Pod)
	}{
		{"plain", func(*corev1.Pod) {}},
		{"owned", owned}, // what ReplicaSets make: default spreading over hosts and zones
		{"spread", func(p *corev1.Pod) { owned(p); spreadOver(p, corev1.LabelTopologyZone, corev1.DoNotSchedule) }},
		{"spreadhost", func(p *corev1.Pod) { owned(p); spreadOver(p, corev1.LabelHostname, corev1.DoNotSchedule) }},
		{"antiaffinity", func(p *corev1.Pod) { owned(p); apart(p) }},
		{"preferred", func(p *corev1.Pod) { owned(p); rather(p) }},
	}
	for _, kind := range kinds {
		for _, size := range []struct{ nodes, pods int }{{5000, 10000}, {5000, 50000}} {
			b.Run(fmt.Sprintf("%s/nodes=%d/pods=%d", kind.name, size.nodes, size.pods), func(b *testing.B) {
				benchmarkPlace(b, size.nodes, size.pods, 0, kind.spec)
			})
		}
	}
	// A DaemonSet's pods, each of which names its node: the cost per pod must not grow with the nodes either.
	for _, nodes := range []int{1000, 2000, 15000} {
		b.Run(fmt.Sprintf("pinned/nodes=%d", nodes), func(b *testing.B) { benchmarkPlace(b, nodes, nodes, 1, pinned) })
		b.Run(fmt.Sprintf("pinnedhost/nodes=%d", nodes), func(b *testing.B) { benchmarkPlace(b, nodes, nodes, 1, pinnedHost) })
	}
	// The cost per pod must not grow with the nodes. Each class looks at every node once, when its first pod comes: that is
	// what class measures; flat measures the pods after that, both all of it.
	for _, nodes := range []int{100, 1000, 10000} {
		b.Run(fmt.Sprintf("flat/nodes=%d/pods=10000", nodes), func(b *testing.B) { benchmarkPlace(b, nodes, 10000, 20, owned) })
		b.Run(fmt.Sprintf("class/nodes=%d", nodes), func(b *testing.B) { benchmarkPlace(b, nodes, 20, 0, owned) })
		b.Run(fmt.Sprintf("both/nodes=%d/pods=10000", nodes), func(b *testing.B) { benchmarkPlace(b, nodes, 10000, 0, owned) })
	}
}

// benchmarkPlace places pods, the first warm of them before the clock starts.
func benchmarkPlace(b *testing.B, nodes, pods, warm int, spec func(*corev1.Pod)) {
	b.ReportAllocs()
	var used time.Duration
	for range b.N {
		b.StopTimer()
		st := New(Options{})
		for i := range nodes {
			st.SetNode(benchNode(i))
		}
		all := make([]*corev1.Pod, pods)
		for i := range all {
			all[i] = benchPod(i)
			spec(all[i])
		}
		placeAll(b, st, all[:warm])
		began := processorTime(b)
		b.StartTimer()
		placeAll(b, st, all[warm:])
		b.StopTimer()
		used += processorTime(b) - began
		b.StartTimer()
	}
	pods -= warm
	b.ReportMetric(float64(pods*b.N)/b.Elapsed().Seconds(), "pods/s")
	b.ReportMetric(used.Seconds()*1e6/float64(pods*b.N), "cpu-us/pod")
}

// processorTime is what the process has used: unlike the time that passes, it means something on a machine with other work.
func processorTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func placeAll(b *testing.B, st *State, pods []*corev1.Pod) {
	for start := 0; start < len(pods); start += 500 {
		for _, d := range st.Place(pods[start:min(start+500, len(pods))]) {
			if d.Node == "" {
				b.Fatal(d.Rejection.Message())
			}
			bound := *d.Pod
			bound.Spec.NodeName = d.Node
			st.SetPod(&bound)
		}
	}
}

func benchNode(i int) *corev1.Node {
	name := fmt.Sprintf("node-%d", i)
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{
			corev1.LabelHostname: name, corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%3),
		}},
		Status: corev1.NodeStatus{Allocatable: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("64"),
			corev1.ResourceMemory: resource.MustParse("256Gi"),
			corev1.ResourcePods:   resource.MustParse("110"),
		}},
	}
}

func benchPod(i int) *corev1.Pod {
	app := fmt.Sprintf("app-%d", i%20)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: fmt.Sprintf("%s-%d", app, i), UID: types.UID(fmt.Sprintf("uid-%d", i)),
			Labels: map[string]string{"app": app, "pod-template-hash": "5d4f8c7b9"},
		},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU:    resource.MustParse("100m"),
			corev1.ResourceMemory: resource.MustParse("128Mi"),
		}}}}},
	}
}

func owned(p *corev1.Pod) {
	yes := true
	p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(p.Labels["app"]), Controller: &yes}}
}

// ordinal is the i that benchPod was called with.
func ordinal(p *corev1.Pod) string { return p.Name[strings.LastIndexByte(p.Name, '-')+1:] }

// pinned makes the pod a DaemonSet's: the DaemonSet controller names the node so.
func pinned(p *corev1.Pod) {
	p.Labels["app"] = "agent"
	owned(p)
	pinByName(p, corev1.NodeSelectorTerm{}, "node-"+ordinal(p))
}

func pinnedHost(p *corev1.Pod) {
	p.Labels["app"] = "agent"
	owned(p)
	p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: "node-" + ordinal(p)}
}

func own(p *corev1.Pod) *metav1.LabelSelector {
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": p.Labels["app"]}}
}

func spreadOver(p *corev1.Pod, key string, when corev1.UnsatisfiableConstraintAction) {
	p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 1, TopologyKey: key, WhenUnsatisfiable: when, LabelSelector: own(p),
	}}
}

func apart(p *corev1.Pod) {
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{TopologyKey: corev1.LabelHostname, LabelSelector: own(p)}},
	}}
}

func rather(p *corev1.Pod) {
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
		PreferredDuringSchedulingIgnoredDuringExecution: []corev1.WeightedPodAffinityTerm{{Weight: 10,
			PodAffinityTerm: corev1.PodAffinityTerm{TopologyKey: corev1.LabelHostname, LabelSelector: own(p)}}},
	}}
}
