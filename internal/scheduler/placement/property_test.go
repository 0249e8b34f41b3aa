package placement

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

// TestAgreesWithReference drives State through random histories and holds every decision against the reference: same
// feasibility, no better node, same reasons, nothing over-committed.
func TestAgreesWithReference(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		st := New(Options{NoPreemption: true})
		st.manyDomains = rapid.SampledFrom([]int{0, 2, manyDomains}).Draw(t, "many domains")
		st.logSlack = rapid.SampledFrom([]int{0, 4096}).Draw(t, "log slack")
		ref := &reference{nodes: map[string]*corev1.Node{}, namespaces: map[string]labels.Set{}}
		setNamespace := func(t *rapid.T) {
			name := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace")
			ls := map[string]string{"team": rapid.SampledFrom([]string{"x", "y"}).Draw(t, "team")}
			st.SetNamespace(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: ls}})
			ref.namespaces[name] = ls
		}
		setNode := func(t *rapid.T) {
			n := drawNode(t)
			st.SetNode(n)
			ref.nodes[n.Name] = n
		}
		for range rapid.IntRange(1, 6).Draw(t, "nodes") {
			setNode(t)
		}
		serial := 0
		t.Repeat(map[string]func(*rapid.T){
			"namespace": setNamespace,
			"node":      setNode,
			"remove node": func(t *rapid.T) {
				if len(ref.nodes) == 0 {
					t.Skip()
				}
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(ref.nodes))).Draw(t, "node")
				st.RemoveNode(name)
				delete(ref.nodes, name)
			},
			"remove pod": func(t *rapid.T) {
				if len(ref.placed) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(ref.placed)-1).Draw(t, "pod")
				if !st.RemovePod(keyOf(ref.placed[i])) {
					t.Fatalf("%s was not known", ref.placed[i].Name)
				}
				ref.placed = slices.Delete(ref.placed, i, i+1)
			},
			"update pod": func(t *rapid.T) {
				if len(ref.placed) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(ref.placed)-1).Draw(t, "pod")
				p := ref.placed[i].DeepCopy()
				if rapid.Bool().Draw(t, "delete") {
					p.DeletionTimestamp = &metav1.Time{}
				} else {
					p.Labels = drawLabels(t)
				}
				st.SetPod(p)
				ref.placed[i] = p
			},
			"place": func(t *rapid.T) {
				template := drawPod(t)
				for range rapid.IntRange(1, 4).Draw(t, "replicas") {
					serial++
					pod := template.DeepCopy()
					pod.Name, pod.UID = fmt.Sprintf("p%d", serial), types.UID(fmt.Sprintf("u%d", serial))
					compare(t, st, ref, pod)
				}
			},
			"assign": func(t *rapid.T) { // by hand, without asking anybody whether there is room
				serial++
				pod := drawPod(t)
				pod.Name, pod.UID = fmt.Sprintf("p%d", serial), types.UID(fmt.Sprintf("u%d", serial))
				pod.Spec.NodeName = fmt.Sprintf("n%d", rapid.IntRange(0, 7).Draw(t, "i"))
				st.SetPod(pod)
				ref.placed = append(ref.placed, pod)
			},
			"": func(t *rapid.T) { checkCommitments(t, st, ref) },
		})
	})
}

func compare(t *rapid.T, st *State, ref *reference, pod *corev1.Pod) {
	scores, reasons := ref.judge(pod)
	if got, want := st.Feasible(pod), len(scores) > 0; got != want {
		t.Fatalf("Feasible says %t, the reference %t", got, want)
	}
	d := st.Place([]*corev1.Pod{pod})[0]
	if d.Node == "" {
		if len(scores) > 0 {
			t.Fatalf("not placed (%s), the reference finds %v", d.Rejection.Message(), scores)
		}
		if len(ref.nodes) > 0 && !maps.Equal(d.Rejection.Reasons, reasons) {
			t.Fatalf("reasons %v, the reference has %v", d.Rejection.Reasons, reasons)
		}
		return
	}
	score, ok := scores[d.Node]
	if !ok {
		t.Fatalf("placed on %s, the reference finds only %v feasible (reasons %v)", d.Node, scores, reasons)
	}
	bound := pod.DeepCopy()
	bound.Spec.NodeName = d.Node
	ref.placed = append(ref.placed, bound)
	st.SetPod(bound)
	if st.manyDomains != manyDomains && countsDomains(pod) {
		return // how many of many domains are feasible is only estimated, see weighSpread
	}
	if pinOf(pod) != (pin{}) {
		return // there is nothing to choose from
	}
	for name, other := range scores {
		if other > score {
			t.Fatalf("placed on %s with %d, the reference prefers %s: %v", d.Node, score, name, scores)
		}
	}
	if d.Score != score {
		t.Fatalf("score on %s is %d, the reference has %d", d.Node, d.Score, score)
	}
}

// countsDomains says that the scores of pod depend on how many domains other than hosts there are.
func countsDomains(pod *corev1.Pod) bool {
	for _, c := range refConstraints(pod, false) {
		if c.TopologyKey != corev1.LabelHostname {
			return true
		}
	}
	return len(pod.Spec.TopologySpreadConstraints) == 0 && ownerOf(pod) != ""
}

func checkCommitments(t *rapid.T, st *State, ref *reference) {
	for name, n := range ref.nodes {
		i, ok := st.byName[name]
		if !ok {
			t.Fatalf("node %s is missing", name)
		}
		if got, want := st.nodes[i].used.milliCPU.Int64(), ref.used(name, corev1.ResourceCPU); got != want && want < enormous {
			t.Fatalf("node %s has %dm in use, should be %dm", name, got, want)
		}
		if got, want := int(st.nodes[i].pods), len(ref.on(name)); got != want {
			t.Fatalf("node %s has %d pods, should be %d", name, got, want)
		}
		_ = n
	}
}

func keyOf(p *corev1.Pod) types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Name}
}

func drawNode(t *rapid.T) *corev1.Node {
	i := rapid.IntRange(0, 7).Draw(t, "i")
	name := fmt.Sprintf("n%d", i)
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if z := rapid.SampledFrom([]string{"", "z1", "z2", "z3"}).Draw(t, "zone"); z != "" {
		n.Labels[corev1.LabelTopologyZone] = z
	}
	if r := rapid.SampledFrom([]string{"", "r1", "r2"}).Draw(t, "rack"); r != "" {
		n.Labels["rack"] = r
	}
	if rapid.IntRange(0, 9).Draw(t, "bare") == 0 {
		delete(n.Labels, corev1.LabelHostname)
	}
	n.Spec.Unschedulable = rapid.IntRange(0, 9).Draw(t, "cordoned") == 0
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute} {
		if rapid.IntRange(0, 6).Draw(t, "taint") == 0 {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "t", Value: rapid.SampledFrom([]string{"1", "2"}).Draw(t, "value"), Effect: effect})
		}
	}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewMilliQuantity(int64(rapid.IntRange(1, 8).Draw(t, "cpu"))*500, resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(int64(rapid.IntRange(1, 8).Draw(t, "mem"))<<30, resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(int64(rapid.IntRange(2, 8).Draw(t, "pods")), resource.DecimalSI),
	}
	if rapid.Bool().Draw(t, "declares") {
		n.Status.DeclaredFeatures = []string{"RestartAllContainersOnContainerExits", "SomethingNew"}
	}
	if rapid.Bool().Draw(t, "gpus") {
		n.Status.Allocatable["example.com/gpu"] = *resource.NewQuantity(2, resource.DecimalSI)
	}
	return n
}

func drawLabels(t *rapid.T) map[string]string {
	return map[string]string{
		"app":  rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app"),
		"tier": rapid.SampledFrom([]string{"1", "2"}).Draw(t, "tier"),
	}
}

func drawSelector(t *rapid.T) *metav1.LabelSelector {
	switch rapid.IntRange(0, 5).Draw(t, "selector") {
	case 0:
		return &metav1.LabelSelector{}
	case 1:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"1"}}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": rapid.SampledFrom([]string{"web", "db"}).Draw(t, "app")}}
}

var topologyKeys = []string{corev1.LabelHostname, corev1.LabelTopologyZone, "rack"}

func drawTerm(t *rapid.T) corev1.PodAffinityTerm {
	term := corev1.PodAffinityTerm{LabelSelector: drawSelector(t), TopologyKey: rapid.SampledFrom(topologyKeys).Draw(t, "key")}
	switch rapid.IntRange(0, 5).Draw(t, "namespaces") {
	case 0:
		term.Namespaces = []string{"b"}
	case 1:
		term.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
	case 2:
		term.NamespaceSelector = &metav1.LabelSelector{}
	}
	return term
}

func drawAffinity(t *rapid.T) *corev1.Affinity {
	a := &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}}
	one := func(what string) bool { return rapid.IntRange(0, 3).Draw(t, what) == 0 }
	for range 2 {
		if one("affinity") {
			a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution, drawTerm(t))
		}
		if one("liked") {
			a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PodAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
				corev1.WeightedPodAffinityTerm{Weight: int32(rapid.IntRange(1, 10).Draw(t, "weight")), PodAffinityTerm: drawTerm(t)})
		}
		if one("anti") {
			a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = append(a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution, drawTerm(t))
		}
		if one("disliked") {
			a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution = append(a.PodAntiAffinity.PreferredDuringSchedulingIgnoredDuringExecution,
				corev1.WeightedPodAffinityTerm{Weight: int32(rapid.IntRange(1, 10).Draw(t, "weight")), PodAffinityTerm: drawTerm(t)})
		}
	}
	if one("nodes") {
		a.NodeAffinity = &corev1.NodeAffinity{PreferredDuringSchedulingIgnoredDuringExecution: []corev1.PreferredSchedulingTerm{{
			Weight:     int32(rapid.IntRange(1, 10).Draw(t, "weight")),
			Preference: corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "rack", Operator: corev1.NodeSelectorOpExists}}},
		}}}
	}
	return a
}

// pinByName adds a required node affinity to p: term, and the name of the node.
func pinByName(p *corev1.Pod, term corev1.NodeSelectorTerm, name string) {
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	if p.Spec.Affinity.NodeAffinity == nil {
		p.Spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	term.MatchFields = []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{name}}}
	p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{term}}
}

func drawPod(t *rapid.T) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: rapid.SampledFrom([]string{"a", "b"}).Draw(t, "namespace"), Labels: drawLabels(t)}}
	requests := corev1.ResourceList{}
	if cpu := rapid.IntRange(0, 8).Draw(t, "cpu"); cpu > 0 {
		requests[corev1.ResourceCPU] = *resource.NewMilliQuantity(int64(cpu)*100, resource.DecimalSI)
	}
	if mem := rapid.IntRange(0, 4).Draw(t, "mem"); mem > 0 {
		requests[corev1.ResourceMemory] = *resource.NewQuantity(int64(mem)<<28, resource.BinarySI)
	}
	switch rapid.IntRange(0, 15).Draw(t, "enormous") { // beyond what an int64 holds, in bytes or in thousandths
	case 0:
		requests[corev1.ResourceMemory] = resource.MustParse("12E")
	case 1:
		requests[corev1.ResourceCPU] = resource.MustParse("10P")
	}
	if rapid.IntRange(0, 6).Draw(t, "gpu") == 0 {
		requests["example.com/gpu"] = *resource.NewQuantity(1, resource.DecimalSI)
	}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: requests}}}
	if rapid.IntRange(0, 6).Draw(t, "restarts all") == 0 {
		p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}
	}
	if rapid.IntRange(0, 6).Draw(t, "port") == 0 {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80, Protocol: corev1.ProtocolTCP}}
	}
	if rapid.IntRange(0, 4).Draw(t, "selects") == 0 {
		p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "z1"}
	}
	name := fmt.Sprintf("n%d", rapid.IntRange(0, 7).Draw(t, "named"))
	switch rapid.IntRange(0, 11).Draw(t, "pinned") {
	case 0:
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: name}
	case 1:
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: name, corev1.LabelTopologyZone: "z1"}
	case 2:
		defer pinByName(p, corev1.NodeSelectorTerm{}, name)
	case 3:
		defer pinByName(p, corev1.NodeSelectorTerm{MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "rack", Operator: corev1.NodeSelectorOpExists}}}, name)
	}
	if rapid.IntRange(0, 2).Draw(t, "tolerates") == 0 {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "t", Operator: corev1.TolerationOpEqual, Value: "1"}}
	}
	if rapid.Bool().Draw(t, "owned") {
		yes := true
		p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(rapid.SampledFrom([]string{"o1", "o2"}).Draw(t, "owner")), Controller: &yes}}
	}
	if rapid.Bool().Draw(t, "affine") {
		p.Spec.Affinity = drawAffinity(t)
	}
	for range rapid.IntRange(0, 2).Draw(t, "constraints") {
		c := corev1.TopologySpreadConstraint{
			MaxSkew:           int32(rapid.IntRange(1, 3).Draw(t, "skew")),
			TopologyKey:       rapid.SampledFrom(topologyKeys).Draw(t, "key"),
			WhenUnsatisfiable: rapid.SampledFrom([]corev1.UnsatisfiableConstraintAction{corev1.DoNotSchedule, corev1.ScheduleAnyway}).Draw(t, "when"),
			LabelSelector:     drawSelector(t),
		}
		honor, ignore := corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
		c.NodeAffinityPolicy = rapid.SampledFrom([]*corev1.NodeInclusionPolicy{nil, &honor, &ignore}).Draw(t, "affinity policy")
		c.NodeTaintsPolicy = rapid.SampledFrom([]*corev1.NodeInclusionPolicy{nil, &honor, &ignore}).Draw(t, "taints policy")
		if c.WhenUnsatisfiable == corev1.DoNotSchedule && rapid.Bool().Draw(t, "min domains") {
			k := int32(rapid.IntRange(1, 3).Draw(t, "k"))
			c.MinDomains = &k
		}
		if rapid.Bool().Draw(t, "label keys") {
			c.MatchLabelKeys = []string{"tier"}
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, c)
	}
	return p
}
