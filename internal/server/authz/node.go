package authz

import (
	"context"
	"fmt"
	"slices"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	resourcev1 "k8s.io/api/resource/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/utils/ptr"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/api/localvolume"
	"github.com/knarr-io/knarr/internal/api/volume"
)

// Node authorizes nodes (users system:node:NAME of group system:nodes): the rules of ClusterRole system:node, narrowed to the
// node's own objects and to what the pods that run on it refer to
// (https://kubernetes.io/docs/reference/access-authn-authz/node/). It keeps no graph: the pods of one node are few and
// indexed.
type Node struct {
	cluster Cluster
	rules   *ruleSet
}

// Cluster is what the Node authorizer reads.
type Cluster interface {
	// PodsOn visits the pods bound to a node until visit returns false.
	PodsOn(node string, visit func(*corev1.Pod) bool)
	// Get returns an object of the shared copy.
	Get(res *api.Resource, key api.Key) (api.Object, bool)
}

// NewNode returns the authorizer of nodes.
func NewNode(c Cluster) (*Node, error) {
	rules, err := nodeRules()
	if err != nil {
		return nil, err
	}
	return &Node{cluster: c, rules: compile(rules)}, nil
}

// NodeName returns the node's name if who is one.
func NodeName(who user.Info) (string, bool) {
	if who == nil || !slices.Contains(who.GetGroups(), user.NodesGroup) {
		return "", false
	}
	name, ok := strings.CutPrefix(who.GetName(), "system:node:")
	return name, ok && name != ""
}

// Authorize implements Authorizer.
func (n *Node) Authorize(_ context.Context, a *Attributes) (Decision, string, error) {
	name, ok := NodeName(a.User)
	if !ok || !a.IsResource {
		return NoOpinion, "", nil
	}
	if a.Group == resourcev1.GroupName && a.Resource == "resourceslices" { // by its own rules alone
		if why := n.narrowSlices(name, a); why != "" {
			return NoOpinion, why, nil
		}
		return Allow, "", nil
	}
	if a.Group == "" && a.Resource == "persistentvolumes" && a.Subresource == "" && a.Verb == "update" {
		return n.authorizeLocalVolume(name, a)
	}
	// The role lets nodes get claims. To follow the few that its pods wait for is the same, without asking again and again.
	follows := a.Group == "" && a.Resource == "persistentvolumeclaims" && a.Subresource == "" && (a.Verb == "list" || a.Verb == "watch")
	if !follows && !n.rules.allow(a) {
		return NoOpinion, "", nil
	}
	if why := n.narrow(name, a); why != "" {
		return NoOpinion, why, nil
	}
	return Allow, "", nil
}

// narrow says why a request that the role allows is not this node's to make, or "".
func (n *Node) narrow(node string, a *Attributes) string {
	switch (resource{a.Group, a.Resource, a.Subresource}) {
	case resource{"", "secrets", ""}, resource{"", "configmaps", ""}, resource{"", "persistentvolumeclaims", ""},
		resource{"", "persistentvolumeclaims", "status"}, resource{"", "serviceaccounts", ""}, resource{"", "serviceaccounts", "token"}:
		return n.narrowReferenced(node, a)
	case resource{"", "persistentvolumes", ""}:
		return n.narrowVolume(node, a)
	case resource{"", "nodes", ""}, resource{"", "nodes", "status"}:
		return narrowNode(node, a)
	case resource{"coordination.k8s.io", "leases", ""}:
		switch {
		case a.Namespace != corev1.NamespaceNodeLease:
			return fmt.Sprintf("can only access leases in the %q system namespace", corev1.NamespaceNodeLease)
		case a.Verb != "create" && a.Name != node:
			return "can only access node lease with the same name as the requesting node"
		}
	case resource{"storage.k8s.io", "csinodes", ""}:
		if a.Verb != "create" && a.Name != node {
			return "can only access CSINode with the same name as the requesting node"
		}
	case resource{"storage.k8s.io", "volumeattachments", ""}:
		obj, ok := n.cluster.Get(api.VolumeAttachments, api.Key{Name: a.Name})
		if !ok || obj.(*storagev1.VolumeAttachment).Spec.NodeName != node {
			return fmt.Sprintf("no relationship found between node %q and this object", node)
		}
	case resource{"", "pods", ""}:
		return n.narrowPods(node, a)
	case resource{"certificates.k8s.io", "podcertificaterequests", ""}:
		return n.narrowRequests(node, a)
	case resource{resourcev1.GroupName, "resourceclaims", ""}:
		if !n.find(node, func(p *corev1.Pod) bool { return p.Namespace == a.Namespace && usesDevicesOf(p, a.Name) }) {
			return fmt.Sprintf("no relationship found between node %q and this object", node)
		}
	}
	return ""
}

func narrowNode(node string, a *Attributes) string {
	name := a.Name
	if a.Verb == "list" || a.Verb == "watch" {
		name = only(a, "metadata.name")
	}
	// A create has no name yet: the NodeRestriction admission plugin looks at the object.
	if a.Verb != "create" && name != node {
		return fmt.Sprintf("node %q cannot access nodes other than itself (list and watch take the field selector metadata.name=%s)", node, node)
	}
	return ""
}

// narrowPods: KEP-4601.
func (n *Node) narrowPods(node string, a *Attributes) string {
	switch a.Verb {
	case "list", "watch":
		if only(a, "spec.nodeName") != node {
			return "can only list/watch pods with spec.nodeName field selector"
		}
	case "get":
		if !n.find(node, func(p *corev1.Pod) bool { return p.Namespace == a.Namespace && p.Name == a.Name }) {
			return fmt.Sprintf("no relationship found between node %q and this object", node)
		}
	}
	return ""
}

// narrowRequests: a node reads the requests that it made for its pods (KEP-4317). What it creates, the NodeRestriction admission plugin
// looks at.
func (n *Node) narrowRequests(node string, a *Attributes) string {
	switch a.Verb {
	case "list", "watch":
		if only(a, "spec.nodeName") != node {
			return "can only list/watch podcertificaterequests with nodeName field selector"
		}
	case "get":
		obj, ok := n.cluster.Get(api.PodCertificateRequests, api.Key{Namespace: a.Namespace, Name: a.Name})
		if !ok || string(obj.(*certificatesv1.PodCertificateRequest).Spec.NodeName) != node {
			return fmt.Sprintf("no relationship found between node %q and this object", node)
		}
	}
	return ""
}

// narrowSlices: the drivers of a node say through its agent's identity which devices it has (KEP-4381). What is created, and each one of
// a collection that is deleted, the NodeRestriction admission plugin looks at.
func (n *Node) narrowSlices(node string, a *Attributes) string {
	switch {
	case a.Subresource != "":
		return "cannot authorize ResourceSlice subresources"
	case a.Verb == "create":
		return ""
	case a.Verb == "list" || a.Verb == "watch" || a.Verb == "deletecollection":
		if only(a, resourcev1.ResourceSliceSelectorNodeName) != node {
			return "can only list/watch/deletecollection resourceslices with nodeName field selector"
		}
	case a.Verb == "get" || a.Verb == "update" || a.Verb == "patch" || a.Verb == "delete":
		obj, ok := n.cluster.Get(api.ResourceSlices, api.Key{Name: a.Name})
		if !ok || ptr.Deref(obj.(*resourcev1.ResourceSlice).Spec.NodeName, "") != node {
			return fmt.Sprintf("no relationship found between node %q and this object", node)
		}
	default:
		return "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection"
	}
	return ""
}

// only returns the value to which the field selector of a list narrows field, or that of its name.
func only(a *Attributes, field string) string {
	if a.Fields != nil {
		if v, ok := a.Fields.RequiresExactMatch(field); ok {
			return v
		}
	}
	if field == "metadata.name" {
		return a.Name
	}
	return ""
}

func (n *Node) narrowReferenced(node string, a *Attributes) string {
	name := a.Name
	if a.Verb == "list" || a.Verb == "watch" {
		name = only(a, "metadata.name")
	}
	if name == "" || a.Namespace == "" {
		return "can only access one named object of this type"
	}
	var refers func(p *corev1.Pod) bool
	switch a.Resource {
	case "secrets":
		if n.volumeUsesSecret(node, a.Namespace, name) {
			return ""
		}
		refers = func(p *corev1.Pod) bool { return usesSecret(&p.Spec, name) }
	case "configmaps":
		refers = func(p *corev1.Pod) bool { return usesConfigMap(&p.Spec, name) }
	case "persistentvolumeclaims":
		refers = func(p *corev1.Pod) bool { return usesClaim(p, name) }
	default:
		refers = func(p *corev1.Pod) bool { return p.Spec.ServiceAccountName == name }
	}
	if n.find(node, func(p *corev1.Pod) bool { return p.Namespace == a.Namespace && refers(p) }) {
		return ""
	}
	return fmt.Sprintf("no relationship found between node %q and this object", node)
}

// volumeUsesSecret reports whether the driver of a volume of one of the node's pods is to be given a secret on the node.
func (n *Node) volumeUsesSecret(node, namespace, name string) bool {
	return n.find(node, func(p *corev1.Pod) bool {
		return slices.ContainsFunc(volume.ClaimNames(p), func(claim string) bool {
			obj, ok := n.cluster.Get(api.PersistentVolumeClaims, api.Key{Namespace: p.Namespace, Name: claim})
			if !ok {
				return false
			}
			obj, ok = n.cluster.Get(api.PersistentVolumes, api.Key{Name: obj.(*corev1.PersistentVolumeClaim).Spec.VolumeName})
			if !ok {
				return false
			}
			pv := obj.(*corev1.PersistentVolume)
			ref, of := pv.Spec.ClaimRef, pv.Spec.CSI
			return of != nil && ref != nil && ref.Namespace == p.Namespace && ref.Name == claim &&
				slices.ContainsFunc([]*corev1.SecretReference{of.NodeStageSecretRef, of.NodePublishSecretRef, of.NodeExpandSecretRef}, func(r *corev1.SecretReference) bool {
					return r != nil && r.Namespace == namespace && r.Name == name
				})
		})
	})
}

// narrowVolume: a volume counts as used by the node if a claim of one of its pods is bound to it.
func (n *Node) narrowVolume(node string, a *Attributes) string {
	obj, ok := n.cluster.Get(api.PersistentVolumes, api.Key{Name: a.Name})
	if ok {
		if ref := obj.(*corev1.PersistentVolume).Spec.ClaimRef; ref != nil &&
			n.find(node, func(p *corev1.Pod) bool { return p.Namespace == ref.Namespace && usesClaim(p, ref.Name) }) {
			return ""
		}
	}
	return fmt.Sprintf("no relationship found between node %q and this object", node)
}

// authorizeLocalVolume lets a node take its finalizer from a local volume of its own whose directory it has removed. The NodeRestriction
// admission plugin sees to it that it changes nothing else.
func (n *Node) authorizeLocalVolume(node string, a *Attributes) (Decision, string, error) {
	obj, ok := n.cluster.Get(api.PersistentVolumes, api.Key{Name: a.Name})
	if !ok || !localvolume.On(obj.(*corev1.PersistentVolume), node) {
		return NoOpinion, "can only update local volumes of its own", nil
	}
	return Allow, "", nil
}

// find tells whether a pod of the node does. Mirror pods do not count: the node itself writes them, and could name any
// secret in one.
func (n *Node) find(node string, does func(*corev1.Pod) bool) (found bool) {
	n.cluster.PodsOn(node, func(p *corev1.Pod) bool {
		if _, mirror := p.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
			found = does(p)
		}
		return !found
	})
	return found
}
