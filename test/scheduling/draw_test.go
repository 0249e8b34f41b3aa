package scheduling

import (
	"fmt"
	"math/rand"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// cluster is what both schedulers see.
type cluster struct {
	namespaces      []*corev1.Namespace
	nodes           []*corev1.Node
	placed, pending []*corev1.Pod
}

// dice draws.
type dice struct{ *rand.Rand }

func (d dice) one(in int) bool                           { return d.Intn(in) == 0 }
func (d dice) of(list ...string) string                  { return list[d.Intn(len(list))] }
func (d dice) quantity(list ...string) resource.Quantity { return resource.MustParse(d.of(list...)) }

func draw(r *rand.Rand) *cluster {
	d := dice{r}
	c := &cluster{}
	for _, name := range []string{"a", "b"} {
		c.namespaces = append(c.namespaces, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"team": d.of("x", "y")}}})
	}
	for i := range 1 + d.Intn(8) {
		c.nodes = append(c.nodes, d.node(fmt.Sprintf("n%d", i)))
	}
	for i := range d.Intn(16) {
		p := d.pod(fmt.Sprintf("placed%d", i))
		p.Spec.NodeName = c.nodes[d.Intn(len(c.nodes))].Name
		c.placed = append(c.placed, p)
	}
	for i := range 10 {
		c.pending = append(c.pending, d.pod(fmt.Sprintf("pending%d", i)))
	}
	return c
}

func (d dice) node(name string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	if z := d.of("", "z1", "z2", "z3"); z != "" {
		n.Labels[corev1.LabelTopologyZone] = z
	}
	if r := d.of("", "r1", "r2"); r != "" {
		n.Labels["rack"] = r
	}
	n.Spec.Unschedulable = d.one(10)
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectPreferNoSchedule, corev1.TaintEffectNoExecute} {
		if d.one(6) {
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: "t", Value: d.of("1", "2"), Effect: effect})
		}
	}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: d.quantity("500m", "1", "4"), corev1.ResourceMemory: d.quantity("1Gi", "2Gi", "8Gi"), corev1.ResourcePods: d.quantity("2", "4", "110"),
	}
	if d.one(2) {
		n.Status.Allocatable["example.com/gpu"] = d.quantity("1", "2")
	}
	if d.one(2) {
		n.Status.Allocatable[corev1.ResourceEphemeralStorage] = d.quantity("1Gi", "10Gi")
	}
	if d.one(2) {
		n.Status.DeclaredFeatures = []string{"RestartAllContainersOnContainerExits"}
	}
	return n
}

func (d dice) requests() corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, list := range map[corev1.ResourceName][]string{
		corev1.ResourceCPU: {"100m", "500m", "1"}, corev1.ResourceMemory: {"100Mi", "1Gi", "2Gi"},
	} {
		if d.one(2) {
			out[name] = d.quantity(list...)
		}
	}
	if d.one(6) {
		out["example.com/gpu"] = d.quantity("1")
	}
	if d.one(6) {
		out[corev1.ResourceEphemeralStorage] = d.quantity("500Mi", "5Gi")
	}
	return out
}

func (d dice) selector() *metav1.LabelSelector {
	switch d.Intn(6) {
	case 0:
		return &metav1.LabelSelector{}
	case 1:
		return &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "tier", Operator: metav1.LabelSelectorOpNotIn, Values: []string{"1"}}}}
	}
	return &metav1.LabelSelector{MatchLabels: map[string]string{"app": d.of("web", "db")}}
}

func (d dice) key() string { return d.of(corev1.LabelHostname, corev1.LabelTopologyZone, "rack") }

func (d dice) term() corev1.PodAffinityTerm {
	t := corev1.PodAffinityTerm{LabelSelector: d.selector(), TopologyKey: d.key()}
	switch d.Intn(6) {
	case 0:
		t.Namespaces = []string{"b"}
	case 1:
		t.NamespaceSelector = &metav1.LabelSelector{MatchLabels: map[string]string{"team": "x"}}
	case 2:
		t.NamespaceSelector = &metav1.LabelSelector{}
	}
	return t
}

func (d dice) pod(name string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: d.of("a", "b"), Name: name, UID: types.UID(name),
		Labels: map[string]string{"app": d.of("web", "db"), "tier": d.of("1", "2")}}}
	p.Spec.Containers = []corev1.Container{{Name: "c", Resources: corev1.ResourceRequirements{Requests: d.requests()}}}
	if d.one(4) {
		always := corev1.ContainerRestartPolicyAlways
		p.Spec.InitContainers = []corev1.Container{{Name: "i", Resources: corev1.ResourceRequirements{Requests: d.requests()}}}
		if d.one(2) {
			p.Spec.InitContainers[0].RestartPolicy = &always
		}
	}
	if d.one(5) {
		p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: 80, ContainerPort: 80, HostIP: d.of("", "0.0.0.0", "192.0.2.1"), Protocol: corev1.ProtocolTCP}}
	}
	if d.one(7) {
		p.Spec.Containers[0].RestartPolicyRules = []corev1.ContainerRestartRule{{Action: corev1.ContainerRestartRuleActionRestartAllContainers}}
	}
	switch d.Intn(8) {
	case 0:
		p.Spec.NodeSelector = map[string]string{corev1.LabelTopologyZone: "z1"}
	case 1:
		p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: d.of("n0", "n1", "n9")}
	}
	if d.one(2) {
		p.Spec.Tolerations = []corev1.Toleration{{Key: "t", Operator: corev1.TolerationOpEqual, Value: "1"}}
	}
	if d.one(10) {
		p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Operator: corev1.TolerationOpExists})
	}
	a := &corev1.Affinity{PodAffinity: &corev1.PodAffinity{}, PodAntiAffinity: &corev1.PodAntiAffinity{}}
	if d.one(5) {
		a.PodAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{d.term()}
	}
	if d.one(5) {
		a.PodAntiAffinity.RequiredDuringSchedulingIgnoredDuringExecution = []corev1.PodAffinityTerm{d.term()}
	}
	if d.one(6) {
		a.NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{d.of("n0", "n1", "n9")}}}}}}}
	}
	p.Spec.Affinity = a
	for range d.Intn(3) {
		s := corev1.TopologySpreadConstraint{MaxSkew: int32(1 + d.Intn(3)), TopologyKey: d.key(), WhenUnsatisfiable: corev1.DoNotSchedule, LabelSelector: d.selector()}
		honor, ignore := corev1.NodeInclusionPolicyHonor, corev1.NodeInclusionPolicyIgnore
		s.NodeAffinityPolicy = []*corev1.NodeInclusionPolicy{nil, &honor, &ignore}[d.Intn(3)]
		s.NodeTaintsPolicy = []*corev1.NodeInclusionPolicy{nil, &honor, &ignore}[d.Intn(3)]
		if d.one(3) {
			k := int32(1 + d.Intn(3))
			s.MinDomains = &k
		}
		if d.one(3) {
			s.MatchLabelKeys = []string{"tier"}
		}
		p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, s)
	}
	return p
}
