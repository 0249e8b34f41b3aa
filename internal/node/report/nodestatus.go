package report

import (
	"context"
	"fmt"
	"maps"
	goruntime "runtime"
	"sort"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/amount"
	"github.com/knarr-io/knarr/internal/node/ledger"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
	"github.com/knarr-io/knarr/internal/node/machine"
)

const maxImages = 50 // in the node's status, as the kubelet's

// health is what the node's conditions are made from.
type health struct {
	runtime, network, memory, disk, pids string // what is wrong; "" for nothing
}

// nodeConditions returns the node's conditions; those that did not change keep their transition time. It is pure.
func nodeConditions(old []corev1.NodeCondition, h health, now time.Time) []corev1.NodeCondition {
	stamp := metav1.NewTime(now.Truncate(time.Second))
	pressure := func(t corev1.NodeConditionType, wrong, no, yes, fine string) corev1.NodeCondition {
		if wrong != "" {
			return corev1.NodeCondition{Type: t, Status: corev1.ConditionTrue, Reason: yes, Message: wrong}
		}
		return corev1.NodeCondition{Type: t, Status: corev1.ConditionFalse, Reason: no, Message: fine}
	}
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady", Message: "kubelet is posting ready status"}
	var wrong []string
	for _, w := range []string{h.runtime, h.network} {
		if w != "" {
			wrong = append(wrong, w)
		}
	}
	if len(wrong) > 0 {
		ready.Status, ready.Reason, ready.Message = corev1.ConditionFalse, "KubeletNotReady", "["+strings.Join(wrong, ", ")+"]"
		if len(wrong) == 1 {
			ready.Message = wrong[0]
		}
	}
	out := []corev1.NodeCondition{
		pressure(corev1.NodeMemoryPressure, h.memory, "KubeletHasSufficientMemory", "KubeletHasInsufficientMemory", "kubelet has sufficient memory available"),
		pressure(corev1.NodeDiskPressure, h.disk, "KubeletHasNoDiskPressure", "KubeletHasDiskPressure", "kubelet has no disk pressure"),
		pressure(corev1.NodePIDPressure, h.pids, "KubeletHasSufficientPID", "KubeletHasInsufficientPID", "kubelet has sufficient PID available"),
		ready,
	}
	for i := range out {
		out[i].LastHeartbeatTime, out[i].LastTransitionTime = stamp, stamp
		for _, o := range old {
			if o.Type == out[i].Type && o.Status == out[i].Status {
				out[i].LastTransitionTime = o.LastTransitionTime
			}
		}
	}
	for _, o := range old { // others' (NetworkUnavailable)
		known := false
		for i := range out {
			known = known || out[i].Type == o.Type
		}
		if !known {
			out = append(out, o)
		}
	}
	return out
}

// sameConditions compares without times.
func sameConditions(a, b []corev1.NodeCondition) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].Type != b[i].Type || a[i].Status != b[i].Status || a[i].Reason != b[i].Reason || a[i].Message != b[i].Message {
			return false
		}
	}
	return true
}

// checkRuntime asks the runtime how it is.
func (n *Node) checkRuntime(ctx context.Context) health {
	var h health
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	st, err := n.Runtime.Status(ctx)
	if err != nil {
		h.runtime = fmt.Sprintf("container runtime is down: %v", err)
	} else {
		for _, c := range st.GetStatus().GetConditions() {
			if c.Status {
				continue
			}
			switch c.Type {
			case cri.RuntimeReady:
				h.runtime = fmt.Sprintf("container runtime not ready: RuntimeReady=false reason:%s message:%s", c.Reason, c.Message)
			case cri.NetworkReady:
				h.network = fmt.Sprintf("container runtime network not ready: NetworkReady=false reason:%s message:%s", c.Reason, c.Message)
			}
		}
	}
	return h
}

// checkHealth asks the runtime and measures the machine.
func (n *Node) checkHealth(ctx context.Context) health {
	h := n.checkRuntime(ctx)
	if n.Hollow {
		return h
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pressure = n.pressure.Next(lifecycle.Short(machine.Rooms(n.DataDir, amount.Units(*n.Capacity.Memory()))), time.Now())
	h.memory, h.disk, h.pids = n.pressure.Memory, n.pressure.Disk, n.pressure.Processes
	return h
}

// nodeStatus fills everything of the status but the conditions.
func (n *Node) nodeStatus(ctx context.Context, s *corev1.NodeStatus) {
	others := extendedOf(s.Capacity)
	s.Capacity, s.Allocatable = n.Capacity.DeepCopy(), n.Allocatable.DeepCopy()
	maps.Copy(s.Capacity, others)
	maps.Copy(s.Allocatable, others)
	s.Addresses = nil
	for _, ip := range n.IPs {
		s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: ip})
	}
	s.Addresses = append(s.Addresses, corev1.NodeAddress{Type: corev1.NodeHostName, Address: n.Name})
	s.DaemonEndpoints.KubeletEndpoint.Port = int32(n.KubeletPort)
	s.DeclaredFeatures = declaredFeatures()
	info := &s.NodeInfo
	info.KubeletVersion, info.OperatingSystem, info.Architecture = n.Version, goruntime.GOOS, goruntime.GOARCH
	if v, err := n.Runtime.Version(ctx); err == nil {
		info.ContainerRuntimeVersion = v.RuntimeName + "://" + v.RuntimeVersion
	}
	if n.InUse != nil {
		s.VolumesInUse = n.InUse()
	}
	if n.Hollow {
		info.OSImage, info.KernelVersion, info.MachineID, info.SystemUUID, info.BootID = "hollow", "hollow", n.Name, n.Name, n.Name
		return
	}
	machine.Identify(info)
	if all, err := n.Runtime.ListImages(ctx, nil); err == nil {
		s.Images = imageList(all)
	}
	if st, err := n.Runtime.Status(ctx); err == nil {
		groups := st.GetFeatures().GetSupplementalGroupsPolicy()
		s.Features = &corev1.NodeFeatures{SupplementalGroupsPolicy: &groups} // KEP-3619
		s.RuntimeHandlers = nil
		for _, h := range st.RuntimeHandlers {
			f := h.GetFeatures()
			rro, userns := f.GetRecursiveReadOnlyMounts(), f.GetUserNamespaces()
			s.RuntimeHandlers = append(s.RuntimeHandlers, corev1.NodeRuntimeHandler{Name: h.Name,
				Features: &corev1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: &rro, UserNamespaces: &userns}})
		}
		sort.Slice(s.RuntimeHandlers, func(i, j int) bool { return s.RuntimeHandlers[i].Name < s.RuntimeHandlers[j].Name })
	}
}

// declaredFeatures returns what this agent carries out that agents of another version may not, in order (KEP-5328): the scheduler keeps pods
// that need more off the node. The names are those of k8s.io/component-helpers/nodedeclaredfeatures.
func declaredFeatures() []string {
	return []string{"InPlacePodVerticalScalingInitContainers", "RestartAllContainersOnContainerExits"}
}

// extendedOf returns what somebody else has added to a node's capacity, which stays; all of it can be allocated, as from a kubelet
// (kubernetes.io/docs, "Advertise Extended Resources for a Node").
func extendedOf(capacity corev1.ResourceList) corev1.ResourceList {
	out := corev1.ResourceList{}
	for name, q := range capacity {
		if ledger.Extended(name) {
			out[name] = q.DeepCopy()
		}
	}
	return out
}

// imageList returns the largest images, with all their names.
func imageList(all []*cri.Image) []corev1.ContainerImage {
	sort.SliceStable(all, func(i, j int) bool {
		if all[i].Size != all[j].Size {
			return all[i].Size > all[j].Size
		}
		return all[i].Id < all[j].Id
	})
	var out []corev1.ContainerImage
	for _, i := range all[:min(len(all), maxImages)] {
		names := append(append([]string(nil), i.RepoDigests...), i.RepoTags...)
		if len(names) > 5 {
			names = names[:5]
		}
		out = append(out, corev1.ContainerImage{Names: names, SizeBytes: int64(i.Size)})
	}
	return out
}

// sameNodeStatus compares all but the conditions.
func sameNodeStatus(a, b *corev1.NodeStatus) bool {
	x, y := *a, *b
	x.Conditions, y.Conditions = nil, nil
	return apiequality.Semantic.DeepEqual(&x, &y)
}
