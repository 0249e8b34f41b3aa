package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	resourcev1 "k8s.io/api/resource/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/apis/resource"
	resourcevalidation "k8s.io/kubernetes/pkg/apis/resource/validation"
	"k8s.io/kubernetes/pkg/features"
	"k8s.io/utils/ptr"
)

// ResourceSlices are resource.k8s.io/v1 lists of devices that drivers offer, on a node or on several (KEP-4381).
var ResourceSlices = declare(kind[resourcev1.ResourceSlice, resource.ResourceSlice, resourcev1.ResourceSliceList]{
	Resource: Resource{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("ResourceSlice"),
		Plural:           "resourceslices", Singular: "resourceslice",
		Prefix: "resourceslices", AnswersDeleted: true,
		Indexes: map[string]func(Object) []string{IndexNode: nodeOfSlice},
	},
	prepareCreate: func(s *resource.ResourceSlice) {
		s.Generation = 1
		dropSliceFields(s, nil)
	},
	prepareUpdate: func(s, old *resource.ResourceSlice, _ string) {
		if !apiequality.Semantic.DeepEqual(s.Spec, old.Spec) {
			s.Generation = old.Generation + 1
		}
		dropSliceFields(s, &old.Spec)
	},
	validate: resourcevalidation.ValidateResourceSlice,
	validateUpdate: func(s, old *resource.ResourceSlice, _ string) field.ErrorList {
		return resourcevalidation.ValidateResourceSliceUpdate(s, old)
	},
	warnings: func(s, _ *resource.ResourceSlice) []string {
		if s.Spec.Driver == strings.ToLower(s.Spec.Driver) {
			return nil
		}
		return []string{fmt.Sprintf("spec.driver: driver names should be lowercase; %q contains uppercase characters", s.Spec.Driver)}
	},
	fields: func(s *resourcev1.ResourceSlice) fields.Set {
		return fields.Set{
			resourcev1.ResourceSliceSelectorNodeName: ptr.Deref(s.Spec.NodeName, ""), resourcev1.ResourceSliceSelectorDriver: s.Spec.Driver,
			resource.ResourceSliceSelectorPoolName: s.Spec.Pool.Name,
		}
	},
	options:   map[string]bool{string(features.DRAPartitionableDevicesType): false},
	normalize: resourcevalidation.ResourceNormalizationRules,
})

// nodeOfSlice is IndexNode of ResourceSlices; those of several nodes are not in it.
func nodeOfSlice(obj Object) []string {
	if n := ptr.Deref(obj.(*resourcev1.ResourceSlice).Spec.NodeName, ""); n != "" {
		return []string{n}
	}
	return nil
}

// dropSliceFields drops the fields of features that are off in 1.37, each unless the old spec, if there is one, has it.
func dropSliceFields(s *resource.ResourceSlice, old *resource.ResourceSliceSpec) {
	if old == nil {
		old = &resource.ResourceSliceSpec{}
	}
	had := func(uses func(*resource.Device) bool) bool {
		for i := range old.Devices {
			if uses(&old.Devices[i]) {
				return true
			}
		}
		return false
	}
	if old.PartitionTypeAttribute == nil {
		s.Spec.PartitionTypeAttribute = nil
	}
	if len(old.SkipNodeOperations) == 0 {
		s.Spec.SkipNodeOperations = nil
	}
	devices := make([]resource.Device, len(s.Spec.Devices))
	copy(devices, s.Spec.Devices)
	keepGroups, keepLists, keepAllocatable := had(hasGroups), had(hasLists), had(hasAllocatable)
	for i := range devices {
		d := &devices[i]
		if !keepGroups && hasGroups(d) {
			d.ConsumesCounters = append([]resource.DeviceCounterConsumption(nil), d.ConsumesCounters...)
			for j := range d.ConsumesCounters {
				d.ConsumesCounters[j].CompatibilityGroups = nil
			}
		}
		if !keepLists && hasLists(d) {
			d.Attributes = maps.Clone(d.Attributes)
			for name, a := range d.Attributes {
				a.BoolValues, a.IntValues, a.StringValues, a.VersionValues = nil, nil, nil, nil
				d.Attributes[name] = a
			}
		}
		if !keepAllocatable {
			d.NodeAllocatableResources = nil
		}
	}
	if s.Spec.Devices != nil {
		s.Spec.Devices = devices
	}
}

// hasGroups, hasLists and hasAllocatable report whether a device has the fields of DRADeviceCompatibilityGroups, DRAListTypeAttributes and
// DRANodeAllocatableResources.
func hasGroups(d *resource.Device) bool {
	return slices.ContainsFunc(d.ConsumesCounters, func(c resource.DeviceCounterConsumption) bool { return len(c.CompatibilityGroups) > 0 })
}

func hasLists(d *resource.Device) bool {
	for _, a := range d.Attributes {
		if a.BoolValues != nil || a.IntValues != nil || a.StringValues != nil || a.VersionValues != nil {
			return true
		}
	}
	return false
}

func hasAllocatable(d *resource.Device) bool { return len(d.NodeAllocatableResources) > 0 }
