package attachdetach

import (
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api/volume"
	"github.com/knarr-io/knarr/internal/controller/event"
)

// patience is how long a node that is not ready may keep a volume that no pod of it uses any more (kube-controller-manager's
// maxWaitForUnmountDuration). A node that lives gives volumes back by itself.
const patience = 6 * time.Minute

// view is what the decision about a volume depends on.
type view struct {
	// volume is nil where it is gone.
	volume *corev1.PersistentVolume
	driver *storagev1.CSIDriver // nil where there is none
	// users are the pods that have a node and use the volume, or may still.
	users       []*corev1.Pod
	attachments []*storagev1.VolumeAttachment // of the volume
	nodes       map[string]*corev1.Node       // of users and attachments; those that are not there are missing
	// unused says since when no pod has used an attachment, by its name.
	unused map[string]time.Time
	now    time.Time
}

// outcome is what is to be done.
type outcome struct {
	create []*storagev1.VolumeAttachment
	remove []*storagev1.VolumeAttachment
	events []event.Event
	// idle are the names of attachments that no pod uses and that stay for now.
	idle []string
	// again is when to look again; 0 for not at all.
	again time.Duration
}

// plan decides what is attached where.
func plan(v view) outcome {
	var o outcome
	wanted := map[string]bool{}
	for _, p := range v.users {
		wanted[p.Spec.NodeName] = true
	}
	for _, a := range v.attachments {
		if a.DeletionTimestamp != nil || wanted[a.Spec.NodeName] {
			continue
		}
		switch wait := v.wait(a); {
		case wait == 0:
			o.remove = append(o.remove, a)
		default:
			o.idle = append(o.idle, a.Name)
			if o.again == 0 || wait < o.again {
				o.again = wait
			}
		}
	}
	if v.volume == nil || !volume.Attachable(v.volume, v.driver) || v.volume.DeletionTimestamp != nil && len(v.users) == 0 {
		return o
	}
	done := map[string]bool{}
	for _, p := range v.users {
		node := p.Spec.NodeName
		if v.nodes[node] == nil {
			continue
		}
		has, elsewhere := v.attached(node, len(o.create) > 0 && !done[node])
		switch {
		case has != nil:
			o.events = append(o.events, failures(p, v.volume, has)...)
		case elsewhere != "" && exclusive(v.volume):
			o.events = append(o.events, event.Warning(p, "FailedAttachVolume", "Multi-Attach error for volume %q %s", v.volume.Name, elsewhere))
		case !done[node]:
			done[node] = true
			o.create = append(o.create, attachment(v.volume, node))
		}
	}
	return o
}

// wait returns how long an attachment that no pod uses has to stay yet; 0 means that it may go.
func (v *view) wait(a *storagev1.VolumeAttachment) time.Duration {
	node := v.nodes[a.Spec.NodeName]
	if node != nil && slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == corev1.TaintNodeOutOfService }) {
		return 0 // somebody says that the machine is off (KEP-2268)
	}
	if node != nil && v.volume != nil && v.volume.Spec.CSI != nil &&
		!slices.Contains(node.Status.VolumesInUse, volume.UniqueName(v.volume.Spec.CSI.Driver, v.volume.Spec.CSI.VolumeHandle)) {
		return 0
	}
	left := patience
	if since, ok := v.unused[a.Name]; ok {
		left = patience - v.now.Sub(since)
	}
	if left > 0 {
		return left
	}
	if node != nil && ready(node) {
		return patience // it is still giving the volume back, or trying to
	}
	return 0
}

func ready(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(c corev1.NodeCondition) bool {
		return c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue
	})
}

// attached returns the attachment of the volume to a node, and says where else it is attached, or is being detached from; "" for nowhere. begun
// says that it is about to be attached elsewhere.
func (v *view) attached(node string, begun bool) (has *storagev1.VolumeAttachment, elsewhere string) {
	const exclusively = "Volume is already exclusively attached to one node and can't be attached to another"
	if begun {
		elsewhere = exclusively
	}
	for _, a := range v.attachments {
		if a.Spec.NodeName == node {
			has = a
			continue
		}
		elsewhere = exclusively
	}
	var pods []string
	for _, p := range v.users {
		if p.Spec.NodeName != node {
			pods = append(pods, p.Name)
		}
	}
	if elsewhere != "" && len(pods) > 0 {
		slices.Sort(pods)
		elsewhere = fmt.Sprintf("Volume is already used by pod(s) %s", strings.Join(slices.Compact(pods), ", "))
	}
	return has, elsewhere
}

// exclusive reports whether one node at a time can have a volume.
func exclusive(v *corev1.PersistentVolume) bool {
	return !slices.ContainsFunc(v.Spec.AccessModes, func(m corev1.PersistentVolumeAccessMode) bool {
		return m == corev1.ReadWriteMany || m == corev1.ReadOnlyMany
	})
}

// failures returns what a pod is told of an attachment that does not come about.
func failures(p *corev1.Pod, v *corev1.PersistentVolume, a *storagev1.VolumeAttachment) []event.Event {
	if a.Status.Attached || a.Status.AttachError == nil {
		return nil
	}
	return []event.Event{event.Warning(p, "FailedAttachVolume", "AttachVolume.Attach failed for volume %q : %s", v.Name, a.Status.AttachError.Message)}
}

func attachment(v *corev1.PersistentVolume, node string) *storagev1.VolumeAttachment {
	of := v.Spec.CSI
	return &storagev1.VolumeAttachment{
		ObjectMeta: metav1.ObjectMeta{Name: volume.AttachmentName(of.VolumeHandle, of.Driver, node)},
		Spec:       storagev1.VolumeAttachmentSpec{Attacher: of.Driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &v.Name}},
	}
}
