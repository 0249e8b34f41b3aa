package placement

import (
	"encoding/binary"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	apitypes "k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/nodedeclaredfeatures/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/knarr-io/knarr/internal/amount"
)

// shape is everything about a pod that matters to the placing of pods, itself or others. The replicas of a ReplicaSet
// share one. Shapes are interned in State.shapes and live as long as pods have them, and a little longer.
type shape struct {
	key  string
	refs int

	namespace     string
	labels        labels.Set
	owner         apitypes.UID // of the controller
	terminating   bool         // being deleted: still there, but no longer counted by spreading
	priority      int32
	requests      resources
	assumedCPU    int64 // milli; with an assumed amount for containers that state none
	assumedMemory int64
	ports         []hostPort
	tolerations   []corev1.Toleration
	constrained   bool // has a node selector or required node affinity
	features      featureSet
	pinned        bool // such pods name their node, see pin
	choosy        bool // nodes that are open and alike in room may differ for it
	required      nodeaffinity.RequiredNodeAffinity
	preferred     *nodeaffinity.PreferredSchedulingTerms
	affinity      affinityTerms
	spread        []spreadConstraint
	ownSpread     bool // spread is the pod's own and not the default

	counters []*counter      // that count pods of this shape
	carried  []*carriedTerm  // terms with which placed pods of this shape act on others
	onNode   map[int32]int32 // placed pods by node
	class    *class          // how to place such pods; nil until needed
	classGen uint64          // State.rulesGen for which class holds
	staticID string          // the part of key that does not depend on namespace, labels and owner
}

// keyWriter writes the parts of a shape's key, each with its length, so that different pods never have equal keys.
type keyWriter struct {
	buf  []byte
	info types.PodInfo // scratch
}

func (w *keyWriter) string(s string) {
	w.buf = binary.AppendUvarint(w.buf, uint64(len(s)))
	w.buf = append(w.buf, s...)
}

func (w *keyWriter) int(i int64) { w.buf = binary.AppendVarint(w.buf, i) }

func (w *keyWriter) bool(b bool) {
	if b {
		w.buf = append(w.buf, 1)
	} else {
		w.buf = append(w.buf, 0)
	}
}

func (w *keyWriter) marshal(m interface{ Marshal() ([]byte, error) }) {
	b, err := m.Marshal()
	if err != nil { // cannot happen: the objects came from the API
		b = []byte(err.Error())
	}
	w.int(int64(len(b)))
	w.buf = append(w.buf, b...)
}

func (w *keyWriter) strings(m map[string]string) {
	w.int(int64(len(m)))
	switch len(m) {
	case 0:
		return
	case 1:
		for k, v := range m {
			w.string(k)
			w.string(v)
		}
		return
	}
	var few [8]string
	keys := few[:0]
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		w.string(k)
		w.string(m[k])
	}
}

func (w *keyWriter) resources(list corev1.ResourceList) {
	w.int(int64(len(list)))
	if len(list) == 0 {
		return
	}
	names := make([]string, 0, 8)
	for name := range list {
		names = append(names, string(name))
	}
	slices.Sort(names)
	for _, name := range names {
		q := list[corev1.ResourceName(name)]
		w.string(name)
		w.int(amount.Of(corev1.ResourceName(name), q))
	}
}

func (w *keyWriter) containers(cs []corev1.Container) {
	w.int(int64(len(cs)))
	for i := range cs {
		c := &cs[i]
		w.resources(c.Resources.Requests)
		w.bool(c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways)
		for j := range c.Ports {
			if p := &c.Ports[j]; p.HostPort > 0 {
				w.string(p.HostIP)
				w.string(string(p.Protocol))
				w.int(int64(p.HostPort))
			}
		}
		w.bool(false) // ends the ports
	}
}

// nodes writes what a pod asks of nodes, but for the node that it names.
func (w *keyWriter) nodes(spec *corev1.PodSpec, p pin) {
	w.bool(p != pin{})
	if p == (pin{}) || len(spec.NodeSelector) > 1 || spec.Affinity != nil {
		selector, affinity := p.without(spec)
		w.strings(selector)
		if affinity != nil && (affinity.RequiredDuringSchedulingIgnoredDuringExecution != nil || len(affinity.PreferredDuringSchedulingIgnoredDuringExecution) > 0) {
			w.marshal(affinity)
		}
	}
}

// static writes what decides about nodes by themselves: everything but namespace, labels, owner and topology rules.
func (w *keyWriter) static(pod *corev1.Pod, names *scalars) {
	spec := &pod.Spec
	w.int(int64(podPriority(pod)))
	w.containers(spec.Containers)
	w.containers(spec.InitContainers)
	w.resources(spec.Overhead)
	if spec.Resources != nil {
		w.resources(spec.Resources.Requests)
	}
	if resizing(pod) {
		r := names.requestsOf(pod)
		w.int(r.milliCPU)
		w.int(r.memory)
	}
	w.nodes(spec, pinOf(pod))
	w.info.Spec = spec
	w.int(int64(neededBy(&w.info)))
	w.int(int64(len(spec.Tolerations)))
	for i := range spec.Tolerations {
		t := &spec.Tolerations[i]
		w.string(t.Key)
		w.string(string(t.Operator))
		w.string(t.Value)
		w.string(string(t.Effect))
	}
}

// shapeKey writes all that a shape is made of. staticLen is the length of the static part, which comes first.
func (w *keyWriter) shapeKey(pod *corev1.Pod, owner apitypes.UID, names *scalars) (staticLen int) {
	w.static(pod, names)
	staticLen = len(w.buf)
	w.string(pod.Namespace)
	w.strings(pod.Labels)
	w.string(string(owner))
	w.bool(pod.DeletionTimestamp != nil)
	if a := pod.Spec.Affinity; a != nil {
		if a.PodAffinity != nil {
			w.marshal(a.PodAffinity)
		}
		w.bool(true)
		if a.PodAntiAffinity != nil {
			w.marshal(a.PodAntiAffinity)
		}
	}
	for i := range pod.Spec.TopologySpreadConstraints {
		w.marshal(&pod.Spec.TopologySpreadConstraints[i])
	}
	return staticLen
}

// newShape derives the shape that key stands for from a pod that has it.
func newShape(pod *corev1.Pod, key string, staticLen int, names *scalars) *shape {
	sh := &shape{
		key:         key,
		staticID:    key[:staticLen],
		namespace:   pod.Namespace,
		labels:      pod.Labels,
		owner:       ownerOf(pod),
		terminating: pod.DeletionTimestamp != nil,
		priority:    podPriority(pod),
		requests:    names.requestsOf(pod),
		ports:       hostPortsOf(pod),
		tolerations: pod.Spec.Tolerations,
		pinned:      pinOf(pod) != pin{},
		affinity:    newAffinityTerms(pod.Namespace, pod.Labels, pod.Spec.Affinity),
		ownSpread:   len(pod.Spec.TopologySpreadConstraints) > 0,
		onNode:      map[int32]int32{},
	}
	sh.assumedCPU, sh.assumedMemory = statedOrAssumed(pod)
	sh.spread = newSpread(pod, sh.owner)
	selector, affinity := pinOf(pod).without(&pod.Spec)
	asks := &corev1.Pod{Spec: corev1.PodSpec{NodeSelector: selector, Affinity: &corev1.Affinity{NodeAffinity: affinity}}}
	sh.constrained = constrainsNodes(&asks.Spec)
	sh.required = nodeaffinity.GetRequiredNodeAffinity(asks)
	if !sh.pinned {
		sh.preferred = preferencesOf(&pod.Spec)
	}
	sh.features = neededBy(&types.PodInfo{Spec: &pod.Spec})
	sh.choosy = sh.features != 0 || sh.constrained || sh.preferred != nil
	return sh
}

func podPriority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

func ownerOf(pod *corev1.Pod) apitypes.UID {
	if ref := metav1.GetControllerOfNoCopy(pod); ref != nil {
		return ref.UID
	}
	return ""
}

// resizing reports whether an in-place resize of pod is not finished (KEP-1287).
func resizing(pod *corev1.Pod) bool {
	for i := range pod.Status.Conditions {
		switch pod.Status.Conditions[i].Type {
		case corev1.PodResizePending, corev1.PodResizeInProgress:
			return true
		}
	}
	return false
}
