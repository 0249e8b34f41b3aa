package upkeep

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/cgroup"
	"github.com/knarr-io/knarr/internal/node/diskuse"
	"github.com/knarr-io/knarr/internal/node/events"
	"github.com/knarr-io/knarr/internal/node/images"
	"github.com/knarr-io/knarr/internal/node/ledger"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/pod"
	"github.com/knarr-io/knarr/internal/node/podspec"
	"github.com/knarr-io/knarr/internal/node/probe"
	"github.com/knarr-io/knarr/internal/node/runtime"
	"github.com/knarr-io/knarr/internal/node/sources"
	"github.com/knarr-io/knarr/internal/node/task"
	"github.com/knarr-io/knarr/internal/node/volume"
)

// room is a node's pods over a fake runtime, in a synctest bubble, with the keeper that looks after them.
type room struct {
	*Keeper
	t       *testing.T
	c       *client.Local
	rt      *runtime.Fake
	set     *pod.Set
	volumes *volumes
	memory  map[string]uint64 // working sets in bytes, by pod
	left    lifecycle.Rooms
	log     *bytes.Buffer
}

// inRoom runs f in a room whose machine has plenty of everything.
func inRoom(t *testing.T, opts runtime.FakeOptions, f func(r *room)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		r := &room{t: t, c: clienttest.New(t), rt: runtime.NewFake(opts), volumes: &volumes{bytes: map[string]uint64{}}, memory: map[string]uint64{}, log: &bytes.Buffer{}}
		var tasks task.Group
		log := slog.New(slog.NewTextHandler(r.log, nil))
		rec := events.New(events.Settings{Client: r.c, Tasks: &tasks, Node: "n1"})
		src := sources.New(sources.Settings{Client: r.c, Tasks: &tasks, Log: log, Hollow: true})
		store := images.New(images.Settings{Runtime: r.rt, Events: rec, Secrets: src, Log: log})
		all := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110")}
		r.set = pod.NewSet(&pod.Host{
			Node:   pod.Node{IPs: []string{"192.0.2.1"}, Capacity: all, Allocatable: all, Hollow: true, LogDir: filepath.Join(dir, "logs"), PodDir: filepath.Join(dir, "pods")},
			Client: r.c, Runtime: r.rt, Volumes: r.volumes, Cgroups: cgroups{room: r}, Devices: noDevices{}, Prober: healthy{}, Probes: probe.NewMetrics(),
			Ledger: ledger.New(all, &tasks), Images: store, Sources: src, Events: rec, Tasks: &tasks, Log: log, Statuses: silent{}, Self: silent{},
		})
		r.Keeper = New(Settings{Pods: r.set, Client: r.c, Runtime: r.rt, Cgroups: cgroups{room: r}, Images: store,
			Disks: &diskuse.Meter{Volumes: r.volumes, Cgroups: cgroups{room: r}}, Tasks: &tasks, Log: log, DataDir: dir,
			Rooms: func() lifecycle.Rooms { return r.left }, MaxLogSize: 10, MaxLogFiles: 3, ImageGCHigh: 101, ImageGCLow: 101})
		ctx, cancel := context.WithCancel(context.Background())
		tasks.Open(ctx)
		r.set.Listed(&pod.Listing{Runtime: "fake"})
		r.set.Synced(nil)
		f(r)
		cancel()
		tasks.Close()
		r.set.Close()
	})
}

// runs creates a pod and waits until its container runs.
func (r *room) runs(name string, change ...func(*corev1.Pod)) *pod.Worker {
	r.t.Helper()
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "img:1"}}}}
	for _, f := range change {
		f(p)
	}
	clienttest.Create(r.t, r.c, p)
	p = r.pod(name)
	r.set.Update(p)
	r.wait(5 * time.Second)
	w := r.set.Get(p.UID)
	if len(w.Running()) != 1 {
		r.t.Fatalf("pod %s does not run:\n%s", name, r.log)
	}
	return w
}

func (r *room) pod(name string) *corev1.Pod {
	r.t.Helper()
	p, err := client.Get[*corev1.Pod](context.Background(), r.c, api.Key{Namespace: "default", Name: name})
	if err != nil {
		r.t.Fatal(err)
	}
	return p
}

func (r *room) wait(d time.Duration) {
	time.Sleep(d) // the bubble's clock
	synctest.Wait()
}

// beat is one heartbeat, and what it began.
func (r *room) beat() {
	r.Tend(context.Background(), time.Now())
	synctest.Wait()
}

// evicted returns the names of the pods that are evicted, or were.
func (r *room) evicted() string {
	var out []string
	for _, name := range []string{"a", "b", "c"} {
		if p, err := client.Get[*corev1.Pod](context.Background(), r.c, api.Key{Namespace: "default", Name: name}); err == nil {
			if w := r.set.Get(p.UID); w != nil && w.Reported() != nil && w.Reported().Reason == lifecycle.ReasonEvicted {
				out = append(out, name)
			}
		}
	}
	return strings.Join(out, " ")
}

// sized gives the container requests and limits, such as "memory=1Gi".
func sized(requests, limits string) func(*corev1.Pod) {
	list := func(s string) corev1.ResourceList {
		out := corev1.ResourceList{}
		for _, f := range strings.Fields(s) {
			name, q, _ := strings.Cut(f, "=")
			out[corev1.ResourceName(name)] = resource.MustParse(q)
		}
		return out
	}
	return func(p *corev1.Pod) {
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: list(requests), Limits: list(limits)}
	}
}

// volumes are empty ones that hold as many bytes as is said of their pod.
type volumes struct {
	pod.Volumes
	bytes map[string]uint64
	slow  time.Duration // how long measuring takes
	walks int
}

func (v *volumes) Setup(context.Context, *corev1.Pod, volume.Source, podspec.Facts) (map[string]volume.Mounted, time.Time, error) {
	return nil, time.Time{}, nil
}

func (v *volumes) Mounts(*corev1.Pod, *corev1.Container, map[string]volume.Mounted, []*cri.KeyValue) ([]*cri.Mount, error) {
	return nil, nil
}

func (v *volumes) Hosts(string, []byte) (string, error)              { return "", nil }
func (v *volumes) MessageFile(string, string, int32) (string, error) { return "", nil }
func (v *volumes) Message(string, string, int32) string              { return "" }
func (v *volumes) Teardown(context.Context, string) error            { return nil }
func (v *volumes) Pods() []string                                    { return nil }

func (v *volumes) Uses(_ context.Context, p *corev1.Pod) map[string]volume.Use {
	v.walks++
	time.Sleep(v.slow)
	out := map[string]volume.Use{}
	for i := range p.Spec.Volumes {
		out[p.Spec.Volumes[i].Name] = volume.Use{Bytes: v.bytes[p.Name]}
	}
	return out
}

// cgroups know the memory of the room's pods.
type cgroups struct {
	pod.Cgroups
	room *room
}

func (c cgroups) Setup(string, podspec.PodResources) (string, error) { return "", nil }
func (c cgroups) Raise(string, podspec.PodResources) error           { return nil }
func (c cgroups) Remove(string) error                                { return nil }
func (c cgroups) Pods() []string                                     { return nil }
func (c cgroups) V2() bool                                           { return true }
func (c cgroups) Processes(string, string) ([]int, error)            { return nil, os.ErrNotExist }

func (c cgroups) PodUsage(uid string) (cgroup.Usage, error) {
	for _, p := range c.room.set.Pods() {
		if bytes, ok := c.room.memory[p.Name]; ok && string(p.UID) == uid {
			return cgroup.Usage{WorkingSet: bytes}, nil
		}
	}
	return cgroup.Usage{}, os.ErrNotExist
}

type healthy struct{ pod.Prober }

// silent is a node that has nothing to say of itself, and to which nobody listens.
type silent struct{}

func (silent) Changed(*pod.Worker)                   {}
func (silent) Node() *corev1.Node                    { return &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}} }
func (silent) ReadNode(context.Context)              {}
func (silent) Shortage() lifecycle.Shortage          { return lifecycle.Shortage{} }
func (silent) NetworkProblem(context.Context) string { return "" }

// noDevices is a node where no driver has registered, and no pod has claims.
type noDevices struct{}

func (noDevices) Prepare(context.Context, *corev1.Pod) error  { return nil }
func (noDevices) Unprepare(context.Context, types.UID) error  { return nil }
func (noDevices) Pods() []types.UID                           { return nil }
func (noDevices) For(*corev1.Pod, *corev1.Container) []string { return nil }
