package plugins

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// allowing allows one thing: "update resourceclaims/driver gpu.example.com".
type allowing string

func (w allowing) Authorize(_ context.Context, a *authz.Attributes) (authz.Decision, string, error) {
	if strings.TrimSpace(a.Verb+" "+a.Resource+"/"+a.Subresource+" "+a.Name) == string(w) {
		return authz.Allow, "", nil
	}
	return authz.NoOpinion, "", nil
}

// Devices that others use are shared only where an administrator has labelled the namespace for it.
func TestDevicesOfOthersAreForAdministrators(t *testing.T) {
	request := []resourcev1.DeviceRequest{{Name: "a"}, {Name: "b", Exactly: &resourcev1.ExactDeviceRequest{AdminAccess: new(true)}}}
	claim := &resourcev1.ResourceClaim{ObjectMeta: meta("shop", "c"), Spec: resourcev1.ResourceClaimSpec{Devices: resourcev1.DeviceClaim{Requests: request}}}
	template := &resourcev1.ResourceClaimTemplate{ObjectMeta: meta("shop", "c"), Spec: resourcev1.ResourceClaimTemplateSpec{Spec: claim.Spec}}
	plain, labelled := &corev1.Namespace{ObjectMeta: meta("", "shop")}, &corev1.Namespace{ObjectMeta: meta("", "shop")}
	labelled.Labels = map[string]string{resourcev1.DRAAdminNamespaceLabelKey: "true"}
	const refused = "spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the `resource.kubernetes.io/admin-access: true` label on the containing namespace"
	for _, obj := range []api.Object{claim, template} {
		err := DeviceAccess{Reader: objects{plain}}.Validate(t.Context(), create(obj))
		if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), refused) {
			t.Errorf("%T: %v", obj, err)
		}
		if err := (DeviceAccess{Reader: objects{labelled}}).Validate(t.Context(), create(obj)); err != nil {
			t.Errorf("%T in a labelled namespace: %v", obj, err)
		}
	}
}

// Allocating needs one permission, speaking for a driver's devices another: on the own node, or on any.
func TestWhoSaysWhatOfAClaim(t *testing.T) {
	free := resourcev1.ResourceClaimStatus{}
	onN1 := &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchFields: []corev1.NodeSelectorRequirement{
		{Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{"n1"}}}}}}
	allocated := resourcev1.ResourceClaimStatus{Allocation: &resourcev1.AllocationResult{NodeSelector: onN1}}
	told := allocated
	told.Devices = []resourcev1.AllocatedDeviceStatus{{Driver: "gpu.example.com", Pool: "p", Device: "d"}}
	elsewhere := told
	elsewhere.Devices = []resourcev1.AllocatedDeviceStatus{told.Devices[0], {Driver: "fpga.example.com", Pool: "p", Device: "d"}}
	on := func(node string) user.Info {
		return &user.DefaultInfo{Name: "system:serviceaccount:gpu:driver", Extra: map[string][]string{serviceaccount.NodeNameKey: {node}}}
	}
	const binding, anywhere, here = "update resourceclaims/binding", "arbitrary-node:update resourceclaims/driver gpu.example.com", "associated-node:update resourceclaims/driver gpu.example.com"
	for _, tc := range []struct {
		what     string
		who      user.Info
		may      allowing
		old, now resourcev1.ResourceClaimStatus
		refused  string
	}{
		{"allocates", on("n1"), binding, free, allocated, ""},
		{"allocates without permission", on("n1"), anywhere, free, allocated, `status.allocation: Forbidden: changing status.allocation or status.reservedFor requires resource="resourceclaims/binding", verb="update" permission`},
		{"an administrator", &user.DefaultInfo{Name: "root", Groups: []string{user.SystemPrivilegedGroup}}, "", free, told, ""},
		{"a driver on the node", on("n1"), here, allocated, told, ""},
		{"a driver on another node", on("n2"), here, allocated, told, `status.devices: Forbidden: changing status.devices requires resource="resourceclaims/driver", verb="[arbitrary-node:update]" permission`},
		{"a driver everywhere", on("n2"), anywhere, allocated, told, ""},
		{"nothing new", on("n2"), "", told, told, ""},
		{"of another driver", on("n2"), anywhere, told, elsewhere, "status.devices: Forbidden"},
		{"what was said is taken back", on("n2"), anywhere, elsewhere, told, "status.devices: Forbidden"},
		{"the allocation ends", on("n2"), binding, elsewhere, free, ""},
	} {
		a := &admission.Attributes{Operation: admission.Update, Resource: api.ResourceClaims, Subresource: "status", Key: api.Key{Namespace: "shop", Name: "c"}, User: tc.who,
			Object: &resourcev1.ResourceClaim{Status: tc.now}, Old: &resourcev1.ResourceClaim{Status: tc.old}}
		err := DeviceAccess{Reader: objects{}, Authorizer: tc.may}.Validate(t.Context(), a)
		if tc.refused == "" && err != nil || tc.refused != "" && (!apierrors.IsInvalid(err) || !strings.Contains(err.Error(), tc.refused)) {
			t.Errorf("%s: %v, want %q", tc.what, err, tc.refused)
		}
	}
}

// A node offers its own devices and no other's.
func TestNodesOfferTheirOwnDevices(t *testing.T) {
	node := &user.DefaultInfo{Name: "system:node:n1", Groups: []string{"system:nodes"}}
	for _, tc := range []struct {
		node *string
		want string
	}{{new("n1"), ""}, {new("n2"), "ResourceSlice with the same NodeName as the requesting node"}, {nil, "ResourceSlice with the same NodeName as the requesting node"}} {
		s := &resourcev1.ResourceSlice{ObjectMeta: meta("", "s"), Spec: resourcev1.ResourceSliceSpec{NodeName: tc.node}}
		made := create(s)
		made.User = node
		wantError(t, run(NodeRestriction{Reader: objects{}}, made), tc.want)
		gone := &admission.Attributes{Operation: admission.Delete, Resource: api.ResourceSlices, Key: api.Key{Name: "s"}, Old: s, User: node}
		wantError(t, run(NodeRestriction{Reader: objects{}}, gone), tc.want)
	}
}
