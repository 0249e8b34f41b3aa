// Package volumes knows PersistentVolumes, claims and classes, and finds out on which nodes a pod has the volumes that it wants: kube-scheduler's
// plugins VolumeBinding, VolumeRestrictions, NodeVolumeLimits and VolumeZone. It is pure, as package placement is, which owns it.
//
// What flows through it: objects come in through the Set and Remove methods of [State]. [State.Wants] says what a pod wants, or why it can have
// that nowhere; [Wants.On] says of one node which volumes its claims get there, or why not; [State.Assume] takes these until they are seen to be bound,
// or [State.NotBound] says that they never will.
//
// What must stay true: local volumes on a node, with those that are on their way to the store, never take more than it has for them, in
// whichever order claims and volumes are heard of (TestRoomIsGivenOnce); a volume goes to one claim (TestAVolumeIsGivenOnce).
package volumes

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api/volume"
)

// State is what is known of volumes. It is not safe for concurrent use.
type State struct {
	claims     map[types.NamespacedName]*corev1.PersistentVolumeClaim
	volumes    map[string]*corev1.PersistentVolume
	classes    map[string]*storagev1.StorageClass
	drivers    map[string]*storagev1.CSIDriver
	nodes      map[string]*storagev1.CSINode
	capacities map[types.NamespacedName]*storagev1.CSIStorageCapacity

	indexed map[string]map[string]*corev1.PersistentVolume // volumes that may yet be bound, by volume.Indexed and name
	used    map[string]*amount.Sum                         // by local volumes, of those that are there and those assumed, by host
	assumed map[types.NamespacedName]*assumption
	coming  map[string]*assumption // by volume, as long as that is not known, or not known to be bound

	users  map[types.NamespacedName]map[types.NamespacedName]*corev1.Pod // placed pods by claim
	onNode map[string]map[types.NamespacedName]*corev1.Pod               // placed pods with claims by node
}

// assumption is a binding that is on its way to the store.
type assumption struct {
	claim  types.NamespacedName
	uid    types.UID // of the claim
	volume *corev1.PersistentVolume
	pod    types.UID // with which it goes there
	fresh  bool      // the volume is made with it
	open   bool      // the claim is not yet known to be bound
}

// New returns an empty State.
func New() *State {
	return &State{
		claims: map[types.NamespacedName]*corev1.PersistentVolumeClaim{}, volumes: map[string]*corev1.PersistentVolume{},
		classes: map[string]*storagev1.StorageClass{}, drivers: map[string]*storagev1.CSIDriver{}, nodes: map[string]*storagev1.CSINode{},
		capacities: map[types.NamespacedName]*storagev1.CSIStorageCapacity{}, indexed: map[string]map[string]*corev1.PersistentVolume{},
		used: map[string]*amount.Sum{}, assumed: map[types.NamespacedName]*assumption{}, coming: map[string]*assumption{},
		users: map[types.NamespacedName]map[types.NamespacedName]*corev1.Pod{}, onNode: map[string]map[types.NamespacedName]*corev1.Pod{},
	}
}

// SetClaim adds or updates a claim.
func (s *State) SetClaim(c *corev1.PersistentVolumeClaim) {
	key := types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
	s.claims[key] = c
	a := s.assumed[key]
	if a == nil {
		return
	}
	if a.uid != c.UID {
		s.drop(a)
	} else if c.Spec.VolumeName != "" {
		a.open = false
		s.settle(a)
	}
}

// RemoveClaim forgets a claim.
func (s *State) RemoveClaim(key types.NamespacedName) {
	delete(s.claims, key)
	if a := s.assumed[key]; a != nil {
		s.drop(a)
	}
}

// SetVolume adds or updates a volume.
func (s *State) SetVolume(v *corev1.PersistentVolume) {
	s.take(s.volumes[v.Name], -1)
	s.index(s.volumes[v.Name], false)
	s.volumes[v.Name] = v
	s.take(v, 1)
	s.index(v, true)
	if a := s.coming[v.Name]; a != nil && (a.fresh || v.Spec.ClaimRef != nil && v.Spec.ClaimRef.UID == a.uid) {
		s.arrive(a)
		s.settle(a)
	}
}

// RemoveVolume forgets a volume.
func (s *State) RemoveVolume(name string) {
	s.take(s.volumes[name], -1)
	s.index(s.volumes[name], false)
	delete(s.volumes, name)
}

// take adds what a local volume takes, which may be nil, to what is used on its host: times is 1 or -1.
func (s *State) take(v *corev1.PersistentVolume, times int) {
	if v == nil {
		return
	}
	host := volume.LocalHost(v)
	if host == "" {
		return
	}
	sum := s.used[host]
	if sum == nil {
		sum = &amount.Sum{}
		s.used[host] = sum
	}
	if times > 0 {
		sum.Add(volume.Bytes(v))
	} else {
		sum.Sub(volume.Bytes(v))
	}
}

// index enters a volume that is not bound, or takes it out.
func (s *State) index(v *corev1.PersistentVolume, in bool) {
	if v == nil || in && v.Spec.ClaimRef != nil && v.Spec.ClaimRef.UID != "" && v.Status.Phase == corev1.VolumeBound {
		return
	}
	at := volume.Indexed(v)
	if !in {
		if delete(s.indexed[at], v.Name); len(s.indexed[at]) == 0 {
			delete(s.indexed, at)
		}
		return
	}
	if s.indexed[at] == nil {
		s.indexed[at] = map[string]*corev1.PersistentVolume{}
	}
	s.indexed[at][v.Name] = v
}

// arrive notes that the volume of an assumption is known by itself.
func (s *State) arrive(a *assumption) {
	if s.coming[a.volume.Name] != a {
		return
	}
	delete(s.coming, a.volume.Name)
	if a.fresh {
		s.take(a.volume, -1)
	}
}

// settle ends an assumption of which claim and volume are known to be bound.
func (s *State) settle(a *assumption) {
	if !a.open && s.coming[a.volume.Name] != a && s.assumed[a.claim] == a {
		delete(s.assumed, a.claim)
	}
}

// drop ends an assumption.
func (s *State) drop(a *assumption) {
	s.arrive(a)
	if s.assumed[a.claim] == a {
		delete(s.assumed, a.claim)
	}
}

// NotBound gives back what was assumed for a pod. It reports whether there was anything.
func (s *State) NotBound(pod types.UID) (returned bool) {
	for _, a := range s.assumed {
		if a.pod == pod && a.open {
			s.drop(a)
			returned = true
		}
	}
	return returned
}

// SetUser notes that a pod is placed on a node.
func (s *State) SetUser(pod *corev1.Pod, node string) {
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	for _, name := range volume.ClaimNames(pod) {
		enter(s.users, types.NamespacedName{Namespace: pod.Namespace, Name: name}, key, pod)
		enter(s.onNode, node, key, pod)
	}
}

// RemoveUser is the reverse of SetUser.
func (s *State) RemoveUser(pod *corev1.Pod, node string) {
	key := types.NamespacedName{Namespace: pod.Namespace, Name: pod.Name}
	for _, name := range volume.ClaimNames(pod) {
		leave(s.users, types.NamespacedName{Namespace: pod.Namespace, Name: name}, key)
		leave(s.onNode, node, key)
	}
}

func enter[K comparable](m map[K]map[types.NamespacedName]*corev1.Pod, at K, key types.NamespacedName, pod *corev1.Pod) {
	if m[at] == nil {
		m[at] = map[types.NamespacedName]*corev1.Pod{}
	}
	m[at][key] = pod
}

func leave[K comparable](m map[K]map[types.NamespacedName]*corev1.Pod, at K, key types.NamespacedName) {
	if delete(m[at], key); len(m[at]) == 0 {
		delete(m, at)
	}
}

// SetClass, SetDriver, SetNode and SetCapacity add or update what claims are judged by; the Remove methods forget it.
func (s *State) SetClass(c *storagev1.StorageClass) { s.classes[c.Name] = c }
func (s *State) SetDriver(d *storagev1.CSIDriver)   { s.drivers[d.Name] = d }
func (s *State) SetNode(n *storagev1.CSINode)       { s.nodes[n.Name] = n }
func (s *State) SetCapacity(c *storagev1.CSIStorageCapacity) {
	s.capacities[types.NamespacedName{Namespace: c.Namespace, Name: c.Name}] = c
}
func (s *State) RemoveClass(name string)                 { delete(s.classes, name) }
func (s *State) RemoveDriver(name string)                { delete(s.drivers, name) }
func (s *State) RemoveNode(name string)                  { delete(s.nodes, name) }
func (s *State) RemoveCapacity(key types.NamespacedName) { delete(s.capacities, key) }

// ClaimKeys and the others return what is known.
func (s *State) ClaimKeys() []types.NamespacedName    { return slices.Collect(maps.Keys(s.claims)) }
func (s *State) VolumeKeys() []types.NamespacedName   { return named(s.volumes) }
func (s *State) ClassKeys() []types.NamespacedName    { return named(s.classes) }
func (s *State) DriverKeys() []types.NamespacedName   { return named(s.drivers) }
func (s *State) NodeKeys() []types.NamespacedName     { return named(s.nodes) }
func (s *State) CapacityKeys() []types.NamespacedName { return slices.Collect(maps.Keys(s.capacities)) }

func named[T any](m map[string]T) []types.NamespacedName {
	var keys []types.NamespacedName
	for name := range m {
		keys = append(keys, types.NamespacedName{Name: name})
	}
	return keys
}
