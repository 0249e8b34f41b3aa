package resourceclaim

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func pod(name string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PodSpec{
		NodeName: "n1", ResourceClaims: []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimName: new("c")}},
		Containers: []corev1.Container{{Name: "c", Image: "i"}},
	}}
	if change != nil {
		change(p)
	}
	return p
}

func fromTemplateT(p *corev1.Pod) { // its one claim is made from template t
	p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu", ResourceClaimTemplateName: new("t")}}
}

func ended(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }

func dying(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }

func reservedFor(names ...string) (out []resourcev1.ResourceClaimConsumerReference) {
	for _, n := range names {
		out = append(out, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: n, UID: types.UID("uid-" + n)})
	}
	return out
}

func claim(change func(*resourcev1.ResourceClaim)) *resourcev1.ResourceClaim {
	c := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c", Finalizers: []string{resourcev1.Finalizer}},
		Status: resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{}}}
	change(c)
	return c
}

func TestPlanClaim(t *testing.T) {
	users := func(names ...string) func(*resourcev1.ResourceClaim) {
		return func(c *resourcev1.ResourceClaim) { c.Status.ReservedFor = reservedFor(names...) }
	}
	made := func(c *resourcev1.ResourceClaim) {
		c.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "uid-p", Controller: new(true)}}
	}
	both := func(all ...func(*resourcev1.ResourceClaim)) func(*resourcev1.ResourceClaim) {
		return func(c *resourcev1.ResourceClaim) {
			for _, f := range all {
				f(c)
			}
		}
	}
	going := func(c *resourcev1.ResourceClaim) { c.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)} }
	free := func(c *resourcev1.ResourceClaim) { c.Status.Allocation, c.Finalizers = nil, nil }
	group := func(c *resourcev1.ResourceClaim) {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{APIGroup: "x", Resource: "groups", Name: "g", UID: "g"})
	}
	for _, tc := range []struct {
		name  string
		claim *resourcev1.ResourceClaim
		pods  []*corev1.Pod
		want  string // users, then what else happens; "" for nothing
	}{
		{"a running user keeps it", claim(users("p")), []*corev1.Pod{pod("p", nil)}, ""},
		{"a user that is being ended keeps it", claim(users("p")), []*corev1.Pod{pod("p", dying)}, ""},
		{"the last user ended", claim(users("p")), []*corev1.Pod{pod("p", ended)}, "users= allocated=false release"},
		{"the last user is gone", claim(users("p")), nil, "users= allocated=false release"},
		{"another pod of its name came", claim(users("p")), []*corev1.Pod{pod("p", func(p *corev1.Pod) { p.UID = "other"; p.Spec.ResourceClaims = nil })}, "users= allocated=false release"},
		{"one of two ended", claim(users("p", "q")), []*corev1.Pod{pod("p", ended), pod("q", nil)}, "users=q allocated=true"},
		{"never had a node", claim(users("p")), []*corev1.Pod{pod("p", func(p *corev1.Pod) { dying(p); p.Spec.NodeName = "" })}, "users= allocated=false release"},
		{"users of other kinds are not known here", claim(both(users("p"), group)), nil, "users=g allocated=true"},
		{"a pod came to its node by itself", claim(users("q")), []*corev1.Pod{pod("p", nil), pod("q", nil)}, "users=q,p allocated=true"},
		{"a pod that has no node yet waits for the scheduler", claim(users("q")), []*corev1.Pod{pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "" }), pod("q", nil)}, ""},
		{"nothing is allocated", claim(free), []*corev1.Pod{pod("p", nil)}, ""},
		{"allocated for nobody stays", claim(users()), nil, ""},
		{"deleted while it is used", claim(both(users("p"), going)), []*corev1.Pod{pod("p", nil)}, ""},
		{"deleted and not used", claim(going), nil, "users= allocated=false release"},
		{"deleted, and the devices are given back already", claim(both(going, func(c *resourcev1.ResourceClaim) { c.Status.Allocation = nil })), nil, "release"},
		{"made for a pod that ended", claim(both(made, users("p"))), []*corev1.Pod{pod("p", ended)}, "users= allocated=false release remove"},
		{"made for a pod that waits", claim(both(made, free)), []*corev1.Pod{pod("p", func(p *corev1.Pod) { p.Spec.NodeName = "" })}, ""},
		{"made for a pod that is gone: the garbage collector's", claim(both(made, free)), nil, ""},
		{"made for the pod before this one", claim(both(made, free)), []*corev1.Pod{pod("p", func(p *corev1.Pod) { p.UID = "other" })}, "remove"},
		{"made for another pod than its user", claim(both(made, users("p"))), []*corev1.Pod{pod("p", nil), pod("q", fromTemplateT)}, ""},
	} {
		pods := map[string]*corev1.Pod{}
		for _, p := range tc.pods {
			pods[p.Name] = p
		}
		before := tc.claim.DeepCopy()
		if got := shown(planClaim(tc.claim, pods)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
		if diff := cmp.Diff(before, tc.claim); diff != "" {
			t.Errorf("%s: planning changed the claim: %s", tc.name, diff)
		}
	}
}

func shown(c change) string {
	var out []string
	if c.status != nil {
		var users []string
		for _, r := range c.status.ReservedFor {
			users = append(users, r.Name)
		}
		allocated := "false"
		if c.status.Allocation != nil {
			allocated = "true"
		}
		out = append(out, "users="+strings.Join(users, ","), "allocated="+allocated)
	}
	if c.release {
		out = append(out, "release")
	}
	if c.remove {
		out = append(out, "remove")
	}
	return strings.Join(out, " ")
}

// A claim is reserved for as many as it may be, and no more.
func TestPlanClaimHasRoomForSoMany(t *testing.T) {
	c := claim(func(c *resourcev1.ResourceClaim) {})
	pods := map[string]*corev1.Pod{}
	for i := range resourcev1.ResourceClaimReservedForMaxSize + 9 {
		p := pod("p"+strings.Repeat("x", i), nil)
		pods[p.Name] = p
	}
	if got := len(planClaim(c, pods).status.ReservedFor); got != resourcev1.ResourceClaimReservedForMaxSize {
		t.Errorf("%d users", got)
	}
}

func TestPlanPod(t *testing.T) {
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "t"}, Spec: resourcev1.ResourceClaimTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"l": "m"}, Annotations: map[string]string{"x": "y"}},
		Spec:       resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r"}}}},
	}}
	templates := map[string]*resourcev1.ResourceClaimTemplate{"t": template}
	p := pod("p", fromTemplateT)

	got := planPod(p, nil, templates)
	want := &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", GenerateName: "p-gpu-", Labels: map[string]string{"l": "m"},
		Annotations:     map[string]string{"x": "y", resourcev1.PodResourceClaimAnnotation: "gpu"},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Pod", Name: "p", UID: "uid-p", Controller: new(true)}}}, Spec: template.Spec.Spec}
	if diff := cmp.Diff([]*resourcev1.ResourceClaim{want}, got.create); diff != "" {
		t.Errorf("created: %s", diff)
	}
	if got := planPod(p, nil, nil); got.missing["gpu"] != "t" || len(got.create) > 0 {
		t.Errorf("without the template: %+v", got)
	}
	made := want.DeepCopy()
	made.Name = "p-gpu-1"
	if got := planPod(p, []*resourcev1.ResourceClaim{made}, templates); len(got.create) > 0 || len(got.statuses) != 1 || *got.statuses[0].ResourceClaimName != "p-gpu-1" {
		t.Errorf("made, and not in the status yet: %+v", got)
	}
	known := pod("p", func(p *corev1.Pod) {
		fromTemplateT(p)
		p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu", ResourceClaimName: new("p-gpu-1")}}
	})
	if got := planPod(known, []*resourcev1.ResourceClaim{made}, templates); len(got.create)+len(got.statuses) > 0 {
		t.Errorf("all is there: %+v", got)
	}
	if got := planPod(known, nil, templates); len(got.create) != 1 {
		t.Errorf("its claim was deleted: %+v", got)
	}
	for what, change := range map[string]func(*corev1.Pod){"ended": ended, "dying": dying, "not needed": func(p *corev1.Pod) {
		p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{{Name: "gpu"}}
	}} {
		if got := planPod(pod("p", func(p *corev1.Pod) { fromTemplateT(p); change(p) }), nil, templates); len(got.create)+len(got.missing) > 0 {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

func TestGeneratedNamesHaveRoom(t *testing.T) {
	long := strings.Repeat("p", 100)
	for _, tc := range [][3]string{{"web", "gpu", "web-gpu-"}, {long, "gpu", strings.Repeat("p", 54) + "-g"}, {long, long, strings.Repeat("p", 28) + "-" + strings.Repeat("p", 28)}} {
		if got := generateName(tc[0], tc[1]); got != tc[2] || len(got) > longest {
			t.Errorf("%s and %s: %q (%d), want %q", tc[0], tc[1], got, len(got), tc[2])
		}
	}
}
