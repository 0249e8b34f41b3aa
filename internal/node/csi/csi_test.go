package csi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/client/clienttest"
	"github.com/knarr-io/knarr/internal/node/plugins"
)

const driverName = "disk.example.com"

// fake is a driver that notes what it is asked.
type fake struct {
	spec.UnimplementedNodeServer
	able []spec.NodeServiceCapability_RPC_Type

	mu        sync.Mutex
	calls     []string
	fails     map[string]error // by call
	info      *spec.NodeGetInfoResponse
	published *spec.NodePublishVolumeRequest
}

func (f *fake) asked(call, path string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, call)
	if path != "" && !strings.HasPrefix(path, plugins.Seen+"/") {
		f.calls = append(f.calls, "with a path of the machine: "+path)
	}
	return f.fails[call]
}

func (f *fake) fail(call string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fails[call] = err
}

// said returns the calls since it was last asked.
func (f *fake) said() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := strings.Join(f.calls, " ")
	f.calls = nil
	return out
}

func (f *fake) NodeGetInfo(context.Context, *spec.NodeGetInfoRequest) (*spec.NodeGetInfoResponse, error) {
	return f.info, nil
}

func (f *fake) NodeGetCapabilities(context.Context, *spec.NodeGetCapabilitiesRequest) (*spec.NodeGetCapabilitiesResponse, error) {
	out := &spec.NodeGetCapabilitiesResponse{}
	for _, t := range f.able {
		out.Capabilities = append(out.Capabilities, &spec.NodeServiceCapability{Type: &spec.NodeServiceCapability_Rpc{Rpc: &spec.NodeServiceCapability_RPC{Type: t}}})
	}
	return out, nil
}

func (f *fake) NodeStageVolume(_ context.Context, r *spec.NodeStageVolumeRequest) (*spec.NodeStageVolumeResponse, error) {
	return &spec.NodeStageVolumeResponse{}, f.asked("stage", r.StagingTargetPath)
}

func (f *fake) NodePublishVolume(_ context.Context, r *spec.NodePublishVolumeRequest) (*spec.NodePublishVolumeResponse, error) {
	f.mu.Lock()
	f.published = r
	f.mu.Unlock()
	return &spec.NodePublishVolumeResponse{}, f.asked("publish", r.TargetPath)
}

func (f *fake) NodeUnpublishVolume(_ context.Context, r *spec.NodeUnpublishVolumeRequest) (*spec.NodeUnpublishVolumeResponse, error) {
	return &spec.NodeUnpublishVolumeResponse{}, f.asked("unpublish", r.TargetPath)
}

func (f *fake) NodeUnstageVolume(_ context.Context, r *spec.NodeUnstageVolumeRequest) (*spec.NodeUnstageVolumeResponse, error) {
	return &spec.NodeUnstageVolumeResponse{}, f.asked("unstage", r.StagingTargetPath)
}

func (f *fake) NodeExpandVolume(_ context.Context, r *spec.NodeExpandVolumeRequest) (*spec.NodeExpandVolumeResponse, error) {
	return &spec.NodeExpandVolumeResponse{}, f.asked(fmt.Sprint("expand to ", r.CapacityRange.RequiredBytes), r.VolumePath)
}

// world is a node with a driver that has registered from a pod.
type world struct {
	t *testing.T
	c client.Client
	m *Manager
	f *fake
}

func newWorld(t *testing.T, able ...spec.NodeServiceCapability_RPC_Type) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "csi") // paths of sockets are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w := &world{t: t, c: clienttest.New(t), f: &fake{able: able, fails: map[string]error{}, info: &spec.NodeGetInfoResponse{NodeId: "id-1", MaxVolumesPerNode: 3,
		AccessibleTopology: &spec.Topology{Segments: map[string]string{"disk.example.com/rack": "r1"}}}}}
	clienttest.Create(t, w.c, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	w.m = New(Settings{Client: w.c, Node: "n1", Root: plugins.RootOf(dir), Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { w.m.Close() })
	if err := os.MkdirAll(w.m.Root.Sockets(), 0o750); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(w.m.Root.Sockets(), "csi.sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	spec.RegisterNodeServer(s, w.f)
	go s.Serve(l)
	t.Cleanup(s.Stop)
	w.register()
	return w
}

func (w *world) register() {
	w.t.Helper()
	if err := w.m.Register(w.t.Context(), plugins.Plugin{Name: driverName, Endpoint: plugins.Seen + "/plugins/csi.sock", Socket: "reg", Versions: []string{"1.0.0"}}); err != nil {
		w.t.Fatal(err)
	}
}

// restart is an agent that was killed and comes back.
func (w *world) restart() {
	w.t.Helper()
	w.m.Close()
	w.m = New(w.m.Settings)
	w.register()
}

// options says how the driver is to be used.
func (w *world) options(s storagev1.CSIDriverSpec) {
	w.t.Helper()
	clienttest.Create(w.t, w.c, &storagev1.CSIDriver{ObjectMeta: metav1.ObjectMeta{Name: driverName}, Spec: s})
}

func request(pod string, change ...func(*Request)) *Request {
	r := &Request{Ref: Ref{Driver: driverName, Handle: "handle/1", Name: "pv", Pod: types.UID(pod)},
		Pod: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: pod, UID: types.UID(pod)}, Spec: corev1.PodSpec{ServiceAccountName: "sa"}},
		PV: &corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv"}, Spec: corev1.PersistentVolumeSpec{
			AccessModes:            []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			PersistentVolumeSource: corev1.PersistentVolumeSource{CSI: &corev1.CSIPersistentVolumeSource{Driver: driverName, VolumeHandle: "handle/1", VolumeAttributes: map[string]string{"a": "b"}}}}}}
	for _, f := range change {
		f(r)
	}
	return r
}

// publish expects an error that contains says, or none where that is "", and these calls.
func (w *world) publish(r *Request, says, calls string) Published {
	w.t.Helper()
	out, err := w.m.Publish(w.t.Context(), r)
	w.same(err, says, calls)
	return out
}

func (w *world) unpublish(r *Request, last bool, says, calls string) {
	w.t.Helper()
	w.same(w.m.Unpublish(w.t.Context(), r.Ref, func() (bool, error) { return last, nil }), says, calls)
}

func (w *world) same(err error, says, calls string) {
	w.t.Helper()
	if (err == nil) != (says == "") || err != nil && !strings.Contains(err.Error(), says) {
		w.t.Errorf("error %v, want %q", err, says)
	}
	if got := w.f.said(); got != calls {
		w.t.Errorf("calls %q, want %q", got, calls)
	}
}

// left returns the files below the root but sockets and directories that drivers mount.
func (w *world) left() []string {
	var out []string
	_ = filepath.WalkDir(string(w.m.Root), func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Ext(path) != ".sock" {
			out = append(out, path)
		}
		return nil
	})
	return out
}

func TestStagedOnce(t *testing.T) {
	w := newWorld(t, canStage)
	w.options(storagev1.CSIDriverSpec{AttachRequired: new(false)})
	one, two := request("one"), request("two")
	got := w.publish(one, "", "stage publish")
	if got.Path != filepath.Join(string(w.m.Root), "pods/one/volumes/kubernetes.io~csi/pv/mount") || got.Group || got.Again {
		t.Errorf("%+v", got)
	}
	if p := w.f.published; !strings.HasSuffix(p.StagingTargetPath, "/globalmount") || p.VolumeContext["a"] != "b" || len(p.VolumeContext) != 1 || p.VolumeCapability.AccessMode.Mode != spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER {
		t.Errorf("%+v", p)
	}
	w.publish(two, "", "publish")
	w.unpublish(one, false, "", "unpublish")
	w.unpublish(two, true, "", "unpublish unstage")
	w.unpublish(two, true, "", "") // given back already
	if left := w.left(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// Agent and driver die between any two steps.
func TestAgain(t *testing.T) {
	w := newWorld(t, canStage)
	w.options(storagev1.CSIDriverSpec{AttachRequired: new(false)})
	r := request("one")
	// The driver died while it staged: nobody knows whether it did.
	w.f.fail("stage", status.Error(codes.Unavailable, "the connection broke"))
	w.publish(r, "the connection broke", "stage")
	w.restart()
	w.f.fail("stage", nil)
	w.f.fail("publish", status.Error(codes.DeadlineExceeded, "too slow"))
	w.publish(r, "too slow", "stage publish")
	w.restart()
	w.f.fail("publish", nil)
	w.publish(r, "", "publish")
	w.publish(r, "", "publish")
	w.restart()
	w.f.fail("unpublish", status.Error(codes.Internal, "busy"))
	w.unpublish(r, true, "busy", "unpublish")
	w.f.fail("unpublish", nil)
	w.f.fail("unstage", status.Error(codes.Internal, "busy"))
	w.unpublish(r, true, "busy", "unpublish unstage")
	w.restart()
	w.f.fail("unstage", nil)
	w.unpublish(r, true, "", "unstage")
	// What was refused for good is not taken back; what may have come about is.
	w.f.fail("stage", status.Error(codes.InvalidArgument, "no"))
	w.publish(r, "no", "stage")
	w.unpublish(r, true, "", "")
	w.f.fail("stage", status.Error(codes.Aborted, "another is at it"))
	w.publish(r, "another is at it", "stage")
	w.unpublish(r, true, "", "unstage")
	if left := w.left(); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	// Without its driver, a volume is neither published nor forgotten.
	w.f.fail("stage", nil)
	w.publish(r, "", "stage publish")
	w.m.Forget(t.Context(), "reg")
	w.publish(request("two"), "driver name disk.example.com not found in the list of registered CSI drivers", "")
	w.unpublish(r, true, "not found in the list of registered CSI drivers", "")
	w.register()
	w.unpublish(r, true, "", "unpublish unstage")
}

func TestNothingIsPublishedBeforeItIsAttached(t *testing.T) {
	w := newWorld(t, canStage)
	announced := 0
	w.m.Announce = func(context.Context) error { announced++; return nil }
	name := volume.AttachmentName("handle/1", driverName, "n1")
	made := clienttest.Create(t, w.c, &storagev1.VolumeAttachment{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: storagev1.VolumeAttachmentSpec{Attacher: driverName, NodeName: "n1",
		Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: new("pv")}}})
	set := func(change func(*storagev1.VolumeAttachmentStatus)) {
		t.Helper()
		if _, err := client.Mutate(t.Context(), w.c, api.KeyOf(made), "status", func(a *storagev1.VolumeAttachment) bool { change(&a.Status); return true }); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.m.Publish(ctx, request("one")); !errors.Is(err, context.Canceled) {
		t.Errorf("an attachment that does not come: %v", err)
	}
	w.same(nil, "", "")
	set(func(s *storagev1.VolumeAttachmentStatus) {
		s.AttachError = &storagev1.VolumeError{Message: "no such disk"}
	})
	w.publish(request("one"), "no such disk", "")
	set(func(s *storagev1.VolumeAttachmentStatus) {
		*s = storagev1.VolumeAttachmentStatus{Attached: true, AttachmentMetadata: map[string]string{"device": "sdb"}}
	})
	w.publish(request("one"), "", "stage publish")
	if announced == 0 || w.f.published.PublishContext["device"] != "sdb" {
		t.Errorf("announced %d times, %+v", announced, w.f.published)
	}
}

// What the CSIDriver says is done: what a driver is told, by whom files get their group, and which volumes it has.
func TestOptions(t *testing.T) {
	w := newWorld(t)
	w.m.Token = func(_ context.Context, ns, account string, r *authenticationv1.TokenRequest) (*authenticationv1.TokenRequest, error) {
		return &authenticationv1.TokenRequest{Status: authenticationv1.TokenRequestStatus{Token: ns + "/" + account + "/" + strings.Join(r.Spec.Audiences, ",")}}, nil
	}
	file := storagev1.FileFSGroupPolicy
	w.options(storagev1.CSIDriverSpec{AttachRequired: new(true), PodInfoOnMount: new(true), FSGroupPolicy: &file, RequiresRepublish: new(true),
		TokenRequests: []storagev1.TokenRequest{{Audience: "vault"}}, VolumeLifecycleModes: []storagev1.VolumeLifecycleMode{storagev1.VolumeLifecycleEphemeral}})
	w.publish(request("one"), `volume mode "Persistent" not supported by driver disk.example.com`, "")
	inline := request("one", func(r *Request) {
		r.Inline = true
		r.Pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(7))}
	})
	got := w.publish(inline, "", "publish")
	if !got.Group || !got.Again {
		t.Errorf("%+v", got)
	}
	c := w.f.published.VolumeContext
	for key, want := range map[string]string{"a": "b", "csi.storage.k8s.io/pod.name": "one", "csi.storage.k8s.io/pod.namespace": "ns", "csi.storage.k8s.io/pod.uid": "one",
		"csi.storage.k8s.io/serviceAccount.name": "sa", "csi.storage.k8s.io/ephemeral": "true"} {
		if c[key] != want {
			t.Errorf("%s: %q, want %q", key, c[key], want)
		}
	}
	if tokens := c["csi.storage.k8s.io/serviceAccount.tokens"]; !strings.Contains(tokens, `{"vault":{"token":"ns/sa/vault"`) {
		t.Errorf("tokens %s", tokens)
	}
	// Told again, a refusal does not take away what the pod has.
	w.f.fail("publish", status.Error(codes.InvalidArgument, "no"))
	inline.Again = true
	w.publish(inline, "no", "publish")
	w.unpublish(inline, true, "", "unpublish")
}

func TestDevicesGroupsAndModes(t *testing.T) {
	w := newWorld(t, canStage, canGroup, canManyOnNode, canExpand)
	w.options(storagev1.CSIDriverSpec{AttachRequired: new(false)})
	block := request("one", func(r *Request) {
		r.Block = true
		r.PV.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOncePod}
	})
	if got := w.publish(block, "", "stage publish"); got.Path != filepath.Join(string(w.m.Root), "plugins/kubernetes.io/csi/volumeDevices/publish/pv/one") {
		t.Errorf("%+v", got)
	}
	if p := w.f.published.VolumeCapability; p.GetBlock() == nil || p.AccessMode.Mode != spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER {
		t.Errorf("%+v", p)
	}
	block.PV.Spec.Capacity = corev1.ResourceList{corev1.ResourceStorage: *resource.NewQuantity(5<<20, resource.BinarySI)}
	w.same(w.m.Expand(t.Context(), block), "", "expand to 5242880")
	w.f.fail("expand to 5242880", status.Error(codes.OutOfRange, "too much"))
	if err := w.m.Expand(t.Context(), block); !errors.Is(err, ErrInfeasible) {
		t.Errorf("%v", err)
	}
	w.f.said()
	w.unpublish(block, true, "", "unpublish unstage")
	files := request("two", func(r *Request) {
		r.Handle = "other"
		r.PV.Spec.CSI.FSType = "ext4"
		r.Pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(7))}
	})
	got := w.publish(files, "", "stage publish")
	if m := w.f.published.VolumeCapability.GetMount(); got.Group || m.GetVolumeMountGroup() != "7" || m.GetFsType() != "ext4" {
		t.Errorf("the driver sets the group itself: %+v %+v", got, m)
	}
	for name, tc := range map[string]struct {
		policy storagev1.FSGroupPolicy
		change func(*Request)
		want   bool
	}{
		"none":                   {storagev1.NoneFSGroupPolicy, nil, false},
		"always":                 {storagev1.FileFSGroupPolicy, func(r *Request) { r.PV.Spec.CSI.FSType = "" }, true},
		"with a type":            {storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, nil, true},
		"without a type":         {storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, func(r *Request) { r.PV.Spec.CSI.FSType = "" }, false},
		"on many nodes":          {storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy, func(r *Request) { r.PV.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany} }, false},
		"of one that is read":    {storagev1.FileFSGroupPolicy, func(r *Request) { r.ReadOnly = true }, false},
		"of a pod without group": {storagev1.FileFSGroupPolicy, func(r *Request) { r.Pod.Spec.SecurityContext = nil }, false},
	} {
		r := request("x", func(r *Request) {
			r.PV.Spec.CSI.FSType = "ext4"
			r.Pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: new(int64(7))}
		})
		if tc.change != nil {
			tc.change(r)
		}
		if got := groups(r, &tc.policy); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestBadNames(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*Request){
		"driver": func(r *Request) { r.Driver = "../../etc" }, "volume": func(r *Request) { r.Name = ".." }, "pod": func(r *Request) { r.Ref.Pod = "a/b" },
		"handle": func(r *Request) { r.Handle = "" },
	} {
		if _, err := w.m.Publish(t.Context(), request("one", change)); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := w.m.Unpublish(t.Context(), request("one", change).Ref, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	w.same(nil, "", "")
}

func TestCSINode(t *testing.T) {
	w := newWorld(t)
	drivers := func() string {
		n, err := client.Get[*storagev1.CSINode](t.Context(), w.c, api.Key{Name: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, d := range n.Spec.Drivers {
			limit := int32(0)
			if d.Allocatable != nil {
				limit = *d.Allocatable.Count
			}
			out = append(out, fmt.Sprint(d.Name, " ", d.NodeID, " ", d.TopologyKeys, " ", limit))
		}
		slices.Sort(out)
		return strings.Join(out, ", ")
	}
	node := func() *corev1.Node {
		n, err := client.Get[*corev1.Node](t.Context(), w.c, api.Key{Name: "n1"})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if got, want := drivers(), "disk.example.com id-1 [disk.example.com/rack] 3"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n := node(); n.Annotations[nodeIDs] != `{"disk.example.com":"id-1"}` || n.Labels["disk.example.com/rack"] != "r1" {
		t.Errorf("%+v", n.ObjectMeta)
	}
	if err := w.m.present(t.Context(), info{driver: "other.example.com", id: "x"}); err != nil {
		t.Fatal(err)
	}
	w.f.info = &spec.NodeGetInfoResponse{NodeId: "id-2"} // the API lets no entry change: it is made anew
	w.register()
	if got, want := drivers(), "disk.example.com id-2 [] 0, other.example.com x [] 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	w.m.Forget(t.Context(), "reg")
	if got, want := drivers(), "other.example.com x [] 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if n := node(); n.Annotations[nodeIDs] != `{"other.example.com":"x"}` || n.Labels["disk.example.com/rack"] != "r1" {
		t.Errorf("%+v", n.ObjectMeta)
	}
	for name, i := range map[string]info{
		"another place":  {driver: driverName, id: "id", topology: map[string]string{"disk.example.com/rack": "r2"}},
		"without a name": {driver: driverName},
	} {
		if err := w.m.present(t.Context(), i); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := w.m.Register(t.Context(), plugins.Plugin{Name: driverName, Endpoint: "/none", Versions: []string{"0.3.0"}}); err == nil || !strings.Contains(err.Error(), "1.x is") {
		t.Errorf("an old version: %v", err)
	}
}
