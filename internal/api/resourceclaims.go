package api

import (
	"slices"

	resourcev1 "k8s.io/api/resource/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/kubernetes/pkg/api/resourceclaimspec"
	"k8s.io/kubernetes/pkg/apis/resource"
	resourcevalidation "k8s.io/kubernetes/pkg/apis/resource/validation"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
)

// ResourceClaims are resource.k8s.io/v1 claims of devices (KEP-4381). The spec never changes; status says which devices they have, and
// who uses them.
var ResourceClaims = declare(kind[resourcev1.ResourceClaim, resource.ResourceClaim, resourcev1.ResourceClaimList]{
	Resource: Resource{
		GroupVersionKind: resourcev1.SchemeGroupVersion.WithKind("ResourceClaim"),
		Plural:           "resourceclaims", Singular: "resourceclaim",
		Namespaced: true, Prefix: "resourceclaims", Status: true, AnswersDeleted: true,
		ResetFields: map[string]fieldpath.Filter{"status": without("metadata", "spec")},
	},
	prepareCreate: func(c *resource.ResourceClaim) {
		c.Status = resource.ResourceClaimStatus{}
		c.Spec = droppedClaimFields(&c.Spec, nil)
	},
	prepareUpdate: func(c, old *resource.ResourceClaim, sub string) {
		if sub != "status" {
			c.Status = old.Status
			c.Spec = droppedClaimFields(&c.Spec, &old.Spec)
			return
		}
		c.Spec = old.Spec
		metav1.ResetObjectMetaForStatus(&c.ObjectMeta, &old.ObjectMeta)
		dropSkippedOperations(&c.Status, &old.Status)
		dropReleased(&c.Status, &old.Status)
	},
	validate: resourcevalidation.ValidateResourceClaim,
	validateUpdate: func(c, old *resource.ResourceClaim, sub string) field.ErrorList {
		if sub == "status" {
			return resourcevalidation.ValidateResourceClaimStatusUpdate(c, old)
		}
		return resourcevalidation.ValidateResourceClaimUpdate(c, old)
	},
	normalize: resourcevalidation.ResourceNormalizationRules,
})

// droppedClaimFields returns a claim's spec without the fields of features that are off, unless the old one, if there is one, has them. What
// is behind spec's pointers may be shared, so that the result is a copy.
func droppedClaimFields(spec, old *resource.ResourceClaimSpec) resource.ResourceClaimSpec {
	out := spec.DeepCopy()
	resourceclaimspec.DropDisabledFields(out, old)
	return *out
}

// dropSkippedOperations drops skipNodeOperations of allocated devices, a feature that is off (KEP-5964), unless they are there already.
func dropSkippedOperations(status, old *resource.ResourceClaimStatus) {
	skips := func(s *resource.ResourceClaimStatus) bool {
		return s.Allocation != nil && slices.ContainsFunc(s.Allocation.Devices.Results, func(r resource.DeviceRequestAllocationResult) bool {
			return len(r.SkipNodeOperations) > 0
		})
	}
	if !skips(status) || skips(old) {
		return
	}
	status.Allocation = status.Allocation.DeepCopy()
	for i := range status.Allocation.Devices.Results {
		status.Allocation.Devices.Results[i].SkipNodeOperations = nil
	}
}

// dropReleased drops what drivers said of devices that are no longer allocated (KEP-4817).
func dropReleased(status, old *resource.ResourceClaimStatus) {
	type device struct{ driver, pool, name, share string }
	allocated := func(s *resource.ResourceClaimStatus) map[device]bool {
		out := map[device]bool{}
		if s.Allocation != nil {
			for _, r := range s.Allocation.Devices.Results {
				out[device{r.Driver, r.Pool, r.Device, string(ptr.Deref(r.ShareID, ""))}] = true
			}
		}
		return out
	}
	before, now := allocated(old), allocated(status)
	var kept []resource.AllocatedDeviceStatus
	for _, d := range status.Devices {
		if id := (device{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}); !before[id] || now[id] {
			kept = append(kept, d)
		}
	}
	status.Devices = kept
}
