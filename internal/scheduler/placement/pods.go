package placement

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// SetPod adds or updates a pod that has a node. It reports whether anything changed that matters to the placing of others, and
// whether the pod holds less than before.
func (st *State) SetPod(pod *corev1.Pod) (changed, freed bool) {
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	old := st.pods[key]
	if old != nil {
		if old.nodeName == pod.Spec.NodeName && sameShape(old.pod, pod) {
			old.pod, old.assumed = pod, false
			return false, false
		}
		st.RemovePod(key)
	}
	st.Unnominate(pod.UID)
	pi := st.place(pod, key, st.shapeOf(pod), pod.Spec.NodeName)
	if old != nil {
		pi.evicting = old.evicting && old.pod.UID == pod.UID
		freed = old.nodeName != pi.nodeName || old.shape.requests.exceeds(&pi.shape.requests)
	}
	return true, freed
}

// RemovePod forgets a placed pod, because it ended, went away or was never bound. It reports whether it was known.
func (st *State) RemovePod(key types.NamespacedName) bool {
	pi := st.pods[key]
	if pi == nil {
		return false
	}
	delete(st.pods, key)
	if pi.node != nil {
		st.unsettle(pi)
	} else {
		delete(st.homeless[pi.nodeName], pi)
	}
	st.letGo(pi.shape)
	st.volumes.RemoveUser(pi.pod, pi.nodeName)
	if st.priorities[pi.shape.priority]--; st.priorities[pi.shape.priority] == 0 {
		delete(st.priorities, pi.shape.priority)
	}
	return true
}

// Assumed reports whether the pod was placed by Place and has not been seen as bound by SetPod.
func (st *State) Assumed(key types.NamespacedName, uid types.UID) bool {
	pi := st.pods[key]
	return pi != nil && pi.assumed && pi.pod.UID == uid
}

// PodKeys returns the keys of all placed pods.
func (st *State) PodKeys() []types.NamespacedName { return slices.Collect(maps.Keys(st.pods)) }

// NodeKeys returns the keys of all nodes.
func (st *State) NodeKeys() []types.NamespacedName {
	var keys []types.NamespacedName
	for name := range st.byName {
		keys = append(keys, types.NamespacedName{Name: name})
	}
	return keys
}

// NamespaceKeys returns the keys of all namespaces.
func (st *State) NamespaceKeys() []types.NamespacedName {
	var keys []types.NamespacedName
	for name := range st.namespaces {
		keys = append(keys, types.NamespacedName{Name: name})
	}
	return keys
}

// BudgetKeys returns the keys of all PodDisruptionBudgets.
func (st *State) BudgetKeys() []types.NamespacedName { return slices.Collect(maps.Keys(st.budgets)) }

// place accounts for a pod on the node called name.
func (st *State) place(pod *corev1.Pod, key types.NamespacedName, sh *shape, name string) *podInfo {
	pi := &podInfo{pod: pod, shape: sh, nodeName: name}
	st.hold(sh)
	st.pods[key] = pi
	st.priorities[sh.priority]++
	st.volumes.SetUser(pod, name)
	if i, ok := st.byName[name]; ok {
		st.settle(pi, st.nodes[i])
	} else {
		st.wait(pi)
	}
	return pi
}

// wait keeps a pod until its node is known.
func (st *State) wait(pi *podInfo) {
	if st.homeless[pi.nodeName] == nil {
		st.homeless[pi.nodeName] = map[*podInfo]struct{}{}
	}
	st.homeless[pi.nodeName][pi] = struct{}{}
}

func (st *State) settle(pi *podInfo, n *node) {
	pi.node = n
	n.add(pi)
	st.count(pi, n.index, 1)
}

func (st *State) unsettle(pi *podInfo) {
	n := pi.node
	n.sub(pi)
	pi.node = nil
	st.count(pi, n.index, -1)
}

func (st *State) count(pi *podInfo, i, delta int32) {
	sh := pi.shape
	if sh.onNode[i] += delta; sh.onNode[i] == 0 {
		delete(sh.onNode, i)
	}
	for _, c := range sh.counters {
		c.node[i] += delta
	}
	st.touch(i, false)
}

// sameShape reports whether an update of a placed pod, whose spec is mostly immutable, cannot have changed its shape.
func sameShape(a, b *corev1.Pod) bool {
	return a.UID == b.UID &&
		a.Generation == b.Generation &&
		(a.DeletionTimestamp == nil) == (b.DeletionTimestamp == nil) &&
		resizing(a) == resizing(b) && !resizing(b) &&
		maps.Equal(a.Labels, b.Labels)
}

// Nominate keeps room for pod on a node where it preempted others, until it is placed or Unnominate is called.
func (st *State) Nominate(pod *corev1.Pod, name string) {
	st.Unnominate(pod.UID)
	i, ok := st.byName[name]
	if !ok {
		return
	}
	nom := &nomination{
		uid: pod.UID, key: types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name},
		shape: st.shapeOf(pod), node: st.nodes[i],
	}
	st.hold(nom.shape)
	nom.node.nominated = append(nom.node.nominated, nom)
	st.nominated[pod.UID] = nom
	st.touch(i, false)
}

// Unnominate gives up the room kept for the pod with this UID. It reports whether there was any.
func (st *State) Unnominate(uid types.UID) bool {
	nom := st.nominated[uid]
	if nom == nil {
		return false
	}
	delete(st.nominated, uid)
	list := nom.node.nominated
	for i := range list {
		if list[i] == nom {
			nom.node.nominated = append(list[:i:i], list[i+1:]...)
			break
		}
	}
	st.letGo(nom.shape)
	st.touch(nom.node.index, false)
	return true
}
