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
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
)

func (c *cluster) storageClass(name, provisioner string) {
	c.t.Helper()
	waits := storagev1.VolumeBindingWaitForFirstConsumer
	clienttest.Create(c.t, c.Client, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Provisioner: provisioner, VolumeBindingMode: &waits})
}

func (c *cluster) volumeClaim(name, class string) {
	c.t.Helper()
	clienttest.Create(c.t, c.Client, &corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PersistentVolumeClaimSpec{
		StorageClassName: &class, AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
		Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{"storage": resource.MustParse("10")}}}})
}

func (c *cluster) getClaim(name string) *corev1.PersistentVolumeClaim {
	c.t.Helper()
	claim, err := client.Get[*corev1.PersistentVolumeClaim](context.Background(), c.Client, api.Key{Namespace: "default", Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	return claim
}

func mounts(claims ...string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for i, name := range claims {
			p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: fmt.Sprint("v", i),
				VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}})
		}
	}
}

func room(bytes string) func(*corev1.Node) {
	return func(n *corev1.Node) { n.Annotations = map[string]string{volume.LocalCapacity: bytes} }
}

// A pod with local volumes is bound at once, its volumes with it, to a node that has room for them; its data keeps later pods there.
func TestLocalVolumesComeWithThePod(t *testing.T) {
	run(t, func(c *cluster) {
		c.storageClass("local", volume.Local)
		c.node("n1", "10", room("15"))
		c.node("n2", "10", room("20"))
		for _, name := range []string{"a", "b", "c", "d"} {
			c.volumeClaim(name, "local")
		}
		c.pod("p", "1", mounts("a", "b"))
		c.on("p", "n2") // n1 has no room for two
		if got := c.getClaim("a"); got.Status.Phase != corev1.ClaimBound || got.Spec.VolumeName != "pvc-"+string(got.UID) {
			t.Errorf("%+v", got)
		}
		c.pod("q", "1", mounts("c"))
		c.on("q", "n1")
		c.pod("r", "1", mounts("d"))
		c.says("r", "False Unschedulable: 0/2 nodes are available: 2 node(s) did not have enough free storage. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
		c.pod("s", "1", mounts("a")) // goes where the volume is
		c.on("s", "n2")
		c.pod("t", "1", mounts("a", "c"))
		c.says("t", "False Unschedulable: 0/2 nodes are available: 2 node(s) had volume node affinity conflict. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.")
		// Room comes: the agent says so.
		if _, err := client.Mutate(context.Background(), c.Client, api.Key{Name: "n1"}, "", func(n *corev1.Node) bool { n.Annotations[volume.LocalCapacity] = "20"; return true }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c.on("r", "n1")
	})
}

// A provisioner is asked for a volume for the node that was chosen; the pod gets there once it has it, or to another node if it cannot be had.
func TestAProvisionerIsAsked(t *testing.T) {
	run(t, func(c *cluster) {
		c.storageClass("csi", "csi.example.com")
		c.node("n1", "1")
		c.volumeClaim("a", "csi")
		c.pod("p", "1", mounts("a"))
		asked := func() string {
			time.Sleep(time.Minute)
			return c.getClaim("a").Annotations[storage.AnnSelectedNode]
		}
		if got := asked(); got != "n1" || c.get("p").Spec.NodeName != "" {
			t.Fatalf("asked for %q, p is on %q", got, c.get("p").Spec.NodeName)
		}
		c.pod("q", "1") // p's room is kept
		synctest.Wait()
		if got := c.get("q").Spec.NodeName; got != "" {
			t.Errorf("q is on %q", got)
		}
		c.remove("q")
		// The provisioner cannot do it there.
		if _, err := client.Mutate(context.Background(), c.Client, api.Key{Name: "n1"}, "", func(n *corev1.Node) bool { n.Spec.Unschedulable = true; return true }); err != nil {
			t.Fatal(err)
		}
		c.node("n2", "1")
		if _, err := client.Mutate(context.Background(), c.Client, api.Key{Namespace: "default", Name: "a"}, "", func(o *corev1.PersistentVolumeClaim) bool {
			delete(o.Annotations, storage.AnnSelectedNode)
			return true
		}); err != nil {
			t.Fatal(err)
		}
		if got := asked(); got != "n2" {
			t.Fatalf("asked for %q", got)
		}
		// And here it can.
		claim := c.getClaim("a")
		v := volume.NewLocal(claim, &storagev1.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "csi"}}, "n2")
		v.Spec.CSI.Driver = "csi.example.com"
		v, claim, err := volume.Bind(clienttest.Create(t, c.Client, v), claim)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Update(context.Background(), v, "status"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Update(context.Background(), claim, ""); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		c.on("p", "n2")
	})
}

// TestRoomForVolumesIsGivenOnce lets many pods ask for volumes on few nodes while bindings fail, some of them after they were made.
func TestRoomForVolumesIsGivenOnce(t *testing.T) {
	for seed := range int64(5) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &cluster{t: t, Client: clienttest.New(t)}
				c.s = New(Config{Client: &flaky{Client: c.Client, rng: rand.New(rand.NewSource(seed))}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
				defer c.start(c.s)()
				c.storageClass("local", volume.Local)
				for i := range 3 {
					c.node(fmt.Sprintf("n%d", i), "100", room("50"))
				}
				for i := range 30 {
					name := fmt.Sprintf("p%d", i)
					c.volumeClaim(name, "local")
					c.pod(name, "1", mounts(name))
					if i%7 == 0 {
						time.Sleep(20 * time.Millisecond)
						c.roomTaken()
					}
				}
				time.Sleep(time.Minute)
				if got := c.roomTaken(); got != 15 {
					t.Errorf("%d volumes are there, for 15 there is room", got)
				}
				if placed := c.checkNodes(100); placed != 15 {
					t.Errorf("%d pods are placed", placed)
				}
			})
		})
	}
}

// roomTaken returns how many volumes there are, and fails the test if a node has more than it has room for, or a volume no bound claim.
func (c *cluster) roomTaken() int {
	c.t.Helper()
	all, err := client.List[*corev1.PersistentVolume](context.Background(), c.Client, client.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	on := map[string]int{}
	for _, v := range all {
		host := volume.LocalHost(v)
		if on[host]++; on[host] > 5 {
			c.t.Fatalf("%s has room for 5 volumes, and has %d", host, on[host])
		}
		if claim := c.getClaim(v.Spec.ClaimRef.Name); claim.Spec.VolumeName != v.Name || c.get(claim.Name).Spec.NodeName != strings.TrimPrefix(host, "host-") {
			c.t.Fatalf("volume %s is of claim %s, which has %q", v.Name, claim.Name, claim.Spec.VolumeName)
		}
	}
	return len(all)
}
