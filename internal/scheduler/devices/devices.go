// Package devices knows which devices there are and which ResourceClaims have them, and finds devices on a node for the claims of a pod
// (KEP-4381): the part of placement that allocates. It is pure, as package placement is, which owns it.
//
// What flows through it: claims, slices, classes and taint rules come in through the Set and Remove methods of [State]. [State.Wants] says
// what a pod wants, or why it can have that nowhere; [Wants.On] asks upstream's structured allocator about one node; [State.Assume] takes
// devices until the claims are seen to have them, or [State.NotBound] says that they never will.
//
// What must stay true: a device that was given away once is not given away again while its claim is on the way to the store, in whichever
// order claims and pods are heard of (TestAssumedDevicesAreTaken, TestDevicesAreGivenOnce); searching ends (TestASearchEnds).
package devices

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/structured"
	"k8s.io/utils/ptr"
)

// features are those that Kubernetes 1.37 has on, but for devices with binding conditions: a pod is bound in the transaction in which
// its devices are allocated, and waits for nothing in between.
func features() structured.Features {
	return structured.Features{
		AdminAccess: true, PrioritizedList: true, PartitionableDevices: true, DeviceTaints: true, ConsumableCapacity: true, FractionalCapacityRange: true,
	}
}

// State is what is known of devices. It is not safe for concurrent use.
type State struct {
	claims    map[types.NamespacedName]*resourcev1.ResourceClaim
	slices    map[string]*resourcev1.ResourceSlice
	rules     map[string]*resourcev1.DeviceTaintRule
	classes   classes
	assumed   map[types.NamespacedName]*assumption
	allocated structured.AllocatedState   // by claims, and assumed
	tainted   []*resourcev1.ResourceSlice // slices with the rules' taints, in order; nil until needed
	cel       *cel.Cache                  // nil until needed: making it costs some milliseconds
}

// assumption is an allocation that is on its way to the store.
type assumption struct {
	allocation *resourcev1.AllocationResult
	pod        types.UID // with which it goes there
	revision   uint64    // of the store, since when the claim has it; 0 as long as that is not known
}

// New returns an empty State.
func New() *State {
	return &State{
		claims: map[types.NamespacedName]*resourcev1.ResourceClaim{}, slices: map[string]*resourcev1.ResourceSlice{},
		rules: map[string]*resourcev1.DeviceTaintRule{}, classes: classes{}, assumed: map[types.NamespacedName]*assumption{},
		allocated: structured.AllocatedState{
			AllocatedDevices: sets.New[structured.DeviceID](), AllocatedSharedDeviceIDs: sets.New[structured.SharedDeviceID](),
			AggregatedCapacity: structured.NewConsumedCapacityCollection(),
		},
	}
}

// SetClaim adds or updates a claim. It reports whether that may help a pod which waits: not if the claim just has got its devices.
func (s *State) SetClaim(c *resourcev1.ResourceClaim) (helps bool) {
	key := keyOf(c)
	old := s.claims[key]
	if old != nil {
		s.give(old.Status.Allocation)
	}
	s.claims[key] = c
	s.settle(key)
	s.take(c.Status.Allocation)
	return old == nil || old.UID != c.UID || c.Status.Allocation == nil || old.Status.Allocation != nil
}

// RemoveClaim forgets a claim.
func (s *State) RemoveClaim(key types.NamespacedName) {
	if old := s.claims[key]; old != nil {
		s.give(old.Status.Allocation)
	}
	delete(s.claims, key)
	s.drop(key)
}

// settle ends an assumption about a claim that says by itself what it has.
func (s *State) settle(key types.NamespacedName) {
	a, c := s.assumed[key], s.claims[key]
	if a == nil || c == nil {
		return
	}
	if c.Status.Allocation != nil || a.revision != 0 && revision(c.ResourceVersion) >= a.revision {
		s.drop(key)
	}
}

// drop ends an assumption. As long as there is one, its claim has nothing by itself.
func (s *State) drop(key types.NamespacedName) {
	if a := s.assumed[key]; a != nil {
		delete(s.assumed, key)
		s.give(a.allocation)
	}
}

// Bound notes that the pod was bound, with what was assumed for it, in a transaction at a revision of the store; "" if that is not known.
func (s *State) Bound(pod types.UID, at string) {
	for key, a := range s.assumed {
		if a.pod == pod {
			a.revision = revision(at)
			s.settle(key)
		}
	}
}

// NotBound gives back what was assumed for a pod. It reports whether there was anything.
func (s *State) NotBound(pod types.UID) (returned bool) {
	for key, a := range s.assumed {
		if a.pod == pod {
			s.drop(key)
			returned = true
		}
	}
	return returned
}

// take notes the devices of an allocation, which may be nil, as taken. Those that are shared with administrators are not.
func (s *State) take(a *resourcev1.AllocationResult) {
	s.visit(a, func(d structured.DeviceID) { s.allocated.AllocatedDevices.Insert(d) },
		func(d structured.SharedDeviceID) { s.allocated.AllocatedSharedDeviceIDs.Insert(d) }, s.allocated.AggregatedCapacity.Insert)
}

// give is the reverse of take.
func (s *State) give(a *resourcev1.AllocationResult) {
	s.visit(a, func(d structured.DeviceID) { s.allocated.AllocatedDevices.Delete(d) },
		func(d structured.SharedDeviceID) { s.allocated.AllocatedSharedDeviceIDs.Delete(d) }, s.allocated.AggregatedCapacity.Remove)
}

func (s *State) visit(a *resourcev1.AllocationResult, whole func(structured.DeviceID), share func(structured.SharedDeviceID), capacity func(structured.DeviceConsumedCapacity)) {
	if a == nil {
		return
	}
	for i := range a.Devices.Results {
		r := &a.Devices.Results[i]
		id := structured.MakeDeviceID(r.Driver, r.Pool, r.Device)
		switch {
		case ptr.Deref(r.AdminAccess, false):
		case r.ShareID == nil:
			whole(id)
		default:
			share(structured.MakeSharedDeviceID(id, r.ShareID))
			if r.ConsumedCapacity != nil {
				capacity(structured.NewDeviceConsumedCapacity(id, r.ConsumedCapacity))
			}
		}
	}
}

// SetSlice adds or updates a slice.
func (s *State) SetSlice(slice *resourcev1.ResourceSlice) {
	s.slices[slice.Name], s.tainted = slice, nil
}

// RemoveSlice forgets a slice.
func (s *State) RemoveSlice(name string) {
	delete(s.slices, name)
	s.tainted = nil
}

// SetRule adds or updates a taint rule.
func (s *State) SetRule(rule *resourcev1.DeviceTaintRule) { s.rules[rule.Name], s.tainted = rule, nil }

// RemoveRule forgets a taint rule.
func (s *State) RemoveRule(name string) {
	delete(s.rules, name)
	s.tainted = nil
}

// SetClass adds or updates a class.
func (s *State) SetClass(c *resourcev1.DeviceClass) { s.classes[c.Name] = c }

// RemoveClass forgets a class.
func (s *State) RemoveClass(name string) { delete(s.classes, name) }

// ClaimKeys, SliceKeys, RuleKeys and ClassKeys return what is known.
func (s *State) ClaimKeys() []types.NamespacedName { return slices.Collect(maps.Keys(s.claims)) }
func (s *State) SliceKeys() []types.NamespacedName { return named(s.slices) }
func (s *State) RuleKeys() []types.NamespacedName  { return named(s.rules) }
func (s *State) ClassKeys() []types.NamespacedName { return named(s.classes) }

func named[T any](m map[string]T) []types.NamespacedName {
	var keys []types.NamespacedName
	for name := range m {
		keys = append(keys, types.NamespacedName{Name: name})
	}
	return keys
}

// withTaints returns the slices with the taints that rules put on their devices (KEP-5055), in order.
func (s *State) withTaints() []*resourcev1.ResourceSlice {
	if s.tainted != nil {
		return s.tainted
	}
	rules := slices.SortedFunc(maps.Values(s.rules), func(a, b *resourcev1.DeviceTaintRule) int { return cmp.Compare(a.Name, b.Name) })
	s.tainted = make([]*resourcev1.ResourceSlice, 0, len(s.slices))
	for _, name := range slices.Sorted(maps.Keys(s.slices)) {
		slice := s.slices[name]
		for _, r := range rules {
			slice = withTaint(slice, s.slices[name], r)
		}
		s.tainted = append(s.tainted, slice)
	}
	return s.tainted
}

// withTaint returns slice with the taint of a rule on the devices that it means; slice itself if there are none. original is shared and stays
// as it is.
func withTaint(slice, original *resourcev1.ResourceSlice, rule *resourcev1.DeviceTaintRule) *resourcev1.ResourceSlice {
	sel := rule.Spec.DeviceSelector
	if sel == nil || sel.Driver != nil && *sel.Driver != slice.Spec.Driver || sel.Pool != nil && *sel.Pool != slice.Spec.Pool.Name {
		return slice
	}
	for i := range slice.Spec.Devices {
		if sel.Device != nil && *sel.Device != slice.Spec.Devices[i].Name {
			continue
		}
		if slice == original {
			slice = slice.DeepCopy()
		}
		slice.Spec.Devices[i].Taints = append(slice.Spec.Devices[i].Taints, rule.Spec.Taint)
	}
	return slice
}

// classes are the device classes by name, as the allocator asks for them.
type classes map[string]*resourcev1.DeviceClass

// List implements structured.DeviceClassLister.
func (c classes) List() ([]*resourcev1.DeviceClass, error) {
	return slices.Collect(maps.Values(c)), nil
}

// Get implements structured.DeviceClassLister.
func (c classes) Get(name string) (*resourcev1.DeviceClass, error) {
	if class := c[name]; class != nil {
		return class, nil
	}
	return nil, apierrors.NewNotFound(resourcev1.Resource("deviceclasses"), name)
}

func keyOf(c *resourcev1.ResourceClaim) types.NamespacedName {
	return types.NamespacedName{Namespace: c.Namespace, Name: c.Name}
}

// revision returns a resource version as a number, 0 for none.
func revision(version string) uint64 {
	n, err := strconv.ParseUint(version, 10, 64)
	if err != nil {
		return 0
	}
	return n
}
