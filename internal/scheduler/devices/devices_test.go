package devices

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func node(name string) *corev1.Node { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}} }

// offer is a slice of a node with devices, of driver gpu.example.com.
func offer(node string, devices ...resourcev1.Device) *resourcev1.ResourceSlice {
	return &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node + "-gpu"}, Spec: resourcev1.ResourceSliceSpec{
		Driver: "gpu.example.com", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1}, Devices: devices}}
}

func device(name, model string) resourcev1.Device {
	return resourcev1.Device{Name: name, Attributes: map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: &model}}}
}

func class(name, model string) *resourcev1.DeviceClass {
	return &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: resourcev1.DeviceClassSpec{Selectors: []resourcev1.DeviceSelector{
		{CEL: &resourcev1.CELDeviceSelector{Expression: fmt.Sprintf(`device.attributes["gpu.example.com"].model == %q`, model)}}}}}
}

func exactly(class string, count int64) resourcev1.DeviceRequest {
	return resourcev1.DeviceRequest{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: class, AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: count}}
}

func claim(name string, requests ...resourcev1.DeviceRequest) *resourcev1.ResourceClaim {
	return &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID("uid-" + name), ResourceVersion: "5"},
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: requests}}}
}

func pod(name string, claims ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID("uid-" + name)}}
	for _, c := range claims {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: c, ResourceClaimName: &c})
	}
	return p
}

// known is a State with node n1, which offers a large and a small device, and n2 with a small one.
func known(claims ...*resourcev1.ResourceClaim) *State {
	s := New()
	s.SetSlice(offer("n1", device("big", "large"), device("little", "small")))
	s.SetSlice(offer("n2", device("little", "small")))
	s.SetClass(class("large", "large"))
	s.SetClass(class("small", "small"))
	for _, c := range claims {
		s.SetClaim(c)
	}
	return s
}

// ask says what a pod gets on a node, or why not; what it gets is taken.
func ask(s *State, p *corev1.Pod, on string) string {
	w, reason := s.Wants(p)
	if reason != "" {
		return reason
	}
	if w == nil {
		return "nothing"
	}
	found, reason := w.On(node(on))
	if reason != "" {
		return reason
	}
	var got []string
	for _, c := range s.Assume(p, w, found) {
		if c.Allocation == nil {
			got = append(got, c.Key.Name+" too")
			continue
		}
		for _, r := range c.Allocation.Devices.Results {
			got = append(got, c.Key.Name+"="+r.Pool+"/"+r.Device)
		}
	}
	return strings.Join(got, " ")
}

func TestWants(t *testing.T) {
	going := claim("going", exactly("small", 1))
	going.DeletionTimestamp = &metav1.Time{}
	full := claim("full", exactly("small", 1))
	full.Status.Allocation = &resourcev1.AllocationResult{}
	for i := range resourcev1.ResourceClaimReservedForMaxSize {
		full.Status.ReservedFor = append(full.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", UID: types.UID(fmt.Sprint(i))})
	}
	made := pod("made")
	made.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "x", ResourceClaimTemplateName: new("t")}}
	others := made.DeepCopy()
	others.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x", ResourceClaimName: new("small")}}
	unneeded := made.DeepCopy()
	unneeded.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "x"}}
	for _, tc := range []struct {
		pod  *corev1.Pod
		on   string
		want string
	}{
		{pod("p"), "n1", "nothing"},
		{unneeded, "n1", ""},
		{pod("p", "small"), "n1", "small=n1/little"},
		{pod("p", "small"), "n2", "small=n2/little"},
		{pod("p", "small"), "n3", "cannot allocate all claims"},
		{pod("p", "large"), "n1", "large=n1/big"},
		{pod("p", "large"), "n2", "cannot allocate all claims"},
		{pod("p", "large", "small"), "n1", "large=n1/big small=n1/little"},
		{pod("p", "small", "small"), "n1", "small=n1/little"}, // two entries, one claim
		{pod("p", "two"), "n1", "cannot allocate all claims"},
		{pod("p", "none"), "n1", `resourceclaim "none" not found`},
		{pod("p", "going"), "n1", `resourceclaim "going" is being deleted`},
		{pod("p", "full"), "n1", "resourceclaim in use"},
		{pod("p", "classless"), "n1", "request r: device class frog does not exist"},
		{made, "n1", `pod "a/made": ResourceClaim not created yet`},
		{others, "n1", "ResourceClaim a/small was not created for Pod a/made (Pod is not owner)"},
	} {
		s := known(claim("small", exactly("small", 1)), claim("large", exactly("large", 1)), claim("two", exactly("small", 2)), claim("classless", exactly("frog", 1)), going, full)
		if got := ask(s, tc.pod, tc.on); got != tc.want {
			t.Errorf("%s with %v on %s: %q, want %q", tc.pod.Name, tc.pod.Spec.ResourceClaims, tc.on, got, tc.want)
		}
	}
}

// What was found for one pod is not found for the next, until the first is known not to have been bound.
func TestAssumedDevicesAreTaken(t *testing.T) {
	s := known(claim("a", exactly("small", 1)), claim("b", exactly("small", 1)))
	first, second := pod("first", "a"), pod("second", "b")
	if got := ask(s, first, "n2"); got != "a=n2/little" {
		t.Fatal(got)
	}
	if got := ask(s, second, "n2"); got != "cannot allocate all claims" {
		t.Errorf("the next pod gets %q", got)
	}
	if !s.NotBound(first.UID) || s.NotBound(first.UID) {
		t.Error("what a pod was to get is given back once")
	}
	if got := ask(s, second, "n2"); got != "b=n2/little" {
		t.Errorf("the first was not bound, the next gets %q", got)
	}
}

// Who comes second shares a claim whose devices are on their way, on the same node.
func TestASharedClaimLeadsToItsNode(t *testing.T) {
	s := known(claim("a", exactly("small", 1)))
	for _, step := range [][3]string{{"first", "n2", "a=n2/little"}, {"second", "n1", "resourceclaim not available on the node"}, {"second", "n2", "a too"}} {
		if got := ask(s, pod(step[0], "a"), step[1]); got != step[2] {
			t.Errorf("%s on %s: %q, want %q", step[0], step[1], got, step[2])
		}
	}
}

// Claims and the answers of bindings are heard of in any order; a device is free again when its claim has given it back, and not before.
func TestDevicesAreGivenOnce(t *testing.T) {
	fresh := func() (*State, *resourcev1.ResourceClaim) {
		s := known(claim("a", exactly("small", 1)), claim("b", exactly("small", 1)))
		w, _ := s.Wants(pod("first", "a"))
		found, _ := w.On(node("n2"))
		stored := claim("a", exactly("small", 1))
		stored.ResourceVersion, stored.Status.Allocation = "9", s.Assume(pod("first", "a"), w, found)[0].Allocation
		return s, stored
	}
	older := claim("a", exactly("small", 1))
	older.ResourceVersion = "8"
	released := claim("a", exactly("small", 1))
	released.ResourceVersion = "12"
	const taken, free = "cannot allocate all claims", "b=n2/little"
	for what, tc := range map[string]struct {
		steps func(s *State, stored *resourcev1.ResourceClaim)
		want  string
	}{
		"bound, the claim not heard of": {func(s *State, _ *resourcev1.ResourceClaim) { s.Bound("uid-first", "9") }, taken},
		"an older state of the claim": {func(s *State, _ *resourcev1.ResourceClaim) {
			s.SetClaim(older)
			s.Bound("uid-first", "9")
			s.SetClaim(older)
		}, taken},
		"the claim, then the answer":            {func(s *State, c *resourcev1.ResourceClaim) { s.SetClaim(c); s.Bound("uid-first", "9") }, taken},
		"the answer, then the claim":            {func(s *State, c *resourcev1.ResourceClaim) { s.Bound("uid-first", "9"); s.SetClaim(c) }, taken},
		"the claim, and the answer is an error": {func(s *State, c *resourcev1.ResourceClaim) { s.SetClaim(c); s.NotBound("uid-first") }, taken},
		"given back": {func(s *State, c *resourcev1.ResourceClaim) {
			s.SetClaim(c)
			s.Bound("uid-first", "9")
			s.SetClaim(released)
		}, free},
		"given back, and only that is heard of": {func(s *State, _ *resourcev1.ResourceClaim) { s.Bound("uid-first", "9"); s.SetClaim(released) }, free},
		"that, before the answer":               {func(s *State, _ *resourcev1.ResourceClaim) { s.SetClaim(released); s.Bound("uid-first", "9") }, free},
		"the claim is gone": {func(s *State, c *resourcev1.ResourceClaim) {
			s.SetClaim(c)
			s.RemoveClaim(types.NamespacedName{Namespace: "a", Name: "a"})
		}, free},
	} {
		s, stored := fresh()
		tc.steps(s, stored)
		if got := ask(s, pod("second", "b"), "n2"); got != tc.want {
			t.Errorf("%s: %q, want %q", what, got, tc.want)
		}
	}
}

// A device that administrators look at is there for its user as well.
func TestAdministratorsTakeNothing(t *testing.T) {
	look := exactly("small", 1)
	look.Exactly.AdminAccess = new(true)
	s := known(claim("admin", look), claim("b", exactly("small", 1)))
	if got := ask(s, pod("first", "admin"), "n2"); got != "admin=n2/little" {
		t.Fatal(got)
	}
	if got := ask(s, pod("second", "b"), "n2"); got != "b=n2/little" {
		t.Error(got)
	}
}

// A rule's taint keeps claims away that do not tolerate it, and goes with the rule.
func TestTaintsKeepClaimsAway(t *testing.T) {
	tolerant := exactly("small", 1)
	tolerant.Exactly.Tolerations = []resourcev1.DeviceToleration{{Key: "broken", Operator: resourcev1.DeviceTolerationOpExists}}
	rule := func(device string) *resourcev1.DeviceTaintRule {
		return &resourcev1.DeviceTaintRule{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: resourcev1.DeviceTaintRuleSpec{
			DeviceSelector: &resourcev1.DeviceTaintSelector{Driver: new("gpu.example.com"), Pool: new("n2"), Device: &device},
			Taint:          resourcev1.DeviceTaint{Key: "broken", Effect: resourcev1.DeviceTaintEffectNoSchedule}}}
	}
	s := known(claim("plain", exactly("small", 1)), claim("tolerant", tolerant))
	slice := s.slices["n2-gpu"]
	s.SetRule(rule("little"))
	if got := ask(s, pod("p", "plain"), "n2"); got != "cannot allocate all claims" {
		t.Errorf("a tainted device: %q", got)
	}
	if got := ask(s, pod("p", "plain"), "n1"); got != "plain=n1/little" {
		t.Errorf("another pool: %q", got)
	}
	if got := ask(s, pod("q", "tolerant"), "n2"); got != "tolerant=n2/little" {
		t.Errorf("a claim that tolerates it: %q", got)
	}
	if len(slice.Spec.Devices[0].Taints) > 0 {
		t.Error("the slice, which is shared, was changed")
	}
	for _, change := range []func(){func() { s.SetRule(rule("another")) }, func() { s.RemoveRule("r") }} {
		s = known(claim("plain", exactly("small", 1)))
		s.SetRule(rule("little"))
		change()
		if got := ask(s, pod("p", "plain"), "n2"); got != "plain=n2/little" {
			t.Errorf("the rule is gone: %q", got)
		}
	}
}

// Earlier alternatives are worth more.
func TestRank(t *testing.T) {
	either := resourcev1.DeviceRequest{Name: "r", FirstAvailable: []resourcev1.DeviceSubRequest{
		{Name: "best", DeviceClassName: "large", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
		{Name: "good", DeviceClassName: "small", AllocationMode: resourcev1.DeviceAllocationModeExactCount, Count: 1},
	}}
	s := known(claim("c", either))
	w, _ := s.Wants(pod("p", "c"))
	if !w.Ranked() {
		t.Error("all nodes must be asked")
	}
	for name, want := range map[string]int64{"n1": 8, "n2": 7} {
		if found, why := w.On(node(name)); why != "" || found.Rank != want {
			t.Errorf("%s: rank %d, want %d %s", name, found.Rank, want, why)
		}
	}
}

// What can be searched for very long is given up, the same way every time.
func TestASearchEnds(t *testing.T) {
	s := New()
	var many []resourcev1.Device
	for i := range 30 {
		many = append(many, device(fmt.Sprintf("d%d", i), fmt.Sprintf("m%d", i)))
	}
	s.SetSlice(offer("n1", many...))
	s.SetClass(&resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "any"}})
	c := claim("c", exactly("any", 8))
	c.Spec.Devices.Constraints = []resourcev1.DeviceConstraint{{MatchAttribute: new(resourcev1.FullyQualifiedName("gpu.example.com/model"))}}
	s.SetClaim(c)
	last := exactly("any", 30)
	hard := claim("hard")
	for i := range 6 {
		r := exactly("any", 5)
		r.Name = fmt.Sprintf("r%d", i)
		hard.Spec.Devices.Requests = append(hard.Spec.Devices.Requests, r)
	}
	hard.Spec.Devices.Requests = append(hard.Spec.Devices.Requests, last)
	s.SetClaim(hard)
	if got := ask(s, pod("p", "c"), "n1"); got != "cannot allocate all claims" && got != "timed out trying to allocate devices" {
		t.Errorf("no two devices match: %q", got)
	}
	w, _ := s.Wants(pod("q", "hard"))
	w.effort.left = 10
	if _, got := w.On(node("n1")); got == "" {
		t.Error("more devices than there are were found")
	}
	if w.effort.left > 10 {
		t.Errorf("%d steps are left", w.effort.left)
	}
}
