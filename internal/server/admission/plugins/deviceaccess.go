package plugins

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
	"github.com/knarr-io/knarr/internal/server/request"
)

// DeviceAccess lets claims ask for devices that others use only in namespaces which administrators have labelled for that (KEP-5018), and
// lets only those allocate and reserve who hold that permission, and only a driver's own say what became of its devices (KEP-4817).
// kube-apiserver has these rules in its ResourceClaims' validation.
type DeviceAccess struct {
	Reader     admission.Reader
	Authorizer authz.Authorizer
}

// Name implements admission.Plugin.
func (DeviceAccess) Name() string { return "DeviceAccess" }

// Admit implements admission.Plugin.
func (DeviceAccess) Admit(context.Context, *admission.Attributes) error { return nil }

// Validate implements admission.Plugin.
func (p DeviceAccess) Validate(ctx context.Context, a *admission.Attributes) error {
	var errs field.ErrorList
	switch o := a.Object.(type) {
	case *resourcev1.ResourceClaimTemplate:
		if a.Operation == admission.Create {
			errs = p.admin(a, requestedAccess(o.Spec.Spec.Devices.Requests))
		}
	case *resourcev1.ResourceClaim:
		switch {
		case a.Operation == admission.Create:
			errs = p.admin(a, requestedAccess(o.Spec.Devices.Requests))
		case a.Subresource == "status":
			old := a.Old.(*resourcev1.ResourceClaim)
			if allocatedAccess(&old.Status) == nil {
				errs = p.admin(a, allocatedAccess(&o.Status))
			}
			if a.User != nil && !slices.Contains(a.User.GetGroups(), user.SystemPrivilegedGroup) {
				errs = append(errs, p.binding(ctx, a, &o.Status, &old.Status)...)
				errs = append(errs, p.devices(ctx, a, &o.Status, &old.Status)...)
			}
		}
	}
	if len(errs) > 0 {
		return apierrors.NewInvalid(a.Resource.GroupKind(), a.Key.Name, errs)
	}
	return nil
}

// requestedAccess returns where a request for administrators' access stands, or nil.
func requestedAccess(requests []resourcev1.DeviceRequest) *field.Path {
	for i := range requests {
		if e := requests[i].Exactly; e != nil && ptr.Deref(e.AdminAccess, false) {
			return field.NewPath("spec", "devices", "requests").Index(i).Child("adminAccess")
		}
	}
	return nil
}

// allocatedAccess returns where administrators' access is allocated, or nil.
func allocatedAccess(status *resourcev1.ResourceClaimStatus) *field.Path {
	if status.Allocation == nil {
		return nil
	}
	for i := range status.Allocation.Devices.Results {
		if ptr.Deref(status.Allocation.Devices.Results[i].AdminAccess, false) {
			return field.NewPath("status", "allocation", "devices", "results").Index(i).Child("adminAccess")
		}
	}
	return nil
}

func (p DeviceAccess) admin(a *admission.Attributes, at *field.Path) field.ErrorList {
	if at == nil {
		return nil
	}
	obj, ok := p.Reader.Get(api.Namespaces, api.Key{Name: a.Key.Namespace})
	if ok && obj.(*corev1.Namespace).Labels[resourcev1.DRAAdminNamespaceLabelKey] == "true" {
		return nil
	}
	return field.ErrorList{field.Forbidden(at, fmt.Sprintf("admin access to devices requires the `%s: true` label on the containing namespace", resourcev1.DRAAdminNamespaceLabelKey))}
}

func (p DeviceAccess) binding(ctx context.Context, a *admission.Attributes, status, old *resourcev1.ResourceClaimStatus) field.ErrorList {
	if equality.Semantic.DeepEqual(status.Allocation, old.Allocation) && equality.Semantic.DeepEqual(status.ReservedFor, old.ReservedFor) {
		return nil
	}
	asked := &authz.Attributes{User: a.User, IsResource: true, Verb: verbOf(ctx), Group: a.Resource.Group, Version: a.Resource.Version,
		Resource: a.Resource.Plural, Subresource: resourcev1.SubresourceBinding}
	if why := p.refuses(ctx, asked); why != nil {
		return field.ErrorList{field.Forbidden(field.NewPath("status", "allocation"),
			fmt.Sprintf(`changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="%s" permission: %s`, asked.Verb, why))}
	}
	return nil
}

// devices asks for each driver of whose devices the status says something else than before.
func (p DeviceAccess) devices(ctx context.Context, a *admission.Attributes, status, old *resourcev1.ResourceClaimStatus) (errs field.ErrorList) {
	if status.Allocation == nil { // what was said goes with the allocation
		return nil
	}
	verb := verbOf(ctx)
	verbs := []string{resourcev1.VerbPrefixArbitraryNode + verb}
	if node := allocatedNode(status.Allocation); node != "" && onNode(a.User, node) {
		verbs = []string{resourcev1.VerbPrefixAssociatedNode + verb, resourcev1.VerbPrefixArbitraryNode + verb}
	}
	for _, driver := range changedDrivers(status.Devices, old.Devices) {
		var why error
		for _, v := range verbs {
			refused := p.refuses(ctx, &authz.Attributes{User: a.User, IsResource: true, Verb: v, Group: a.Resource.Group, Version: a.Resource.Version,
				Resource: a.Resource.Plural, Subresource: resourcev1.SubresourceDriver, Namespace: a.Key.Namespace, Name: driver})
			if refused == nil {
				why = nil
				break
			}
			if why == nil {
				why = refused
			}
		}
		if why != nil {
			errs = append(errs, field.Forbidden(field.NewPath("status", "devices"),
				fmt.Sprintf(`changing status.devices requires resource="resourceclaims/driver", verb="%s" permission: %s`, verbs, why)))
		}
	}
	return errs
}

// changedDrivers returns the drivers of the devices that differ, in order.
func changedDrivers(devices, old []resourcev1.AllocatedDeviceStatus) []string {
	type id struct{ driver, pool, device, share string }
	of := func(d *resourcev1.AllocatedDeviceStatus) id {
		return id{d.Driver, d.Pool, d.Device, ptr.Deref(d.ShareID, "")}
	}
	before, changed := map[id]resourcev1.AllocatedDeviceStatus{}, map[string]bool{}
	for i := range old {
		before[of(&old[i])] = old[i]
	}
	for i := range devices {
		was, known := before[of(&devices[i])]
		delete(before, of(&devices[i]))
		if !known || !equality.Semantic.DeepEqual(was, devices[i]) {
			changed[devices[i].Driver] = true
		}
	}
	for gone := range before {
		changed[gone.driver] = true
	}
	return slices.Sorted(maps.Keys(changed))
}

// allocatedNode returns the one node for which devices are allocated, or "".
func allocatedNode(allocation *resourcev1.AllocationResult) string {
	if allocation.NodeSelector == nil || len(allocation.NodeSelector.NodeSelectorTerms) != 1 {
		return ""
	}
	term := &allocation.NodeSelector.NodeSelectorTerms[0]
	if len(term.MatchExpressions) != 0 || len(term.MatchFields) != 1 {
		return ""
	}
	f := &term.MatchFields[0]
	if f.Key != "metadata.name" || f.Operator != corev1.NodeSelectorOpIn || len(f.Values) != 1 {
		return ""
	}
	return f.Values[0]
}

// onNode reports whether a user is a service account whose token was made for a pod on the node.
func onNode(who user.Info, node string) bool {
	if _, _, err := serviceaccount.SplitUsername(who.GetName()); err != nil {
		return false
	}
	names := who.GetExtra()[serviceaccount.NodeNameKey]
	return len(names) == 1 && names[0] == node
}

// verbOf returns the verb of the request, update where there is none: a write from within the server.
func verbOf(ctx context.Context) string {
	if v := request.From(ctx).Verb; v != "" {
		return v
	}
	return "update"
}

// refuses returns why a is not allowed, or nil.
func (p DeviceAccess) refuses(ctx context.Context, a *authz.Attributes) error {
	decision, why, err := p.Authorizer.Authorize(ctx, a)
	if decision == authz.Allow {
		return nil
	}
	if err != nil {
		why = err.Error()
	}
	return authz.Forbidden(a, why)
}
