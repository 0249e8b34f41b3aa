package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	dra "k8s.io/kubelet/pkg/apis/dra/v1"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// gpuDriver is a driver of devices in the process of the tests: a device is a variable of the container's environment, by CDI.
type gpuDriver struct {
	registration.UnimplementedRegistrationServer
	dra.UnimplementedDRAPluginServer
	name, dir, spec string // its sockets' directory, and the file with its CDI specification

	mu       sync.Mutex
	prepared map[string]bool // by the claims' names
}

func (d *gpuDriver) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.DRAPlugin, Name: d.name, Endpoint: filepath.Join(d.dir, "plugins", d.name+".sock"), SupportedVersions: []string{dra.DRAPluginService}}, nil
}

func (d *gpuDriver) NotifyRegistrationStatus(context.Context, *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	return &registration.RegistrationStatusResponse{}, nil
}

func (d *gpuDriver) NodePrepareResources(_ context.Context, r *dra.NodePrepareResourcesRequest) (*dra.NodePrepareResourcesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &dra.NodePrepareResourcesResponse{Claims: map[string]*dra.NodePrepareResourceResponse{}}
	for _, c := range r.Claims {
		d.prepared[c.Name] = true
		out.Claims[c.Uid] = &dra.NodePrepareResourceResponse{Devices: []*dra.Device{{RequestNames: []string{"r"}, PoolName: "p", DeviceName: "d", CdiDeviceIds: []string{d.name + "/gpu=d"}}}}
	}
	return out, nil
}

func (d *gpuDriver) NodeUnprepareResources(_ context.Context, r *dra.NodeUnprepareResourcesRequest) (*dra.NodeUnprepareResourcesResponse, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := &dra.NodeUnprepareResourcesResponse{Claims: map[string]*dra.NodeUnprepareResourceResponse{}}
	for _, c := range r.Claims {
		delete(d.prepared, c.Name)
		out.Claims[c.Uid] = &dra.NodeUnprepareResourceResponse{}
	}
	return out, nil
}

// serve puts the driver's sockets and its specification there until the test ends.
func (d *gpuDriver) serve(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(d.spec), 0o755); err != nil {
		t.Fatal(err)
	}
	spec := fmt.Sprintf(`{"cdiVersion": "0.6.0", "kind": "%s/gpu", "devices": [{"name": "d", "containerEdits": {"env": ["GPU=d"]}}]}`, d.name)
	if err := os.WriteFile(d.spec, []byte(spec), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(d.spec) })
	for _, of := range []string{"plugins", "plugins_registry"} {
		l, err := net.Listen("unix", filepath.Join(d.dir, of, d.name+".sock"))
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer()
		registration.RegisterRegistrationServer(s, d)
		dra.RegisterDRAPluginServer(s, d)
		go s.Serve(l)
		t.Cleanup(s.Stop)
	}
}

func (d *gpuDriver) holds() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var names []string
	for name := range d.prepared {
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// A pod gets the device of its claim, waits for its driver before, and the next one waits until the device is given back.
func TestDevices(t *testing.T) {
	t.Parallel()
	ns := namespace(t)
	driver := &gpuDriver{name: "gpu.example.com", dir: filepath.Join(cluster.dataDir, "kubelet"), spec: "/var/run/cdi/knarr-e2e-gpu.json", prepared: map[string]bool{}}
	node := strings.TrimSpace(kubectl(t, "get", "node", "-o", "jsonpath={.items[0].metadata.name}"))
	const claimed = `
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  resourceClaims: [{name: gpu, resourceClaimTemplateName: gpu}]
  containers:
  - {name: c, image: "busybox:1", command: [sh, -c, "env; trap exit TERM; while :; do sleep 0.2; done"], resources: {claims: [{name: gpu}]}}
  - {name: other, image: "busybox:1", command: [sh, -c, "env; trap exit TERM; while :; do sleep 0.2; done"]}
`
	apply(t, ns, fmt.Sprintf(`
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: e2e-gpu}
spec: {selectors: [{cel: {expression: "device.driver == 'gpu.example.com'"}}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: e2e-gpu}
spec: {driver: gpu.example.com, nodeName: %s, pool: {name: p, generation: 1, resourceSliceCount: 1}, devices: [{name: d}]}
---
apiVersion: resource.k8s.io/v1
kind: ResourceClaimTemplate
metadata: {name: gpu}
spec: {spec: {devices: {requests: [{name: r, exactly: {deviceClassName: e2e-gpu}}]}}}
---
`, node)+manifest("first", claimed))
	t.Cleanup(func() { run("", "delete", "resourceslice,deviceclass", "e2e-gpu") })
	eventually(t, time.Minute, "the pod says that its driver is missing", func() error {
		if out := kubectl(t, "-n", ns, "events"); !strings.Contains(out, "DRA driver gpu.example.com is not registered on this node") {
			return fmt.Errorf("events: %s", out)
		}
		return nil
	})
	driver.serve(t)
	awaitPod(t, ns, "first", time.Minute, "ready", ready)
	if out := kubectl(t, "-n", ns, "logs", "first", "-c", "c"); !strings.Contains(out, "GPU=d\n") {
		t.Errorf("the container has no device: %s", out)
	}
	if out := kubectl(t, "-n", ns, "logs", "first", "-c", "other"); strings.Contains(out, "GPU=") {
		t.Errorf("the container that asks for none has a device: %s", out)
	}
	apply(t, ns, manifest("second", claimed))
	awaitPod(t, ns, "second", 30*time.Second, "waiting for a device", func(p *corev1.Pod) bool {
		for _, c := range p.Status.Conditions {
			if c.Type == corev1.PodScheduled {
				return strings.Contains(c.Message, "cannot allocate all claims")
			}
		}
		return false
	})
	held := driver.holds()
	kubectl(t, "-n", ns, "delete", "pod", "first")
	awaitPod(t, ns, "second", time.Minute, "ready once the device is free", ready)
	if now := driver.holds(); now == held || strings.Contains(now, " ") {
		t.Errorf("prepared were %q, are %q", held, now)
	}
	kubectl(t, "-n", ns, "delete", "pod", "second")
	eventually(t, 30*time.Second, "everything is given back", func() error {
		var claims resourcev1.ResourceClaimList
		get(t, &claims, "-n", ns, "get", "resourceclaims")
		if left := driver.holds(); left != "" || len(claims.Items) > 0 {
			return fmt.Errorf("prepared: %q, claims: %d", left, len(claims.Items))
		}
		return nil
	})
}
