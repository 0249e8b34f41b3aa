package lifecycle

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/knarr-io/knarr/internal/amount"
)

// Limits of the kernel's CPU controller (sched-design-CFS, sched-bwc).
const (
	minShares, maxShares = 2, 262144
	CPUPeriod            = 100000 // µs
	minQuota             = 1000   // µs
	maxQuota             = 1<<44 - 1
)

// Shares translates a CPU request into cgroup v1 cpu.shares.
func Shares(milli int64) int64 {
	return min(max(amount.Scale(milli, 1024, 1000), minShares), maxShares)
}

// Quota translates a CPU limit into µs of every 100 ms; 0 means none.
func Quota(milli int64) int64 {
	if milli == 0 {
		return 0
	}
	return min(max(amount.Scale(milli, CPUPeriod, 1000), minQuota), maxQuota)
}

// Resize is where the change of a running pod's resources stands (KEP-1287). The zero value: there is none.
type Resize struct {
	// Pending says why the node has not taken over what the pod asks for: Deferred until there is room, or Infeasible.
	Pending Waiting
	// Active is true from when the node has, until every container runs with it.
	Active bool
	// Error is why the last try failed; the next is not before RetryAt.
	Error   Waiting
	RetryAt metav1.Time
}

// resizing reports whether resources of a running container may differ from what the node has granted.
func (in *Input) resizing() bool { return in.Memory.Resize.Active }

// Differs tells which resources a run has been given otherwise than c asks for. A runtime that does not tell what it gave is believed
// to have given all.
func Differs(c *corev1.Container, r *cri.LinuxContainerResources) (cpu, memory bool) {
	if r == nil {
		return false, false
	}
	cpu = r.CpuShares != 0 && r.CpuShares != Shares(cpuRequest(c)) || max(r.CpuQuota, 0) != Quota(amount.Milli(*c.Resources.Limits.Cpu()))
	return cpu, max(r.MemoryLimitInBytes, 0) != amount.Units(*c.Resources.Limits.Memory())
}

// cpuRequest is what counts as the request: the limit, where there is no request.
func cpuRequest(c *corev1.Container) int64 {
	if q, ok := c.Resources.Requests[corev1.ResourceCPU]; ok {
		return amount.Milli(q)
	}
	return amount.Milli(*c.Resources.Limits.Cpu())
}

// ResizeRestarts reports whether c has to be restarted for what differs to be changed, by its resizePolicy.
func ResizeRestarts(c *corev1.Container, cpu, memory bool) bool {
	for _, p := range c.ResizePolicy {
		if p.RestartPolicy == corev1.RestartContainer && (p.ResourceName == corev1.ResourceCPU && cpu || p.ResourceName == corev1.ResourceMemory && memory) {
			return true
		}
	}
	return false
}

// resize plans the change of what running containers have: those whose policy says so are stopped, to be started with it; p.Resize
// asks for the rest.
func (in *Input) resize(p *Plan) {
	if !in.resizing() {
		return
	}
	if at := in.Memory.Resize.RetryAt.Time; in.Now.Before(at) {
		p.wake(at)
		return
	}
	if !in.Busy.Start {
		p.Resize = true
	}
}

// resizeStop stops a running container that has to be restarted for its new resources.
func (in *Input) resizeStop(p *Plan, c *corev1.Container, run *Container) {
	if !in.resizing() {
		return
	}
	if cpu, memory := Differs(c, run.Resources); ResizeRestarts(c, cpu, memory) {
		stop(in, p, run, Stop{Reason: "Killing", Message: "Container " + c.Name + " resize requires restart", Grace: Grace(in.Pod), Resize: true})
	}
}

// resources tells what the container runs with: requests as granted, and all that the runtime reports as it does.
func resources(c *corev1.Container, run *Container) *corev1.ResourceRequirements {
	r := c.Resources // shares the maps of the spec, which never change
	if run.Resources == nil {
		return &r
	}
	cpu, memory := Differs(c, run.Resources)
	if !cpu && !memory {
		return &r
	}
	r = *r.DeepCopy()
	if cpu {
		if run.Resources.CpuShares != 0 && run.Resources.CpuShares != Shares(cpuRequest(c)) {
			set(&r.Requests, corev1.ResourceCPU, resource.NewMilliQuantity((run.Resources.CpuShares*1000+1023)/1024, resource.DecimalSI), run.Resources.CpuShares > minShares)
		}
		if quota := max(run.Resources.CpuQuota, 0); quota != Quota(amount.Milli(*c.Resources.Limits.Cpu())) {
			period := max(run.Resources.CpuPeriod, 1)
			set(&r.Limits, corev1.ResourceCPU, resource.NewMilliQuantity(quota*1000/period, resource.DecimalSI), quota > 0)
		}
	}
	if limit := run.Resources.MemoryLimitInBytes; memory {
		set(&r.Limits, corev1.ResourceMemory, resource.NewQuantity(limit, resource.BinarySI), limit > 0)
	}
	return &r
}

func set(l *corev1.ResourceList, name corev1.ResourceName, q *resource.Quantity, there bool) {
	if !there {
		delete(*l, name)
		return
	}
	if *l == nil {
		*l = corev1.ResourceList{}
	}
	(*l)[name] = *q
}

// resizeConditions tells how a resize stands (KEP-1287).
func resizeConditions(in *Input) []corev1.PodCondition {
	var out []corev1.PodCondition
	m := &in.Memory.Resize
	if m.Pending.Reason != "" {
		out = append(out, corev1.PodCondition{Type: corev1.PodResizePending, Status: corev1.ConditionTrue, Reason: m.Pending.Reason, Message: m.Pending.Message})
	}
	if m.Active {
		out = append(out, corev1.PodCondition{Type: corev1.PodResizeInProgress, Status: corev1.ConditionTrue, Reason: m.Error.Reason, Message: m.Error.Message})
	}
	return out
}
