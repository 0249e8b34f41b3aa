package daemonset

import (
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/klog/v2"

	"github.com/knarr-io/knarr/internal/controller/workload"
)

// generationLabel has the number of the template, as older versions of Kubernetes count them.
const generationLabel = "pod-template-generation"

func setKind() schema.GroupVersionKind { return appsv1.SchemeGroupVersion.WithKind("DaemonSet") }

// fit says which nodes are a DaemonSet's. The scheduler's filters use the same library for the same questions; resources and ports are
// its matter alone: a pod that finds none waits on its node.
type fit struct {
	nodeName    string
	required    nodeaffinity.RequiredNodeAffinity
	tolerations []corev1.Toleration
}

func fitOf(ds *appsv1.DaemonSet) fit {
	spec := &ds.Spec.Template.Spec
	return fit{spec.NodeName, nodeaffinity.NewRequiredNodeAffinity(spec.NodeSelector, spec.Affinity), tolerations(spec)}
}

// judge reports whether a node is to run a pod, and whether one that runs there may stay: a taint NoSchedule keeps new ones off, a taint
// NoExecute ends those that are there.
func (f *fit) judge(n *corev1.Node) (run, stay bool) {
	if f.nodeName != "" && f.nodeName != n.Name {
		return false, false
	}
	if ok, err := f.required.Match(n); !ok || err != nil {
		return false, false
	}
	run, stay = true, true
	for i := range n.Spec.Taints {
		t := &n.Spec.Taints[i]
		if t.Effect == corev1.TaintEffectPreferNoSchedule || f.tolerates(t) {
			continue
		}
		run = false
		stay = stay && t.Effect != corev1.TaintEffectNoExecute
	}
	return run, stay
}

func (f *fit) tolerates(t *corev1.Taint) bool {
	return slices.ContainsFunc(f.tolerations, func(tol corev1.Toleration) bool { return tol.ToleratesTaint(klog.Logger{}, t, false) })
}

// tolerations returns those of a template and those that every pod of a DaemonSet has, so that it runs on nodes that others leave
// (https://kubernetes.io/docs/concepts/workloads/controllers/daemonset/#taints-and-tolerations).
func tolerations(spec *corev1.PodSpec) []corev1.Toleration {
	out := slices.Clone(spec.Tolerations)
	add := func(key string, effect corev1.TaintEffect) {
		t := corev1.Toleration{Key: key, Operator: corev1.TolerationOpExists, Effect: effect}
		if i := slices.IndexFunc(out, func(o corev1.Toleration) bool { return t.MatchToleration(&o) }); i >= 0 {
			out[i] = t
			return
		}
		out = append(out, t)
	}
	add(corev1.TaintNodeNotReady, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeUnreachable, corev1.TaintEffectNoExecute)
	add(corev1.TaintNodeDiskPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeMemoryPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodePIDPressure, corev1.TaintEffectNoSchedule)
	add(corev1.TaintNodeUnschedulable, corev1.TaintEffectNoSchedule)
	if spec.HostNetwork {
		add(corev1.TaintNodeNetworkUnavailable, corev1.TaintEffectNoSchedule)
	}
	return out
}

// generationOf returns the number of ds's template as text, "" where there is none.
func generationOf(ds *appsv1.DaemonSet) string {
	return ds.Annotations[appsv1.DeprecatedTemplateGeneration]
}

// newPod returns the pod of ds for a node. The scheduler binds it there, and nowhere else.
func newPod(ds *appsv1.DaemonSet, hash, node string) *corev1.Pod {
	p := workload.NewPod(ds, setKind(), &ds.Spec.Template)
	p.Labels = maps.Clone(p.Labels)
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[appsv1.DefaultDaemonSetUniqueLabelKey] = hash
	if g := generationOf(ds); g != "" {
		p.Labels[generationLabel] = g
	}
	p.Spec.Tolerations = tolerations(&p.Spec)
	pin(&p.Spec, node)
	return p
}

// pin makes a node the only one that satisfies the pod's required node affinity. That of the template was held against it already.
func pin(spec *corev1.PodSpec, node string) {
	if spec.Affinity == nil {
		spec.Affinity = &corev1.Affinity{}
	}
	if spec.Affinity.NodeAffinity == nil {
		spec.Affinity.NodeAffinity = &corev1.NodeAffinity{}
	}
	spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution = &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
		MatchFields: []corev1.NodeSelectorRequirement{{Key: metav1.ObjectNameField, Operator: corev1.NodeSelectorOpIn, Values: []string{node}}}}}}
}
