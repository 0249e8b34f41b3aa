package plugins

import (
	"context"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apiserver/pkg/authentication/user"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/server/admission"
	"github.com/knarr-io/knarr/internal/server/authz"
)

// NodeRestriction keeps a node's agent to its own Node, Lease and pods, and from labels and taints that would draw other
// workloads to it
// (https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction). The Node authorizer looks at
// names, this at contents.
type NodeRestriction struct {
	Reader admission.Reader
	// Authorizer decides about audiences of tokens that no pod asks for; without one there are none.
	Authorizer authz.Authorizer
}

// Name implements admission.Plugin.
func (NodeRestriction) Name() string { return "NodeRestriction" }

// Admit implements admission.Plugin.
func (p NodeRestriction) Admit(ctx context.Context, a *admission.Attributes) error {
	node, ok := authz.NodeName(a.User)
	if !ok {
		if nameless(a.User) {
			return forbidden(a, "could not determine node from user %q", a.User.GetName())
		}
		return nil
	}
	switch a.Resource {
	case api.Pods:
		return p.pod(a, node)
	case api.Nodes:
		return restrictNode(a, node)
	case api.ServiceAccounts:
		return p.token(ctx, a, node)
	case api.Leases:
		if a.Key.Namespace != corev1.NamespaceNodeLease {
			return forbidden(a, "can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		}
		if a.Key.Name != node {
			return forbidden(a, "can only access node lease with the same name as the requesting node")
		}
	case api.PersistentVolumeClaims:
		return restrictClaim(a, node)
	case api.PersistentVolumes:
		return restrictVolume(a, node)
	case api.CSINodes:
		if a.Key.Name != node {
			return forbidden(a, "can only access CSINode with the same name as the requesting node")
		}
	case api.CertificateSigningRequests:
		return restrictRequest(a, node)
	case api.PodCertificateRequests:
		return p.podCertificate(ctx, a, node)
	case api.ResourceSlices:
		return restrictSlice(a, node)
	}
	return nil
}

// nameless reports whether a user is a node without saying which: no rule could hold it to its own.
func nameless(who user.Info) bool {
	return who != nil && who.GetName() == "system:node:" && slices.Contains(who.GetGroups(), user.NodesGroup)
}

// Validate implements admission.Plugin.
func (NodeRestriction) Validate(context.Context, *admission.Attributes) error { return nil }

func (p NodeRestriction) pod(a *admission.Attributes, node string) error {
	switch a.Subresource {
	case "":
		switch a.Operation {
		case admission.Create:
			return p.mirror(a, node)
		case admission.Delete:
			if a.Old.(*corev1.Pod).Spec.NodeName != node {
				return forbidden(a, "node %q can only delete pods with spec.nodeName set to itself", node)
			}
			return nil
		}
		return forbidden(a, "unexpected operation %q, node %q can only create and delete mirror pods", a.Operation, node)
	case "status":
		if a.Operation != admission.Update {
			return forbidden(a, "unexpected operation %q", a.Operation)
		}
		old, pod := a.Old.(*corev1.Pod), a.Object.(*corev1.Pod)
		if old.Spec.NodeName != node {
			return forbidden(a, "node %q can only update pod status for pods with spec.nodeName set to itself", node)
		}
		if !maps.Equal(old.Labels, pod.Labels) {
			return forbidden(a, "node %q cannot update labels through pod status", node)
		}
		if !equality.Semantic.DeepEqual(old.Status.ResourceClaimStatuses, pod.Status.ResourceClaimStatuses) {
			return forbidden(a, "node %q cannot update resource claim statues", node)
		}
		if !equality.Semantic.DeepEqual(old.Status.ExtendedResourceClaimStatus, pod.Status.ExtendedResourceClaimStatus) {
			return forbidden(a, "node %q cannot update extended resource claim status", node)
		}
		if !equality.Semantic.DeepEqual(old.Status.NodeAllocatableResourceClaimStatuses, pod.Status.NodeAllocatableResourceClaimStatuses) {
			return forbidden(a, "node %q cannot update node allocatable resource claim statuses", node)
		}
		return nil
	case "eviction":
		if a.Operation != admission.Create {
			return forbidden(a, "unexpected operation %s", a.Operation)
		}
		obj, ok := p.Reader.Get(api.Pods, a.Key)
		if !ok {
			return apierrors.NewNotFound(api.Pods.GroupResource(), a.Key.Name)
		}
		if obj.(*corev1.Pod).Spec.NodeName != node {
			return forbidden(a, "node %s can only evict pods with spec.nodeName set to itself", node)
		}
		return nil
	}
	return forbidden(a, "unexpected pod subresource %q, only 'status' and 'eviction' are allowed", a.Subresource)
}

// mirror checks a pod that the node creates: it may only show what runs there already, and reach nothing.
func (p NodeRestriction) mirror(a *admission.Attributes, node string) error {
	pod := a.Object.(*corev1.Pod)
	if !isMirror(pod) {
		return forbidden(a, "pod does not have %q annotation, node %q can only create mirror pods", corev1.MirrorPodAnnotationKey, node)
	}
	if pod.Spec.NodeName != node {
		return forbidden(a, "node %q can only create pods with spec.nodeName set to itself", node)
	}
	if len(pod.OwnerReferences) != 1 {
		return forbidden(a, "node %q can only create pods with a single owner reference set to itself", node)
	}
	o := pod.OwnerReferences[0]
	switch {
	case o.APIVersion != "v1" || o.Kind != "Node" || o.Name != node:
		return forbidden(a, "node %q can only create pods with an owner reference set to itself", node)
	case o.Controller == nil || !*o.Controller:
		return forbidden(a, "node %q can only create pods with a controller owner reference set to itself", node)
	case o.BlockOwnerDeletion != nil && *o.BlockOwnerDeletion:
		return forbidden(a, "node %q must not set blockOwnerDeletion on an owner reference", node)
	}
	obj, ok := p.Reader.Get(api.Nodes, api.Key{Name: node})
	if !ok {
		return apierrors.NewNotFound(api.Nodes.GroupResource(), node)
	}
	if obj.GetUID() != o.UID {
		return forbidden(a, "node %s UID mismatch: expected %s got %s", node, o.UID, obj.GetUID())
	}
	if what := references(&pod.Spec); what != "" {
		return forbidden(a, "node %q can not create pods that reference %s", node, what)
	}
	return nil
}

// references names a kind of API object that a pod refers to, or returns "".
func references(spec *corev1.PodSpec) (what string) {
	found := func(is bool, kind string) {
		if is && what == "" {
			what = kind
		}
	}
	found(spec.ServiceAccountName != "", "serviceaccounts")
	found(len(spec.ImagePullSecrets) > 0, "secrets")
	found(len(spec.ResourceClaims) > 0, "resourceclaims")
	visitContainers(spec, func(_ string, c *corev1.Container) {
		for _, e := range c.Env {
			found(e.ValueFrom != nil && e.ValueFrom.SecretKeyRef != nil, "secrets")
			found(e.ValueFrom != nil && e.ValueFrom.ConfigMapKeyRef != nil, "configmaps")
		}
		for _, e := range c.EnvFrom {
			found(e.SecretRef != nil, "secrets")
			found(e.ConfigMapRef != nil, "configmaps")
		}
	})
	for _, v := range spec.Volumes {
		// What a node can give by itself; everything else is, or may lead to, an API object.
		harmless := v.HostPath != nil || v.EmptyDir != nil || v.DownwardAPI != nil || v.Image != nil || v.NFS != nil || v.GitRepo != nil
		found(!harmless, "volumes other than the node's own")
	}
	return what
}

func restrictNode(a *admission.Attributes, node string) error {
	if a.Key.Name != node {
		return forbidden(a, "node %q is not allowed to modify node %q", node, a.Key.Name)
	}
	switch a.Operation {
	case admission.Create:
		n := a.Object.(*corev1.Node)
		if bad := protectedLabels(n.Labels, nil); len(bad) > 0 {
			return forbidden(a, "node %q is not allowed to set the following labels: %s", node, strings.Join(bad, ", "))
		}
	case admission.Update:
		n, old := a.Object.(*corev1.Node), a.Old.(*corev1.Node)
		if !equality.Semantic.DeepEqual(n.Spec.Taints, old.Spec.Taints) {
			return forbidden(a, "node %q is not allowed to modify taints", node)
		}
		if !equality.Semantic.DeepEqual(n.OwnerReferences, old.OwnerReferences) {
			return forbidden(a, "node %q is not allowed to modify ownerReferences", node)
		}
		if bad := protectedLabels(n.Labels, old.Labels); len(bad) > 0 {
			return forbidden(a, "is not allowed to modify labels: %s", strings.Join(bad, ", "))
		}
	}
	return nil
}

// protectedLabels returns the labels that differ between a and b and are not a node's to choose, in order.
func protectedLabels(a, b map[string]string) (bad []string) {
	for key := range union(a, b) {
		v, in := a[key]
		if w, also := b[key]; in == also && v == w {
			continue
		}
		if protected(key) {
			bad = append(bad, key)
		}
	}
	slices.Sort(bad)
	return bad
}

func union(a, b map[string]string) map[string]string {
	all := maps.Clone(a)
	if all == nil {
		all = map[string]string{}
	}
	maps.Copy(all, b)
	return all
}

// protected tells whether a label is Kubernetes' own and not among those that agents set
// (KEP-279, https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/#noderestriction).
func protected(key string) bool {
	domain, _, ok := strings.Cut(key, "/")
	if !ok {
		return false
	}
	within := func(d string) bool { return domain == d || strings.HasSuffix(domain, "."+d) }
	if within("node-restriction.kubernetes.io") {
		return true
	}
	if !within("kubernetes.io") && !within("k8s.io") || within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
		return false
	}
	switch key {
	case corev1.LabelHostname, corev1.LabelOSStable, corev1.LabelArchStable, corev1.LabelTopologyZone, corev1.LabelTopologyRegion,
		corev1.LabelFailureDomainBetaZone, corev1.LabelFailureDomainBetaRegion, corev1.LabelInstanceType,
		"beta.kubernetes.io/os", "beta.kubernetes.io/arch":
		return false
	}
	return true
}
