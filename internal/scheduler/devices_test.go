package scheduler

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

// offer makes a slice with n devices of a node.
func (c *cluster) offer(node string, n int) {
	c.t.Helper()
	var devices []resourcev1.Device
	for i := range n {
		devices = append(devices, resourcev1.Device{Name: fmt.Sprintf("d%d", i)})
	}
	clienttest.Create(c.t, c.Client, &resourcev1.ResourceSlice{ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: resourcev1.ResourceSliceSpec{
		Driver: "gpu.example.com", NodeName: &node, Pool: resourcev1.ResourcePool{Name: node, Generation: 1, ResourceSliceCount: 1}, Devices: devices}})
}

func (c *cluster) class() {
	c.t.Helper()
	clienttest.Create(c.t, c.Client, &resourcev1.DeviceClass{ObjectMeta: metav1.ObjectMeta{Name: "gpu"}, Spec: resourcev1.DeviceClassSpec{
		Selectors: []resourcev1.DeviceSelector{{CEL: &resourcev1.CELDeviceSelector{Expression: `device.driver == "gpu.example.com"`}}}}})
}

func (c *cluster) claim(name string) {
	c.t.Helper()
	clienttest.Create(c.t, c.Client, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: resourcev1.ResourceClaimSpec{
		Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}}})
}

func uses(claims ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for i, name := range claims {
			p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: fmt.Sprintf("c%d", i), ResourceClaimName: &name})
		}
	}
}

// holders returns the claims by the device that they have, and fails the test if a device has two, or a claim with devices has no user.
func (c *cluster) holders() map[string]string {
	c.t.Helper()
	claims, err := client.List[*resourcev1.ResourceClaim](context.Background(), c.Client, client.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	out := map[string]string{}
	for _, claim := range claims {
		if claim.Status.Allocation == nil {
			continue
		}
		if len(claim.Status.ReservedFor) == 0 {
			c.t.Fatalf("claim %s has devices and no user", claim.Name)
		}
		for _, r := range claim.Status.Allocation.Devices.Results {
			at := r.Pool + "/" + r.Device
			if other := out[at]; other != "" {
				c.t.Fatalf("%s is given to %s and to %s", at, other, claim.Name)
			}
			out[at] = claim.Name
		}
	}
	return out
}

// A pod that wants a device waits, and says for what: its claim, the class, a device, and for one that another pod has.
func TestPodsWaitForDevices(t *testing.T) {
	run(t, func(c *cluster) {
		c.node("n1", "10")
		c.node("n2", "10")
		pod := func(name, claim string) {
			c.pod(name, "1", uses(claim))
			synctest.Wait()
		}
		waits := func(name, want string) {
			t.Helper()
			synctest.Wait()
			if got := c.message(name); c.get(name).Spec.NodeName != "" || !strings.HasPrefix(got, "False Unschedulable: 0/2 nodes are available: "+want) {
				t.Errorf("%s is on %q: %q, want %q", name, c.get(name).Spec.NodeName, got, want)
			}
		}
		pod("p", "a")
		waits("p", `resourceclaim "a" not found.`)
		c.claim("a")
		time.Sleep(time.Minute)
		waits("p", "request r: device class gpu does not exist.")
		c.class()
		time.Sleep(time.Minute)
		waits("p", "2 cannot allocate all claims.")
		c.offer("n2", 1)
		time.Sleep(time.Minute)
		if got := c.get("p").Spec.NodeName; got != "n2" {
			t.Fatalf("p is on %q: %s", got, c.message("p"))
		}
		c.claim("b")
		pod("q", "b")
		waits("q", "2 cannot allocate all claims.")
		pod("r", "a") // shares p's
		time.Sleep(time.Minute)
		if got := c.get("r").Spec.NodeName; got != "n2" {
			t.Errorf("r is on %q: %s", got, c.message("r"))
		}
		// The device comes free: its claim gives it back.
		c.remove("p")
		c.remove("r")
		if _, err := client.Mutate(context.Background(), c.Client, api.Key{Namespace: "default", Name: "a"}, "status", func(o *resourcev1.ResourceClaim) bool {
			o.Status.ReservedFor, o.Status.Allocation = nil, nil
			return true
		}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := c.get("q").Spec.NodeName; got != "n2" {
			t.Errorf("q is on %q: %s", got, c.message("q"))
		}
		c.holders()
	})
}

// TestADeviceIsGivenOnce lets many pods ask for few devices while bindings fail, some of them after they were made.
func TestADeviceIsGivenOnce(t *testing.T) {
	for seed := range int64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cluster{t: t, Client: clienttest.New(t)}
				c.s = New(Config{Client: &flaky{Client: c.Client, rng: rand.New(rand.NewSource(seed))}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
				defer c.start(c.s)()
				c.class()
				for i := range 3 {
					name := fmt.Sprintf("n%d", i)
					c.node(name, "100")
					c.offer(name, 5)
				}
				for i := range 30 {
					name := fmt.Sprintf("p%d", i)
					c.claim(name)
					c.pod(name, "1", uses(name))
					if i%7 == 0 {
						time.Sleep(20 * time.Millisecond)
						c.holders()
					}
				}
				time.Sleep(time.Minute)
				if got := len(c.holders()); got != 15 {
					t.Errorf("%d devices are in use, 15 are there", got)
				}
				if placed := c.checkNodes(100); placed != 15 {
					t.Errorf("%d pods are placed", placed)
				}
			})
		})
	}
}
