package node

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1/nodeaffinity"

	"github.com/knarr-io/knarr/internal/api"
	"github.com/knarr-io/knarr/internal/client"
	"github.com/knarr-io/knarr/internal/node/lifecycle"
)

func podRequests(pod *corev1.Pod) corev1.ResourceList {
	return resource.PodRequests(pod, resource.PodResourcesOptions{})
}

// admit decides once whether the node can run the pod: the scheduler may have been wrong or left out (spec.nodeName). A pod that is there
// already stays. w.mu must be held.
func (w *worker) admit(ctx context.Context, pod *corev1.Pod, obs *lifecycle.Observed) {
	if w.admitted {
		return
	}
	w.admitted = true
	if w.mem.Gone || pod.DeletionTimestamp != nil || pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return
	}
	present := len(obs.Sandboxes) > 0 || len(obs.Containers) > 0 || pod.Status.StartTime != nil
	if present {
		w.takeOver(pod)
		pod = w.granted.apply(pod)
	}
	if !present && choosesNode(pod) {
		w.a.lookAtNode(ctx)
	}
	f := w.a.pressed(pod, present)
	if f == nil {
		f = w.a.reserve(w, pod, present)
	}
	if f == nil {
		return
	}
	w.mem.Failure = f
	w.a.log.Info("pod refused", "pod", w.key, "reason", f.Reason, "message", f.Message)
	w.a.events.warning(w.pod, "", f.Reason, f.Message)
}

// pressed refuses new pods while something runs short: those that asked for no memory, and all while the disk is full. Critical ones are
// let in (https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/#node-conditions).
func (a *Agent) pressed(pod *corev1.Pod, present bool) *lifecycle.Failure {
	a.mu.Lock()
	short := a.pressure.Shortage
	a.mu.Unlock()
	var why corev1.NodeConditionType
	switch {
	case present || lifecycle.Critical(pod):
	case short.Disk != "":
		why = corev1.NodeDiskPressure
	case short.Memory != "" && lifecycle.QOS(pod) == corev1.PodQOSBestEffort:
		why = corev1.NodeMemoryPressure
	}
	if why == "" {
		return nil
	}
	return &lifecycle.Failure{Reason: lifecycle.ReasonEvicted, Message: fmt.Sprintf("Pod was rejected: The node had condition: [%s]. ", why)}
}

// choosesNode tells that it depends on the node's labels whether the pod may run there.
func choosesNode(pod *corev1.Pod) bool {
	return len(pod.Spec.NodeSelector) > 0 || pod.Spec.Affinity != nil && pod.Spec.Affinity.NodeAffinity != nil
}

// lookAtNode reads the node anew: its labels may have changed since it was registered, and the scheduler went by the newest.
func (a *Agent) lookAtNode(ctx context.Context) {
	n, err := client.Get[*corev1.Node](ctx, a.cfg.Client, api.Key{Name: a.cfg.NodeName})
	if err != nil {
		a.log.Debug("reading this node's labels", "err", err) // what is known of them has to do
		return
	}
	a.setNode(n)
}

// claim is what an admitted pod holds of the node.
type claim struct {
	requests corev1.ResourceList
	ports    []hostPort
}

type hostPort struct {
	ip       string
	port     int32
	protocol corev1.Protocol
}

// reserve gives the pod its share of the node, or says why not. force is for pods that run already.
func (a *Agent) reserve(w *worker, pod *corev1.Pod, force bool) *lifecycle.Failure {
	c := claim{podRequests(pod), hostPorts(pod)}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, o := range a.claims { // most pods ask for the same as any other, and a map of requests takes 650 bytes
		if apiequality.Semantic.DeepEqual(c.requests, o.requests) {
			c.requests = o.requests
		}
		break
	}
	if !force {
		if f := refuse(pod, c, a.node, a.allocatable, a.claims); f != nil {
			return f
		}
	}
	a.hold(w, c)
	return nil
}

// holds notes what a pod of an earlier agent holds. a.mu must be held.
func (a *Agent) holds(w *worker, pod *corev1.Pod) {
	a.hold(w, claim{podRequests(pod), hostPorts(pod)})
}

// hold notes a pod's claim. a.mu must be held.
func (a *Agent) hold(w *worker, c claim) {
	if a.claims == nil {
		a.claims = map[types.UID]claim{}
	}
	a.claims[w.uid] = c
}

// extended tells resources that someone wrote into the node's status: the agent, which has no device plugins, does not hand them
// out, so the scheduler's count of them stands. The kubelet leaves out the extended resources that it does not know likewise.
func extended(name corev1.ResourceName) bool {
	return strings.Contains(string(name), "/") && !strings.Contains(string(name), corev1.ResourceDefaultNamespacePrefix)
}

// release gives the pod's share back.
func (a *Agent) release(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	_, held := a.claims[uid]
	delete(a.claims, uid)
	delete(a.deferred, uid)
	if held {
		a.retryDeferred()
	}
}

// refuse says why a pod does not fit beside the claims of others, in the kubelet's words. It is pure.
func refuse(pod *corev1.Pod, c claim, node *corev1.Node, allocatable corev1.ResourceList, others map[types.UID]claim) *lifecycle.Failure {
	if node != nil {
		ok, err := nodeaffinity.GetRequiredNodeAffinity(pod).Match(node)
		if err != nil || !ok {
			return &lifecycle.Failure{Reason: "NodeAffinity", Message: "Pod was rejected: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector"}
		}
	}
	if max := allocatable.Pods().Value(); max > 0 && int64(len(others)) >= max {
		return outOf(corev1.ResourcePods, 1, int64(len(others)), max)
	}
	for name, want := range c.requests {
		have, known := allocatable[name]
		if !known {
			if want.IsZero() || name == corev1.ResourceEphemeralStorage || extended(name) {
				continue
			}
		}
		if want.IsZero() {
			continue
		}
		used := have.DeepCopy()
		used.Sub(have)
		for _, o := range others {
			used.Add(o.requests[name])
		}
		sum := used.DeepCopy()
		sum.Add(want)
		if sum.Cmp(have) > 0 {
			value := func(q interface{ Value() int64 }, milli int64) int64 {
				if name == corev1.ResourceCPU {
					return milli
				}
				return q.Value()
			}
			return outOf(name, value(&want, want.MilliValue()), value(&used, used.MilliValue()), value(&have, have.MilliValue()))
		}
	}
	for _, p := range c.ports {
		for _, o := range others {
			for _, q := range o.ports {
				if p.port == q.port && p.protocol == q.protocol && (p.ip == q.ip || p.ip == "" || q.ip == "") {
					return &lifecycle.Failure{Reason: "NodePorts", Message: "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"}
				}
			}
		}
	}
	return nil
}

func outOf(name corev1.ResourceName, requested, used, capacity int64) *lifecycle.Failure {
	return &lifecycle.Failure{Reason: "OutOf" + string(name),
		Message: fmt.Sprintf("Pod was rejected: Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d", name, requested, used, capacity)}
}

func hostPorts(pod *corev1.Pod) []hostPort {
	var out []hostPort
	add := func(list []corev1.Container, sidecars bool) {
		for i := range list {
			if sidecars && !lifecycle.IsSidecar(&list[i]) {
				continue
			}
			for _, p := range list[i].Ports {
				if p.HostPort == 0 {
					continue
				}
				h := hostPort{ip: p.HostIP, port: p.HostPort, protocol: p.Protocol}
				if h.ip == "0.0.0.0" || h.ip == "::" {
					h.ip = ""
				}
				if h.protocol == "" {
					h.protocol = corev1.ProtocolTCP
				}
				out = append(out, h)
			}
		}
	}
	add(pod.Spec.Containers, false)
	add(pod.Spec.InitContainers, true)
	return out
}
