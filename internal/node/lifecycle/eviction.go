package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"

	"github.com/knarr-io/knarr/internal/amount"
)

// ReasonEvicted is the status reason of a pod that the node ended because something ran short.
const ReasonEvicted = "Evicted"

// DiskUse is what a pod has on the node's disk, in bytes.
type DiskUse struct {
	EmptyDirs map[string]uint64 // on disk, by volume
	// Containers is each container's own files and logs.
	Containers map[string]uint64
}

// LimitsDisk reports whether something limits what the pod may have on disk, so that it has to be measured.
func LimitsDisk(pod *corev1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.Medium == corev1.StorageMediumDefault && e.SizeLimit != nil && !e.SizeLimit.IsZero() {
			return true
		}
	}
	for i := range pod.Spec.Containers {
		if !pod.Spec.Containers[i].Resources.Limits.StorageEphemeral().IsZero() {
			return true
		}
	}
	return false
}

// OverDisk says which of the pod's limits on disk is exceeded, in the kubelet's words, or ""
// (https://kubernetes.io/docs/concepts/storage/ephemeral-storage/#resource-emphemeralstorage-consumption).
func OverDisk(pod *corev1.Pod, use DiskUse) string {
	over := func(bytes uint64, limit *resource.Quantity) bool {
		return !limit.IsZero() && bytes > uint64(amount.Units(*limit))
	}
	var sum uint64
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.Medium != corev1.StorageMediumDefault {
			continue
		}
		bytes := use.EmptyDirs[v.Name]
		sum += bytes
		if l := v.EmptyDir.SizeLimit; l != nil && over(bytes, l) {
			return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, l.String())
		}
	}
	for _, bytes := range use.Containers {
		sum += bytes
	}
	limits := helper.PodLimits(pod, helper.PodResourcesOptions{})
	if total := limits.StorageEphemeral(); over(sum, total) && everyLimited(pod) {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", total.String())
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if l := c.Resources.Limits.StorageEphemeral(); over(use.Containers[c.Name], l) {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", c.Name, l.String())
		}
	}
	return ""
}

// everyLimited reports whether each container limits its ephemeral storage: else the sum limits nothing.
func everyLimited(pod *corev1.Pod) bool {
	return !slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool { return c.Resources.Limits.StorageEphemeral().IsZero() })
}

// Room is what is left of something of the node, and of how much, in its unit. A Total of zero: not known.
type Room struct{ Left, Total uint64 }

// Rooms are what can run short on a node.
type Rooms struct {
	Memory      Room // bytes
	Disk, Files Room // bytes and inodes of the file system of data and images
	Processes   Room
}

// Shortage says what has run short, in words for the node's condition; "" for nothing.
type Shortage struct{ Memory, Disk, Processes string }

// Short compares what is left with Kubernetes' default thresholds: memory.available < 100Mi, nodefs.available < 10%,
// nodefs.inodesFree < 5% (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#hard-eviction-thresholds), and a
// twentieth of the processes.
func Short(r Rooms) Shortage {
	const memory = 100 << 20
	var s Shortage
	if r.Memory.Total > 0 && r.Memory.Left < memory {
		s.Memory = fmt.Sprintf("kubelet has insufficient memory available: %d MiB left", r.Memory.Left>>20)
	}
	switch {
	case r.Disk.Total > 0 && r.Disk.Left*10 < r.Disk.Total:
		s.Disk = fmt.Sprintf("kubelet has disk pressure: %d MiB of %d left on the disk of the data directory", r.Disk.Left>>20, r.Disk.Total>>20)
	case r.Files.Total > 0 && r.Files.Left*20 < r.Files.Total:
		s.Disk = fmt.Sprintf("kubelet has disk pressure: %d of %d inodes left on the disk of the data directory", r.Files.Left, r.Files.Total)
	}
	if r.Processes.Total > 0 && r.Processes.Left*20 < r.Processes.Total {
		s.Processes = fmt.Sprintf("kubelet has insufficient PID available: %d of %d left", r.Processes.Left, r.Processes.Total)
	}
	return s
}

// Held keeps each shortage for a while after it was last seen, so that a node does not change its mind all the time: before is what was
// told, seen when each was last short.
type Held struct {
	Shortage
	memory, disk, processes time.Time
}

// transition is how long a pressure is reported after its cause is gone (eviction-pressure-transition-period).
const transition = 5 * time.Minute

// Next returns what is reported now that s is short.
func (h Held) Next(s Shortage, now time.Time) Held {
	hold := func(told *string, seen *time.Time, short string) {
		switch {
		case short != "":
			*told, *seen = short, now
		case now.Sub(*seen) >= transition:
			*told = ""
		}
	}
	hold(&h.Memory, &h.memory, s.Memory)
	hold(&h.Disk, &h.disk, s.Disk)
	hold(&h.Processes, &h.processes, s.Processes)
	return h
}

// Candidate is a pod that might have to go, with what it uses of what is short and what it asked for.
type Candidate struct {
	Pod         *corev1.Pod
	Use, Wanted uint64
}

// Victim returns the candidate that goes first: those that use more than they asked for, then those of low priority, then those that use most above
// their request (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#pod-selection-for-kubelet-eviction). Critical
// pods stay. nil: none can go.
func Victim(all []Candidate) *corev1.Pod {
	above := func(c Candidate) int64 { return int64(c.Use) - int64(c.Wanted) }
	all = slices.DeleteFunc(slices.Clone(all), func(c Candidate) bool { return Critical(c.Pod) || c.Use == 0 })
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(all, func(a, b Candidate) int {
		exceeds := func(c Candidate) int {
			if above(c) > 0 {
				return 0
			}
			return 1
		}
		return cmp.Or(cmp.Compare(exceeds(a), exceeds(b)), cmp.Compare(priority(a.Pod), priority(b.Pod)), cmp.Compare(above(b), above(a)))
	}).Pod
}

func priority(pod *corev1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// Critical tells a pod that the node cannot do without.
func Critical(pod *corev1.Pod) bool {
	const systemCritical = 2_000_000_000
	return priority(pod) >= systemCritical
}
