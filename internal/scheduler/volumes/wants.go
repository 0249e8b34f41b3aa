package volumes

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"
	"k8s.io/component-helpers/storage/ephemeral"
	storage "k8s.io/component-helpers/storage/volume"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/api/volume"
)

// The names of kube-scheduler's plugins.
const (
	Binding      = "VolumeBinding"
	Restrictions = "VolumeRestrictions"
	Limits       = "NodeVolumeLimits"
	Zone         = "VolumeZone"
)

// Kubernetes' words.
const (
	reasonImmediate  = "pod has unbound immediate PersistentVolumeClaims"
	reasonConflict   = "node(s) had volume node affinity conflict"
	reasonNoVolume   = "node(s) didn't find available persistent volumes to bind"
	reasonNoRoom     = "node(s) did not have enough free storage"
	reasonOncePod    = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode"
	reasonTooMany    = "node(s) exceed max volume count"
	reasonZone       = "node(s) had no available volume zone"
	reasonNoHostname = "node(s) had no hostname label for a local volume"
)

// Refusal is why a node does not do: the plugin that says so, and its words. The zero value is none.
type Refusal struct{ By, Reason string }

// Wants is what a pod wants, as of one moment: it is of no use after the State has changed.
type Wants struct {
	state   *State
	bound   []*corev1.PersistentVolume   // of the claims that have one, on its way to the store or there
	where   []*nodeaffinity.NodeSelector // of these
	shared  []*assumption                // by which other pods bring some of them
	missing []*corev1.PersistentVolumeClaim
	taken   bool // another pod has a volume that is for one pod
}

// Found is what the claims of a pod get on a node.
type Found struct {
	static  map[*corev1.PersistentVolumeClaim]*corev1.PersistentVolume
	local   []*corev1.PersistentVolumeClaim
	foreign []*corev1.PersistentVolumeClaim // of provisioners that have to be asked
	unasked bool                            // one of these has not been yet
	host    string
}

// Wants returns what pod wants, nil if that is nothing, or why it cannot be placed anywhere now.
func (s *State) Wants(pod *corev1.Pod) (w *Wants, reason string) {
	immediate := false
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		name := volume.ClaimName(pod, v)
		if name == "" {
			continue
		}
		key := types.NamespacedName{Namespace: pod.Namespace, Name: name}
		claim := s.claims[key]
		if reason := unusable(pod, v, claim, name); reason != "" {
			return nil, reason
		}
		if w == nil {
			w = &Wants{state: s}
		}
		w.taken = w.taken || v.PersistentVolumeClaim != nil && slices.Contains(claim.Spec.AccessModes, corev1.ReadWriteOncePod) && s.inUse(key, pod)
		switch a := s.assumed[key]; {
		case volume.Complete(claim) || a != nil:
			if reason := w.has(claim, a); reason != "" {
				return nil, reason
			}
		case claim.Spec.VolumeName != "" || !volume.Delays(s.classes[storage.GetPersistentVolumeClaimClass(claim)]):
			immediate = true
		case !slices.Contains(w.missing, claim):
			w.missing = append(w.missing, claim)
		}
	}
	if immediate {
		return nil, reasonImmediate
	}
	if w != nil { // the small ones first, so that the large volumes are left to the large ones
		slices.SortStableFunc(w.missing, func(a, b *corev1.PersistentVolumeClaim) int {
			return a.Spec.Resources.Requests.Storage().Cmp(*b.Spec.Resources.Requests.Storage())
		})
	}
	return w, ""
}

// unusable returns why a pod cannot have a claim, which may be nil.
func unusable(pod *corev1.Pod, v *corev1.Volume, claim *corev1.PersistentVolumeClaim, name string) string {
	switch {
	case claim == nil && v.Ephemeral != nil:
		return fmt.Sprintf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
	case claim == nil:
		return fmt.Sprintf("persistentvolumeclaim %q not found", name)
	case claim.Status.Phase == corev1.ClaimLost:
		return fmt.Sprintf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return fmt.Sprintf("persistentvolumeclaim %q is being deleted", name)
	}
	if v.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(pod, claim); err != nil {
			return err.Error()
		}
	}
	return ""
}

// inUse reports whether a placed pod other than this one uses a claim.
func (s *State) inUse(claim types.NamespacedName, pod *corev1.Pod) bool {
	for _, p := range s.users[claim] {
		if p.UID != pod.UID {
			return true
		}
	}
	return false
}

// has notes a claim that has a volume, or one that another pod brings (a), or says why that will not do.
func (w *Wants) has(claim *corev1.PersistentVolumeClaim, a *assumption) string {
	v := w.state.volumes[claim.Spec.VolumeName]
	if a != nil && !volume.Complete(claim) {
		v = a.volume
		w.shared = append(w.shared, a)
	} else if a != nil && v == nil {
		v = a.volume // the claim was heard of before the volume
	}
	if v == nil {
		return fmt.Sprintf("persistentvolume %q not found", claim.Spec.VolumeName)
	}
	w.bound = append(w.bound, v)
	if v.Spec.NodeAffinity == nil || v.Spec.NodeAffinity.Required == nil {
		return ""
	}
	selector, err := nodeaffinity.NewNodeSelector(v.Spec.NodeAffinity.Required)
	if err != nil {
		return err.Error()
	}
	w.where = append(w.where, selector)
	return ""
}

// On returns what the claims of the pod get on a node, or why it cannot have all.
func (w *Wants) On(node *corev1.Node) (Found, Refusal) {
	if w.taken {
		return Found{}, Refusal{Restrictions, reasonOncePod}
	}
	if why := w.count(node); why != "" {
		return Found{}, Refusal{Limits, why}
	}
	for _, s := range w.where {
		if !s.Match(node) {
			return Found{}, Refusal{Binding, reasonConflict}
		}
	}
	f, why := w.find(node)
	if why != "" {
		return Found{}, Refusal{Binding, why}
	}
	for _, v := range w.bound {
		if !inZone(v, node) {
			return Found{}, Refusal{Zone, reasonZone}
		}
	}
	return f, Refusal{}
}

// find returns which volumes the claims without one get on a node: those that are there first.
func (w *Wants) find(node *corev1.Node) (Found, string) {
	f := Found{host: node.Labels[corev1.LabelHostname]}
	var size amount.Sum
	chosen := map[string]*corev1.PersistentVolume{}
	for _, claim := range w.missing {
		selected, asked := claim.Annotations[storage.AnnSelectedNode]
		if asked && selected != node.Name {
			return f, reasonNoVolume
		}
		if !asked {
			v, err := storage.FindMatchingVolume(claim, w.state.open(claim, chosen), node, chosen, true, true)
			if err != nil {
				return f, err.Error()
			}
			if v != nil {
				if f.static == nil {
					f.static = map[*corev1.PersistentVolumeClaim]*corev1.PersistentVolume{}
				}
				f.static[claim], chosen[v.Name] = v, v
				continue
			}
		}
		class := w.state.classes[storage.GetPersistentVolumeClaimClass(claim)]
		if class.Provisioner == storage.NotSupportedProvisioner || !volume.Reaches(class, node) {
			return f, reasonNoVolume
		}
		if class.Provisioner != volume.Local {
			if !w.state.offers(class, claim, node) {
				return f, reasonNoRoom
			}
			f.foreign, f.unasked = append(f.foreign, claim), f.unasked || !asked
			continue
		}
		if why := volume.LocalRefusal(claim); why != "" {
			return f, why
		}
		if f.host == "" {
			return f, reasonNoHostname
		}
		size.Add(volume.Wanted(claim))
		f.local = append(f.local, claim)
	}
	if room, limited := volume.LocalRoom(node); limited && len(f.local) > 0 {
		if used := w.state.used[f.host]; used != nil {
			size.AddSum(*used)
		}
		if size.Left(room) < 0 {
			return f, reasonNoRoom
		}
	}
	return f, ""
}

// open returns the volumes that a claim may get: none that is on its way to another, nor chosen.
func (s *State) open(claim *corev1.PersistentVolumeClaim, chosen map[string]*corev1.PersistentVolume) []*corev1.PersistentVolume {
	free, mine := s.indexed[volume.FreeOf(storage.GetPersistentVolumeClaimClass(claim))], s.indexed[volume.NamedBy(claim.Namespace, claim.Name)]
	if len(free)+len(mine) == 0 {
		return nil
	}
	var out []*corev1.PersistentVolume
	for _, set := range []map[string]*corev1.PersistentVolume{mine, free} {
		for name, v := range set {
			if s.coming[name] == nil && chosen[name] == nil {
				out = append(out, v)
			}
		}
	}
	slices.SortFunc(out, func(a, b *corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) }) // decisions do not depend on chance
	return out
}

// offers reports whether the provisioner of a class can make a volume of the claim's size for a node, as far as it says (KEP-1472).
func (s *State) offers(class *storagev1.StorageClass, claim *corev1.PersistentVolumeClaim, node *corev1.Node) bool {
	driver := s.drivers[class.Provisioner]
	if driver == nil || driver.Spec.StorageCapacity == nil || !*driver.Spec.StorageCapacity {
		return true
	}
	size := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	for _, c := range s.capacities {
		limit := c.MaximumVolumeSize
		if limit == nil {
			limit = c.Capacity
		}
		if c.StorageClassName != class.Name || limit == nil || limit.Cmp(size) < 0 || c.NodeTopology == nil {
			continue
		}
		if selector, err := metav1.LabelSelectorAsSelector(c.NodeTopology); err == nil && selector.Matches(labels.Set(node.Labels)) {
			return true
		}
	}
	return false
}
