package devices

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	drabeta "k8s.io/kubelet/pkg/apis/dra/v1beta1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/plugins"
)

const driverName = "gpu.example.com"

// plugin is a driver, registered by one socket and called by another.
type plugin struct {
	registration.UnimplementedRegistrationServer
	dra.UnimplementedDRAPluginServer
	info registration.PluginInfo

	mu       sync.Mutex
	fails    string
	prepared map[string]bool // by the claims' names
	calls    []string
	status   []*registration.RegistrationStatus
}

func (p *plugin) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &p.info, nil
}

func (p *plugin) NotifyRegistrationStatus(_ context.Context, s *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status = append(p.status, s)
	return &registration.RegistrationStatusResponse{}, nil
}

func (p *plugin) NodePrepareResources(_ context.Context, r *dra.NodePrepareResourcesRequest) (*dra.NodePrepareResourcesResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := &dra.NodePrepareResourcesResponse{Claims: map[string]*dra.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		p.calls = append(p.calls, "prepare "+c.Name)
		out.Claims[c.Uid] = &dra.NodePrepareResourceResponse{Error: p.fails, Devices: []*dra.Device{
			{RequestNames: []string{"r"}, PoolName: "n1", DeviceName: "d", CdiDeviceIds: []string{driverName + "/gpu=" + c.Name}}}}
		p.prepared[c.Name] = p.fails == ""
	}
	return out, nil
}

func (p *plugin) NodeUnprepareResources(_ context.Context, r *dra.NodeUnprepareResourcesRequest) (*dra.NodeUnprepareResourcesResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := &dra.NodeUnprepareResourcesResponse{Claims: map[string]*dra.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		p.calls = append(p.calls, "unprepare "+c.Name)
		out.Claims[c.Uid] = &dra.NodeUnprepareResourceResponse{Error: p.fails}
		delete(p.prepared, c.Name)
	}
	return out, nil
}

func (p *plugin) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.calls, ", ")
}

// node is a node with a manager whose directory is dir, and a cluster.
type node struct {
	t *testing.T
	client.Client
	dir     string
	m       *Manager
	arrived chan struct{}
}

func newNode(t *testing.T) *node {
	dir, err := os.MkdirTemp("", "dra") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	n := &node{t: t, Client: clienttest.New(t), dir: dir, arrived: make(chan struct{}, 10)}
	clienttest.Create(t, n.Client, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "a"}})
	n.start()
	return n
}

// start makes a manager, as an agent does that starts, and runs it until the returned function is called or the test ends.
func (n *node) start() (stop func()) {
	n.t.Helper()
	m, err := New(Settings{Client: n.Client, Dir: n.dir, Root: plugins.RootOf(n.dir), Log: slog.New(slog.DiscardHandler), Arrived: func() { n.arrived <- struct{}{} }})
	if err != nil {
		n.t.Fatal(err)
	}
	n.m = m
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer m.Close()
		r := &plugins.Registry{Root: m.Root, Log: m.Log, Handlers: map[string]plugins.Handler{registration.DRAPlugin: m}}
		if err := r.Run(ctx); err != nil {
			n.t.Errorf("Run: %v", err)
		}
	}()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	n.t.Cleanup(stop)
	return stop
}

// serve serves a plugin at two sockets until the test ends or the returned function is called.
func (n *node) serve(p *plugin, name string) (stop func()) {
	n.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Join(n.dir, "kubelet", "plugins_registry"), 0o750), os.MkdirAll(filepath.Join(n.dir, "kubelet", "plugins"), 0o750)); err != nil {
		n.t.Fatal(err)
	}
	p.info.Endpoint = filepath.Join(n.dir, "kubelet", "plugins", name)
	var servers []*grpc.Server
	for _, path := range []string{p.info.Endpoint, filepath.Join(n.dir, "kubelet", "plugins_registry", name)} {
		l, err := net.Listen("unix", path)
		if err != nil {
			n.t.Fatal(err)
		}
		s := grpc.NewServer()
		registration.RegisterRegistrationServer(s, p)
		dra.RegisterDRAPluginServer(s, p)
		drabeta.RegisterDRAPluginServer(s, drabeta.V1ServerWrapper{DRAPluginServer: p})
		servers = append(servers, s)
		go s.Serve(l)
	}
	stop = sync.OnceFunc(func() {
		for _, s := range servers {
			s.Stop()
		}
	})
	n.t.Cleanup(stop)
	return stop
}

func newPlugin(versions ...string) *plugin {
	return &plugin{info: registration.PluginInfo{Type: registration.DRAPlugin, Name: driverName, SupportedVersions: versions}, prepared: map[string]bool{}}
}

// wait waits until a driver has registered.
func (n *node) wait() {
	n.t.Helper()
	select {
	case <-n.arrived:
	case <-time.After(time.Minute):
		n.t.Fatal("no driver registered")
	}
}

// claim makes a claim that is allocated, for pods.
func (n *node) claim(name string, pods ...*corev1.Pod) {
	n.t.Helper()
	c := clienttest.Create(n.t, n.Client, &resourcev1.ResourceClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name}, Spec: resourcev1.ResourceClaimSpec{
		Devices: resourcev1.DeviceClaim{Requests: []resourcev1.DeviceRequest{{Name: "r", Exactly: &resourcev1.ExactDeviceRequest{DeviceClassName: "gpu"}}}}}}).DeepCopy()
	c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{
		{Request: "r", Driver: driverName, Pool: "n1", Device: "d"}}}}
	for _, p := range pods {
		c.Status.ReservedFor = append(c.Status.ReservedFor, resourcev1.ResourceClaimConsumerReference{Resource: "pods", Name: p.Name, UID: p.UID})
	}
	if _, err := n.Update(context.Background(), c, "status"); err != nil {
		n.t.Fatal(err)
	}
}

func pod(name string, claims ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "a", Name: name, UID: types.UID("uid-" + name)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c"}}}}
	for _, c := range claims {
		p.Spec.ResourceClaims = append(p.Spec.ResourceClaims, corev1.PodResourceClaim{Name: c, ResourceClaimName: &c})
		p.Spec.Containers[0].Resources.Claims = append(p.Spec.Containers[0].Resources.Claims, corev1.ResourceClaim{Name: c})
	}
	return p
}

func (n *node) prepare(p *corev1.Pod, want string) {
	n.t.Helper()
	err := n.m.Prepare(context.Background(), p)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		n.t.Errorf("preparing %s: %v, want %q", p.Name, err, want)
	}
}

func (n *node) unprepare(p *corev1.Pod, want string) {
	n.t.Helper()
	err := n.m.Unprepare(context.Background(), p.UID)
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		n.t.Errorf("unpreparing %s: %v, want %q", p.Name, err, want)
	}
}

// A pod waits for its claim, for the driver, and for the driver to succeed.
func TestPodsWaitForTheirDriver(t *testing.T) {
	n := newNode(t)
	p, q := pod("p", "x"), pod("q", "x")
	n.prepare(pod("none"), "")
	n.prepare(p, "failed to fetch ResourceClaim x referenced by pod p")
	n.claim("x", p)
	n.prepare(q, "pod a/q (uid-q) is not allowed to use ResourceClaim a/x")
	n.prepare(p, "claim a/x: DRA driver gpu.example.com is not registered on this node")
	if got := n.m.For(p, &p.Spec.Containers[0]); len(got) > 0 {
		t.Errorf("devices %v before there is a driver", got)
	}
	driver := newPlugin(dra.DRAPluginService)
	driver.fails = "no power"
	stop := n.serve(driver, "gpu.sock")
	n.wait()
	n.prepare(p, "NodePrepareResources of driver gpu.example.com failed: no power")
	driver.mu.Lock()
	driver.fails = ""
	driver.mu.Unlock()
	n.prepare(p, "")
	n.prepare(p, "") // asks nobody
	if got := n.m.For(p, &p.Spec.Containers[0]); !slices.Equal(got, []string{"gpu.example.com/gpu=x"}) {
		t.Errorf("devices %v", got)
	}
	stop()
	deadline := time.Now().Add(time.Minute)
	for {
		n.m.mu.Lock()
		left := len(n.m.drivers)
		n.m.mu.Unlock()
		if left == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the driver is known though its socket is gone")
		}
		time.Sleep(10 * time.Millisecond)
	}
	n.unprepare(p, "DRA driver gpu.example.com is not registered on this node")
	n.serve(driver, "gpu-2.sock")
	n.wait()
	n.unprepare(p, "")
	if got, want := driver.said(), "prepare x, prepare x, unprepare x"; got != want {
		t.Errorf("the driver was asked %q, want %q", got, want)
	}
	if len(n.m.Pods()) > 0 {
		t.Errorf("pods %v are left", n.m.Pods())
	}
}

// A claim of two pods is prepared once, and given back with the last of them.
func TestAClaimOfTwoPods(t *testing.T) {
	n := newNode(t)
	p, q := pod("p", "x", "y"), pod("q", "x")
	n.claim("x", p, q)
	n.claim("y", p)
	driver := newPlugin(dra.DRAPluginService)
	n.serve(driver, "gpu.sock")
	n.wait()
	n.prepare(p, "")
	n.prepare(q, "")
	n.unprepare(p, "")
	n.unprepare(p, "")
	if got, want := driver.said(), "prepare x, prepare y, unprepare y"; got != want {
		t.Errorf("the driver was asked %q, want %q", got, want)
	}
	if got := n.m.For(q, &q.Spec.Containers[0]); len(got) != 1 {
		t.Errorf("the other pod has %v", got)
	}
	n.unprepare(q, "")
	if len(driver.prepared) > 0 {
		t.Errorf("%v is left", driver.prepared)
	}
}

// What a driver was asked for before a restart is known after it, whether it answered or not.
func TestARestartForgetsNothing(t *testing.T) {
	n := newNode(t)
	p, q := pod("p", "x"), pod("q", "y")
	n.claim("x", p)
	n.claim("y", q)
	driver := newPlugin(dra.DRAPluginService)
	n.serve(driver, "gpu.sock")
	n.wait()
	n.prepare(p, "")
	driver.mu.Lock()
	driver.fails = "killed meanwhile"
	driver.mu.Unlock()
	n.prepare(q, "killed meanwhile")
	driver.mu.Lock()
	driver.fails = ""
	driver.mu.Unlock()
	n.start()
	n.wait()
	if got := n.m.For(p, &p.Spec.Containers[0]); !slices.Equal(got, []string{"gpu.example.com/gpu=x"}) {
		t.Errorf("after a restart p has %v", got)
	}
	pods := n.m.Pods()
	slices.Sort(pods)
	if !slices.Equal(pods, []types.UID{"uid-p", "uid-q"}) {
		t.Errorf("pods %v", pods)
	}
	n.unprepare(p, "")
	n.unprepare(q, "")
	if got, want := driver.said(), "prepare x, prepare y, unprepare x, unprepare y"; got != want {
		t.Errorf("the driver was asked %q, want %q", got, want)
	}
	if again, err := New(n.m.Settings); err != nil || len(again.Pods()) > 0 {
		t.Errorf("written down are %v, %v", again.Pods(), err)
	}
}

// A driver that only knows the version before is called by that; what is no driver of devices is told so.
func TestWhoRegisters(t *testing.T) {
	n := newNode(t)
	p := pod("p", "x")
	n.claim("x", p)
	future, volumes, old := newPlugin("v9.DRAPlugin"), newPlugin("1.0.0"), newPlugin(drabeta.DRAPluginService)
	volumes.info.Type = registration.CSIPlugin
	n.serve(future, "a.sock")
	n.serve(volumes, "b.sock")
	n.serve(old, "c.sock")
	n.wait()
	n.prepare(p, "")
	if got := old.said(); got != "prepare x" {
		t.Errorf("the driver was asked %q", got)
	}
	for what, of := range map[string]struct {
		p    *plugin
		says string
	}{"of the future": {future, "none of its versions"}, "of volumes": {volumes, `plugins of type "CSIPlugin" have no use here`}, "of before": {old, ""}} {
		deadline := time.Now().Add(time.Minute)
		for {
			of.p.mu.Lock()
			told := slices.Clone(of.p.status)
			of.p.mu.Unlock()
			if len(told) > 0 {
				if told[0].PluginRegistered != (of.says == "") || !strings.Contains(told[0].Error, of.says) {
					t.Errorf("a plugin %s was told %v", what, told[0])
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("a plugin %s was told nothing", what)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// A container gets what it names: a claim, or one request of it.
func TestContainersGetWhatTheyName(t *testing.T) {
	p := pod("p", "x", "y")
	claims := map[types.UID]*Claim{
		"1": {Namespace: "a", Name: "x", Pods: []types.UID{p.UID}, Drivers: []string{"d", "e"}, Prepared: map[string][]Device{
			"d": {{Requests: []string{"r"}, CDI: []string{"r1", "r2"}}, {Requests: []string{"s/best"}, CDI: []string{"s1"}}}, "e": {{CDI: []string{"all", "r1"}}}}},
		"2": {Namespace: "a", Name: "y", Pods: []types.UID{"another"}, Drivers: []string{"d"}, Prepared: map[string][]Device{"d": {{CDI: []string{"theirs"}}}}},
	}
	for _, tc := range []struct {
		names []corev1.ResourceClaim
		want  string
	}{
		{nil, ""},
		{[]corev1.ResourceClaim{{Name: "x"}}, "r1 r2 s1 all"},
		{[]corev1.ResourceClaim{{Name: "x", Request: "r"}}, "r1 r2 all"},
		{[]corev1.ResourceClaim{{Name: "x", Request: "s"}}, "s1 all r1"},
		{[]corev1.ResourceClaim{{Name: "y"}}, ""},
		{[]corev1.ResourceClaim{{Name: "none"}}, ""},
	} {
		c := &corev1.Container{Resources: corev1.ResourceRequirements{Claims: tc.names}}
		if got := strings.Join(idsFor(p, c, claims), " "); got != tc.want {
			t.Errorf("%v: %q, want %q", tc.names, got, tc.want)
		}
	}
}
