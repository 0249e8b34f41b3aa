package placement

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	storage "k8s.io/component-helpers/storage/volume"
)

// TestTranscripts runs the files of testdata: stories that one can read, and whose answers `go test -rewrite` writes.
//
//	node NAME cpu=2 mem=4Gi pods=110 label=(k=v) taint=(k=v:Effect) cordoned gpu=1
//	place NAME [xN] cpu= mem= ...      places pods (named NAME, or NAME-0 ... with xN); each line says where or why not
//	explain NAME cpu= ...              what every node thinks of such a pod
//	remove-node NAME, remove NAME...   takes a node, or placed pods, away
//	terminating NAME                   marks a placed pod as being deleted
//	pdb NAME app= allowed=             a PodDisruptionBudget
//	claim NAME [bound]
func TestTranscripts(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		tr := &transcript{st: New(Options{})}
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string { return tr.run(t, d) })
	})
}

type transcript struct {
	st *State
}

func (tr *transcript) run(t *testing.T, d *datadriven.TestData) string {
	switch d.Cmd {
	case "node":
		tr.st.SetNode(tr.node(t, d))
	case "remove-node":
		tr.st.RemoveNode(d.CmdArgs[0].Key)
	case "remove":
		for _, a := range d.CmdArgs {
			if !tr.st.RemovePod(types.NamespacedName{Namespace: "default", Name: a.Key}) {
				return a.Key + " is not placed"
			}
		}
	case "terminating":
		pi := tr.st.pods[types.NamespacedName{Namespace: "default", Name: d.CmdArgs[0].Key}]
		p := pi.pod.DeepCopy()
		p.DeletionTimestamp = &metav1.Time{}
		p.Spec.NodeName = pi.nodeName
		tr.st.SetPod(p)
	case "pdb":
		pdb := &policyv1.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: d.CmdArgs[0].Key}}
		for _, a := range d.CmdArgs[1:] {
			switch a.Key {
			case "app":
				pdb.Spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": a.Vals[0]}}
			case "allowed":
				pdb.Status.DisruptionsAllowed = int32(number(t, a.Vals[0]))
			}
		}
		one := intstr.FromInt32(1)
		pdb.Spec.MaxUnavailable = &one
		tr.st.SetBudget(pdb)
	case "claim":
		pvc := &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: d.CmdArgs[0].Key}}
		if d.HasArg("bound") {
			pvc.Spec.VolumeName, pvc.Status.Phase, pvc.Annotations = "pv", corev1.ClaimBound, map[string]string{storage.AnnBindCompleted: "yes"}
			tr.st.Volumes().SetVolume(&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}})
		}
		tr.st.Volumes().SetClaim(pvc)
	case "place":
		var out strings.Builder
		for _, p := range tr.pods(t, d) {
			tr.place(&out, p)
		}
		return out.String()
	case "explain":
		var out strings.Builder
		suitable, reasons := tr.st.Explain(tr.pods(t, d)[0])
		fmt.Fprintf(&out, "suitable: %s\n", strings.Join(suitable, " "))
		for _, r := range reasons {
			fmt.Fprintf(&out, "%s: %s: %s\n", r.Filter.Name, r.Text, strings.Join(r.Nodes, " "))
		}
		return out.String()
	default:
		t.Fatalf("%s: unknown command %s", d.Pos, d.Cmd)
	}
	return ""
}

// place places p, and again in the same words as before if it is still waiting.
func (tr *transcript) place(out *strings.Builder, p *corev1.Pod) {
	dec := tr.st.Place([]*corev1.Pod{p})[0]
	if dec.Node != "" {
		fmt.Fprintf(out, "%s -> %s\n", p.Name, dec.Node)
		return
	}
	fmt.Fprintf(out, "%s: %s\n", p.Name, dec.Rejection.Message())
	for _, v := range dec.Rejection.Victims {
		fmt.Fprintf(out, "  evicts %s\n", v.Name)
	}
}

func number(t *testing.T, s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (tr *transcript) node(t *testing.T, d *datadriven.TestData) *corev1.Node {
	name := d.CmdArgs[0].Key
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{corev1.LabelHostname: name}}}
	n.Status.Allocatable = corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"),
		corev1.ResourcePods: resource.MustParse("110"), corev1.ResourceEphemeralStorage: resource.MustParse("10Gi"),
	}
	for _, a := range d.CmdArgs[1:] {
		switch a.Key {
		case "cpu":
			n.Status.Allocatable[corev1.ResourceCPU] = resource.MustParse(a.Vals[0])
		case "mem":
			n.Status.Allocatable[corev1.ResourceMemory] = resource.MustParse(a.Vals[0])
		case "pods":
			n.Status.Allocatable[corev1.ResourcePods] = resource.MustParse(a.Vals[0])
		case "gpu":
			n.Status.Allocatable["example.com/gpu"] = resource.MustParse(a.Vals[0])
		case "zone":
			n.Labels[corev1.LabelTopologyZone] = a.Vals[0]
		case "disk":
			n.Labels["disk"] = a.Vals[0]
		case "cordoned":
			n.Spec.Unschedulable = true
		case "taint":
			kv, effect, _ := strings.Cut(a.Vals[0], ":")
			k, v, _ := strings.Cut(kv, "/")
			n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: k, Value: v, Effect: corev1.TaintEffect(effect)})
		default:
			t.Fatalf("%s: unknown argument %s", d.Pos, a.Key)
		}
	}
	return n
}

// pods builds the pods of a place or explain command.
func (tr *transcript) pods(t *testing.T, d *datadriven.TestData) []*corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Labels: map[string]string{}}}
	requests := corev1.ResourceList{}
	p.Spec.Containers = []corev1.Container{{Name: "c"}}
	count := 0
	for _, a := range d.CmdArgs[1:] {
		val := ""
		if len(a.Vals) > 0 {
			val = a.Vals[0]
		}
		switch a.Key {
		case "times":
			count = number(t, val)
		case "cpu":
			requests[corev1.ResourceCPU] = resource.MustParse(val)
		case "mem":
			requests[corev1.ResourceMemory] = resource.MustParse(val)
		case "disk-space":
			requests[corev1.ResourceEphemeralStorage] = resource.MustParse(val)
		case "gpu":
			requests["example.com/gpu"] = resource.MustParse(val)
		case "init-cpu":
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: "i", Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(val)}}})
		case "sidecar-cpu":
			always := corev1.ContainerRestartPolicyAlways
			p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{Name: "s", RestartPolicy: &always, Resources: corev1.ResourceRequirements{
				Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(val)}}})
		case "overhead-cpu":
			p.Spec.Overhead = corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(val)}
		case "pod-cpu":
			p.Spec.Resources = &corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(val)}}
		case "app":
			p.Labels["app"] = val
		case "owner":
			yes := true
			p.OwnerReferences = []metav1.OwnerReference{{UID: types.UID(val), Controller: &yes}}
		case "priority":
			n := int32(number(t, val))
			p.Spec.Priority = &n
		case "never":
			never := corev1.PreemptNever
			p.Spec.PreemptionPolicy = &never
		case "port":
			p.Spec.Containers[0].Ports = []corev1.ContainerPort{{HostPort: int32(number(t, val)), Protocol: corev1.ProtocolTCP}}
		case "disk":
			p.Spec.NodeSelector = map[string]string{"disk": val}
		case "on":
			affinity(p).NodeAffinity = &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
				NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
					{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{val}}}}}}}
		case "tolerates":
			p.Spec.Tolerations = append(p.Spec.Tolerations, corev1.Toleration{Key: val, Operator: corev1.TolerationOpExists})
		case "claim":
			p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: val}}}}
		case "with":
			a := affinity(p)
			a.PodAffinity = &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{transcriptTerm(val)}}
		case "without":
			a := affinity(p)
			a.PodAntiAffinity = &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{transcriptTerm(val)}}
		case "spread", "spread-softly":
			by, app, _ := strings.Cut(val, "/")
			when := corev1.DoNotSchedule
			if a.Key != "spread" {
				when = corev1.ScheduleAnyway
			}
			p.Spec.TopologySpreadConstraints = append(p.Spec.TopologySpreadConstraints, corev1.TopologySpreadConstraint{
				MaxSkew: 1, TopologyKey: topologyKey(by), WhenUnsatisfiable: when,
				LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}})
		default:
			t.Fatalf("%s: unknown argument %s", d.Pos, a.Key)
		}
	}
	p.Spec.Containers[0].Resources.Requests = requests
	var out []*corev1.Pod
	for i := range max(1, count) {
		one := p.DeepCopy()
		one.Name = d.CmdArgs[0].Key
		if count > 0 {
			one.Name = fmt.Sprintf("%s-%d", one.Name, i)
		}
		one.UID = types.UID(one.Name)
		out = append(out, one)
	}
	return out
}

func affinity(p *corev1.Pod) *corev1.Affinity {
	if p.Spec.Affinity == nil {
		p.Spec.Affinity = &corev1.Affinity{}
	}
	return p.Spec.Affinity
}

func topologyKey(short string) string {
	switch short {
	case "host":
		return corev1.LabelHostname
	case "zone":
		return corev1.LabelTopologyZone
	}
	return short
}

// transcriptTerm reads zone/web: pods with app=web in the same zone.
func transcriptTerm(s string) corev1.PodAffinityTerm {
	by, app, _ := strings.Cut(s, "/")
	return corev1.PodAffinityTerm{TopologyKey: topologyKey(by), LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}}
}
