package api

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const deviceClaim = `
apiVersion: resource.k8s.io/v1
kind: ResourceClaim
metadata: {name: c, namespace: default}
spec: {devices: {requests: [{name: gpu, exactly: {deviceClassName: gpu, derivedAttributes: [{name: a/b, expression: x}]}}]}}
status: {reservedFor: [{resource: pods, name: p, uid: u}]}
`

const deviceSlice = `
apiVersion: resource.k8s.io/v1
kind: ResourceSlice
metadata: {name: s}
spec:
  driver: Gpu.example.com
  nodeName: n1
  pool: {name: n1, generation: 1, resourceSliceCount: 1}
  devices: [{name: a, attributes: {model: {string: x}, list: {strings: [a, b]}}}]
`

const deviceClass = `
apiVersion: resource.k8s.io/v1
kind: DeviceClass
metadata: {name: gpu}
spec: {selectors: [{cel: {expression: "device.driver == 'gpu.example.com'"}}]}
`

// What is allocated and to whom is said through status alone; the spec never changes.
func TestResourceClaims(t *testing.T) {
	c := create[*resourcev1.ResourceClaim](t, deviceClaim)
	if len(c.Status.ReservedFor) > 0 {
		t.Error("a claim was created with a reservation")
	}
	e := c.Spec.Devices.Requests[0].Exactly
	if e.AllocationMode != resourcev1.DeviceAllocationModeExactCount || e.Count != 1 {
		t.Errorf("allocation mode %q, count %d", e.AllocationMode, e.Count)
	}
	if e.DerivedAttributes != nil {
		t.Error("a field of a feature that is off was kept")
	}
	c.ResourceVersion = "1"
	if errs := ResourceClaims.Validate(c); len(errs) > 0 {
		t.Fatal(errs)
	}
	other := update(t, c, "", func(c *resourcev1.ResourceClaim) { c.Spec.Devices.Requests[0].Name = "other" })
	if got := strings.Join(texts(ResourceClaims.ValidateUpdate(other, c, "")), "\n"); !strings.Contains(got, "spec: Invalid value") || !strings.Contains(got, "field is immutable") {
		t.Errorf("the spec changed: %s", got)
	}
	result := resourcev1.DeviceRequestAllocationResult{Request: "gpu", Driver: "gpu.example.com", Pool: "n1", Device: "a"}
	allocated := update(t, c, "status", func(c *resourcev1.ResourceClaim) {
		c.Labels = map[string]string{"a": "b"}
		skipped := result
		skipped.SkipNodeOperations = []resourcev1.SkipNodeOperation{"Prepare"}
		c.Status.Allocation = &resourcev1.AllocationResult{Devices: resourcev1.DeviceAllocationResult{Results: []resourcev1.DeviceRequestAllocationResult{skipped}}}
		c.Status.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: result.Driver, Pool: result.Pool, Device: result.Device}}
	})
	if diff := cmp.Diff(result, allocated.Status.Allocation.Devices.Results[0]); diff != "" || len(allocated.Labels) > 0 {
		t.Errorf("labels %v, allocated: %s", allocated.Labels, diff)
	}
	if errs := ResourceClaims.ValidateUpdate(allocated, c, "status"); len(errs) > 0 {
		t.Error(errs)
	}
	if got := update(t, allocated, "", func(c *resourcev1.ResourceClaim) { c.Status = resourcev1.ResourceClaimStatus{} }); got.Status.Allocation == nil {
		t.Error("a write of the claim took its devices")
	}
	if got := update(t, allocated, "status", func(c *resourcev1.ResourceClaim) { c.Status.Allocation = nil }); len(got.Status.Devices) > 0 {
		t.Error("what was said of a device outlives its allocation")
	}
}

func TestResourceClaimTemplates(t *testing.T) {
	manifest := strings.Replace(strings.Replace(deviceClaim, "kind: ResourceClaim", "kind: ResourceClaimTemplate", 1), "spec: {", "spec: {spec: {", 1)
	manifest = strings.Split(manifest, "status:")[0]
	tmpl := create[*resourcev1.ResourceClaimTemplate](t, strings.TrimRight(manifest, "\n")+"}\n")
	if errs := ResourceClaimTemplates.Validate(tmpl); len(errs) > 0 {
		t.Fatal(errs)
	}
	if tmpl.Spec.Spec.Devices.Requests[0].Exactly.DerivedAttributes != nil {
		t.Error("a field of a feature that is off was kept")
	}
	tmpl.ResourceVersion = "1"
	other := update(t, tmpl, "", func(c *resourcev1.ResourceClaimTemplate) { c.Spec.Spec.Devices.Requests[0].Name = "other" })
	if got := strings.Join(texts(ResourceClaimTemplates.ValidateUpdate(other, tmpl, "")), "\n"); !strings.Contains(got, "field is immutable") {
		t.Errorf("the spec changed: %s", got)
	}
}

func TestResourceSlices(t *testing.T) {
	s := create[*resourcev1.ResourceSlice](t, deviceSlice)
	want := map[resourcev1.QualifiedName]resourcev1.DeviceAttribute{"model": {StringValue: new("x")}, "list": {}}
	if diff := cmp.Diff(want, s.Spec.Devices[0].Attributes); diff != "" || s.Generation != 1 {
		t.Errorf("generation %d, attributes: %s", s.Generation, diff)
	}
	set := ResourceSlices.Fields(s)
	if set["spec.nodeName"] != "n1" || set["spec.driver"] != "Gpu.example.com" || set["spec.pool.name"] != "n1" {
		t.Errorf("fields %v", set)
	}
	if got := ResourceSlices.Indexes[IndexNode](s); len(got) != 1 || got[0] != "n1" {
		t.Errorf("indexed by %v", got)
	}
	if got := ResourceSlices.Warnings(s, nil); len(got) != 1 || !strings.Contains(got[0], "should be lowercase") {
		t.Errorf("warnings %q", got)
	}
	s.ResourceVersion = "1"
	moved := update(t, s, "", func(s *resourcev1.ResourceSlice) { s.Spec.NodeName = new("n2") })
	if got := strings.Join(texts(ResourceSlices.ValidateUpdate(moved, s, "")), "\n"); moved.Generation != 2 || !strings.Contains(got, "spec.nodeName: Invalid value") {
		t.Errorf("generation %d, a slice moved: %s", moved.Generation, got)
	}
}

func TestDeviceClassesAreChecked(t *testing.T) {
	c := create[*resourcev1.DeviceClass](t, deviceClass)
	if errs := DeviceClasses.Validate(c); len(errs) > 0 || c.Generation != 1 {
		t.Fatalf("generation %d: %v", c.Generation, errs)
	}
	bad := read(t, strings.Replace(deviceClass, "device.driver ==", "device.frog ==", 1))
	if got := strings.Join(texts(DeviceClasses.Validate(bad)), "\n"); !strings.Contains(got, "spec.selectors[0].cel.expression: Invalid value") {
		t.Errorf("got %s", got)
	}
	c.ResourceVersion = "1"
	if got := update(t, c, "", func(c *resourcev1.DeviceClass) { c.Spec.Selectors = nil }); got.Generation != 2 {
		t.Errorf("generation %d after a change", got.Generation)
	}
}

// A taint that acts otherwise than before is a new one.
func TestTaintRules(t *testing.T) {
	r := create[*resourcev1.DeviceTaintRule](t, `
apiVersion: resource.k8s.io/v1
kind: DeviceTaintRule
metadata: {name: r}
spec: {deviceSelector: {driver: gpu.example.com}, taint: {key: broken, effect: NoSchedule}}
status: {conditions: [{type: x}]}
`)
	if r.Spec.Taint.TimeAdded == nil || len(r.Status.Conditions) > 0 || r.Generation != 1 {
		t.Errorf("created: %+v", r)
	}
	long := metav1.Unix(1, 0)
	r.Spec.Taint.TimeAdded = &long
	got := update(t, r, "", func(r *resourcev1.DeviceTaintRule) { r.Spec.Taint.Effect = resourcev1.DeviceTaintEffectNoExecute })
	if got.Generation != 2 || got.Spec.Taint.TimeAdded.Equal(&long) {
		t.Errorf("a new effect: generation %d, since %v", got.Generation, got.Spec.Taint.TimeAdded)
	}
	status := update(t, r, "status", func(r *resourcev1.DeviceTaintRule) {
		r.Spec.Taint.Effect = resourcev1.DeviceTaintEffectNoExecute
		r.Status.Conditions = []metav1.Condition{{Type: "EvictionInProgress"}}
	})
	if status.Spec.Taint.Effect != resourcev1.DeviceTaintEffectNoSchedule || len(status.Status.Conditions) != 1 {
		t.Errorf("a write of status left %+v", status)
	}
}
