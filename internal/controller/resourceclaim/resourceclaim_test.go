package resourceclaim

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/controller/controllertest"
)

func gpuTemplate() *resourcev1.ResourceClaimTemplate {
	return &resourcev1.ResourceClaimTemplate{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "t"}, Spec: resourcev1.ResourceClaimTemplateSpec{
		Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{
			{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}}}}
}

// start is a cluster with namespace a and both controllers.
func start(c *controllertest.Cluster) {
	controllertest.Make(c, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	c.Start(New(c), NewUsers(c))
}

// allocate does what the scheduler does: it binds the pod, and gives the claim a device and the pod as its user.
func allocate(c *controllertest.Cluster, claim, pod string) {
	c.T.Helper()
	uid := controllertest.Get[*corev1.Pod](c, "a", pod).UID
	controllertest.Change(c, "a", claim, "", func(o *resourcev1.ResourceClaim) { o.Finalizers = []string{resourcev1.Finalizer} })
	controllertest.Change(c, "a", claim, "status", func(o *resourcev1.ResourceClaim) {
		o.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
			{Request: "r", Driver: "gpu.example.com", Pool: "n1", Device: "d"}}}}
		o.Status.ReservedFor = []resourcev1.ResourceClaimConsumerReference{{Resource: "pods", Name: pod, UID: uid}}
	})
	if r := c.BindMany(context.Background(), []client.Binding{{Pod: api.Key{Namespace: "a", Name: pod}, Node: "n1"}})[0]; r.Err != nil {
		c.T.Fatal(r.Err)
	}
}

func newPod(name string) *corev1.Pod {
	return pod(name, func(p *corev1.Pod) { fromTemplateT(p); p.UID, p.Spec.NodeName = "", "" })
}

// A pod that wants a claim from a template gets one, once the template is there, and its status names it.
func TestAClaimIsMadeOnce(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, newPod("p"))
		c.Settle()
		if said := c.Events("FailedResourceClaimCreation"); len(said) != 1 ||
			said[0] != `PodResourceClaim gpu: resource claim template "t": resourceclaimtemplates.resource.k8s.io "t" not found` {
			t.Errorf("events %q", said)
		}
		controllertest.Make(c, gpuTemplate())
		c.Settle()
		claims := controllertest.All[*resourcev1.ResourceClaim](c, "a")
		p := controllertest.Get[*corev1.Pod](c, "a", "p")
		if len(claims) != 1 || !strings.HasPrefix(claims[0].Name, "p-gpu-") || !metav1.IsControlledBy(claims[0], p) {
			t.Fatalf("claims %+v", claims)
		}
		if s := p.Status.ResourceClaimStatuses; len(s) != 1 || *s[0].ResourceClaimName != claims[0].Name {
			t.Errorf("status %+v", s)
		}

		// The status is lost, as by a restart between the two writes: it is the same claim that goes into it.
		controllertest.Change(c, "a", "p", "status", func(p *corev1.Pod) { p.Status.ResourceClaimStatuses = []corev1.PodResourceClaimStatus{} })
		c.Settle()
		if got := controllertest.All[*resourcev1.ResourceClaim](c, "a"); len(got) != 1 {
			t.Errorf("%d claims", len(got))
		}

		// The claim itself is lost: there is another one.
		controllertest.Delete[*resourcev1.ResourceClaim](c, "a", claims[0].Name, metav1.DeleteOptions{})
		c.Settle()
		again := controllertest.All[*resourcev1.ResourceClaim](c, "a")
		p = controllertest.Get[*corev1.Pod](c, "a", "p")
		if len(again) != 1 || again[0].UID == claims[0].UID || *p.Status.ResourceClaimStatuses[0].ResourceClaimName != again[0].Name {
			t.Errorf("claims %+v, status %+v", again, p.Status.ResourceClaimStatuses)
		}
	})
}

// Devices stay as long as a user runs. A claim of a template goes with its pod's use of it, one that people made is free for the next.
func TestDevicesAreGivenBack(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, gpuTemplate())
		controllertest.Make(c, newPod("p"))
		controllertest.Make(c, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c"}, Spec: gpuTemplate().Spec.Spec})
		controllertest.Make(c, pod("q", func(p *corev1.Pod) { p.UID, p.Spec.NodeName = "", "" }))
		c.Settle()
		mine := *controllertest.Get[*corev1.Pod](c, "a", "p").Status.ResourceClaimStatuses[0].ResourceClaimName
		allocate(c, mine, "p")
		allocate(c, "c", "q")
		c.Settle()
		for _, name := range []string{mine, "c"} {
			if got := controllertest.Get[*resourcev1.ResourceClaim](c, "a", name); got.Status.Allocation == nil || len(got.Status.ReservedFor) != 1 {
				t.Fatalf("%s while it is used: %+v", name, got.Status)
			}
		}
		for _, name := range []string{"p", "q"} {
			controllertest.Change(c, "a", name, "status", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded })
		}
		c.Settle()
		if !controllertest.Gone[*resourcev1.ResourceClaim](c, "a", mine) {
			t.Errorf("%s is there though its pod ended", mine)
		}
		left := controllertest.Get[*resourcev1.ResourceClaim](c, "a", "c")
		if left.Status.Allocation != nil || len(left.Status.ReservedFor) > 0 || len(left.Finalizers) > 0 {
			t.Errorf("c after its last user: %v %+v", left.Finalizers, left.Status)
		}
	})
}

// A claim that is deleted while a pod uses it waits for that, and a pod that got to its node by itself is one of its users.
func TestADeletedClaimWaitsForItsUsers(t *testing.T) {
	controllertest.Run(t, func(c *controllertest.Cluster) {
		start(c)
		controllertest.Make(c, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: "c"}, Spec: gpuTemplate().Spec.Spec})
		controllertest.Make(c, pod("q", func(p *corev1.Pod) { p.UID, p.Spec.NodeName = "", "" }))
		allocate(c, "c", "q")
		controllertest.Make(c, pod("r", func(p *corev1.Pod) { p.UID = "" }))
		c.Settle()
		if got := controllertest.Get[*resourcev1.ResourceClaim](c, "a", "c").Status.ReservedFor; len(got) != 2 || got[1].Name != "r" {
			t.Errorf("users %+v", got)
		}
		controllertest.Delete[*resourcev1.ResourceClaim](c, "a", "c", metav1.DeleteOptions{})
		zero := int64(0)
		controllertest.Delete[*corev1.Pod](c, "a", "q", metav1.DeleteOptions{GracePeriodSeconds: &zero})
		c.Settle()
		if got := controllertest.Get[*resourcev1.ResourceClaim](c, "a", "c"); got.Status.Allocation == nil || len(got.Status.ReservedFor) != 1 {
			t.Errorf("one of two users is left: %+v", got.Status)
		}
		controllertest.Delete[*corev1.Pod](c, "a", "r", metav1.DeleteOptions{GracePeriodSeconds: &zero})
		c.Settle()
		if !controllertest.Gone[*resourcev1.ResourceClaim](c, "a", "c") {
			t.Error("the claim is there though nobody uses it")
		}
	})
}
