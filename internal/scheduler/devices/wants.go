package devices

import (
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/dynamic-resource-allocation/cel"
	"k8s.io/dynamic-resource-allocation/resourceclaim"
	"k8s.io/dynamic-resource-allocation/structured"
)

// maxSteps bounds the search for the devices of one pod, on all nodes together. kube-scheduler gives ten seconds to each node.
const maxSteps = 200_000

// maxExpressions is how many compiled selectors are kept.
const maxExpressions = 100

const (
	reasonUnavailable = "resourceclaim not available on the node"
	reasonNotAll      = "cannot allocate all claims"
	reasonTooMuch     = "timed out trying to allocate devices"
)

// Claim is what binding a pod does to one of its claims.
type Claim struct {
	Key types.NamespacedName
	UID types.UID
	// Allocation is what the claim gets; nil if it has its devices already, and the pod is one more of its users.
	Allocation *resourcev1.AllocationResult
}

// Wants is what a pod wants, as of one moment: it is of no use after the State has changed.
type Wants struct {
	state     *State
	claims    []*resourcev1.ResourceClaim
	missing   []*resourcev1.ResourceClaim  // those of claims that have no devices yet
	where     []*nodeaffinity.NodeSelector // of the devices of the others
	ranked    bool                         // some request has alternatives, the first of which is best
	allocator structured.Allocator
	effort    *effort
}

// Found is what a pod gets on a node.
type Found struct {
	allocations []resourcev1.AllocationResult // of Wants.missing
	// Rank is higher the more requests get one of their first alternatives.
	Rank int64
}

// Wants returns what pod wants, nil if that is nothing, or why it cannot be placed anywhere now.
func (s *State) Wants(pod *corev1.Pod) (w *Wants, reason string) {
	if len(pod.Spec.ResourceClaims) == 0 {
		return nil, ""
	}
	w = &Wants{state: s, effort: &effort{left: maxSteps}}
	for i := range pod.Spec.ResourceClaims {
		claim, reason := s.claimOf(pod, &pod.Spec.ResourceClaims[i])
		if reason != "" {
			return nil, reason
		}
		if claim == nil || slices.Contains(w.claims, claim) {
			continue
		}
		w.claims = append(w.claims, claim)
		if reason := s.look(w, pod, claim); reason != "" {
			return nil, reason
		}
	}
	return w, ""
}

// allocate asks the allocator, which is made when it is first needed.
func (w *Wants) allocate(node *corev1.Node) ([]resourcev1.AllocationResult, error) {
	if w.allocator == nil {
		s := w.state
		if s.cel == nil {
			s.cel = cel.NewCache(maxExpressions, cel.Features{EnableConsumableCapacity: true})
		}
		var err error
		if w.allocator, err = structured.NewAllocator(w.effort, features(), s.allocated, s.classes, s.withTaints(), s.cel); err != nil {
			return nil, err
		}
	}
	return w.allocator.Allocate(w.effort, node, w.missing)
}

// claimOf returns the claim that an entry of a pod means, nil if none is needed, or why there is none to be used.
func (s *State) claimOf(pod *corev1.Pod, entry *corev1.PodResourceClaim) (*resourcev1.ResourceClaim, string) {
	name, made, err := resourceclaim.Name(pod, entry)
	switch {
	case err != nil:
		return nil, err.Error()
	case name == nil:
		return nil, ""
	}
	claim := s.claims[types.NamespacedName{Namespace: pod.Namespace, Name: *name}]
	switch {
	case claim == nil:
		return nil, fmt.Sprintf("resourceclaim %q not found", *name)
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Sprintf("resourceclaim %q is being deleted", *name)
	}
	if made {
		if err := resourceclaim.IsForPod(pod, claim, false); err != nil {
			return nil, err.Error()
		}
	}
	return claim, ""
}

// look notes what w needs of a claim, or returns why the pod cannot have it.
func (s *State) look(w *Wants, pod *corev1.Pod, claim *resourcev1.ResourceClaim) string {
	allocation := claim.Status.Allocation
	if len(claim.Status.ReservedFor) >= resourcev1.ResourceClaimReservedForMaxSize && !resourceclaim.IsReservedForPod(pod, claim, false) {
		return "resourceclaim in use"
	}
	if a := s.assumed[keyOf(claim)]; allocation == nil && a != nil {
		allocation = a.allocation // whoever brings it there comes first
	}
	if allocation != nil {
		if allocation.NodeSelector == nil {
			return ""
		}
		selector, err := nodeaffinity.NewNodeSelector(allocation.NodeSelector)
		if err != nil {
			return err.Error()
		}
		w.where = append(w.where, selector)
		return ""
	}
	w.missing = append(w.missing, claim)
	for i := range claim.Spec.Devices.Requests {
		r := &claim.Spec.Devices.Requests[i]
		if r.Exactly != nil && s.classes[r.Exactly.DeviceClassName] == nil {
			return fmt.Sprintf("request %s: device class %s does not exist", r.Name, r.Exactly.DeviceClassName)
		}
		for _, sub := range r.FirstAvailable {
			w.ranked = true
			if s.classes[sub.DeviceClassName] == nil {
				return fmt.Sprintf("request %s/%s: device class %s does not exist", r.Name, sub.Name, sub.DeviceClassName)
			}
		}
	}
	return ""
}

// Ranked reports whether nodes differ in how well they suit the claims, so that all must be asked.
func (w *Wants) Ranked() bool { return w.ranked }

// On returns what the pod gets on a node, or why it cannot have all.
func (w *Wants) On(node *corev1.Node) (Found, string) {
	for _, s := range w.where {
		if !s.Match(node) {
			return Found{}, reasonUnavailable
		}
	}
	if len(w.missing) == 0 {
		return Found{}, ""
	}
	results, err := w.allocate(node)
	switch {
	case errors.Is(err, errTooMuch):
		return Found{}, reasonTooMuch
	case err != nil:
		return Found{}, err.Error()
	case len(results) != len(w.missing):
		return Found{}, reasonNotAll
	}
	return Found{allocations: results, Rank: rank(w.missing, results)}, ""
}

// rank is kube-scheduler's score of an allocation: earlier alternatives count for more.
func rank(claims []*resourcev1.ResourceClaim, results []resourcev1.AllocationResult) (sum int64) {
	for i, claim := range claims {
		got := map[string]bool{}
		for _, r := range results[i].Devices.Results {
			got[r.Request] = true
		}
		for _, r := range claim.Spec.Devices.Requests {
			for j, sub := range r.FirstAvailable {
				if got[r.Name+"/"+sub.Name] {
					sum += int64(resourcev1.FirstAvailableDeviceRequestMaxSize - j)
				}
			}
		}
	}
	return sum
}

// Assume takes what was found for a pod, and returns what binding it does to its claims.
func (s *State) Assume(pod *corev1.Pod, w *Wants, f Found) []Claim {
	var out []Claim
	for _, claim := range w.claims {
		c := Claim{Key: keyOf(claim), UID: claim.UID}
		if i := slices.Index(w.missing, claim); i >= 0 {
			c.Allocation = &f.allocations[i]
			s.assumed[c.Key] = &assumption{allocation: c.Allocation, pod: pod.UID}
			s.take(c.Allocation)
		} else if resourceclaim.IsReservedForPod(pod, claim, false) {
			continue
		}
		out = append(out, c)
	}
	return out
}

// errTooMuch ends a search that takes too long.
var errTooMuch = errors.New("too many steps")

// effort is a context that ends after so many questions whether it has ended: the allocator asks before each step of its search, which is
// exhaustive. A decision that depends on steps and not on time is the same every time.
type effort struct{ left int }

// Deadline, Done, Err and Value implement context.Context.
func (*effort) Deadline() (deadline time.Time, ok bool) { return deadline, false }
func (*effort) Done() <-chan struct{}                   { return nil }
func (*effort) Value(any) any                           { return nil }
func (e *effort) Err() error {
	if e.left--; e.left < 0 {
		return errTooMuch
	}
	return nil
}
